"""Runs Harbor's scripts in sandboxes: `test.sh` on a submission, `solve.sh` for the task's own solution.

The script meets a fresh sandbox with the task's own files and the submission over them, never the agent's sandbox. What
that promises, and what it cannot, is `scripts.PROMISE`.

A sandbox has its workspace in one place, and Harbor's places do not exist in it. So in the text files of `tests/` and
`solution/` the paths `/app`, `/tests`, `/solution` and `/logs` are replaced by where those are here; binary files stay.
"""

import io
import json
import math
import re
import tarfile
from collections.abc import Mapping
from contextlib import closing
from typing import Any, cast

from agentenv.protocols import ExecResult, Sandbox

from .scripts import TestScript
from .submissions import OpenSandbox, Submission, collect_submission, lay_over, spec_of
from .suites import as_bytes
from .tasks import RepairTask

__all__ = ["STEPS", "grade_script", "solve_by_script"]

STEPS = 100
"""A reward between 0 and 1 is counted in so many steps, downwards; only 1 is all of them."""

_PLACE = "/tmp/.harbor"  # noqa: S108  the sandbox's own
_PLACES = {"app": "/workspace", **{name: f"{_PLACE}/{name}" for name in ("tests", "solution", "logs")}}
_PATH = re.compile(r"(?<![\w./-])/(app|tests|solution|logs)(?=$|[/\s\"'`;:|&)\]},])", re.MULTILINE)
_UNPACK = (
    "import sys, io, tarfile, os\n"
    f"os.makedirs('{_PLACE}/logs/verifier', exist_ok=True)\n"
    f"tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())).extractall('{_PLACE}')\n"
)
_RUN = 'cd /workspace; if command -v bash >/dev/null 2>&1; then exec bash "$0"; else exec sh "$0"; fi'
_READ = f"cd {_PLACE}/logs/verifier && if [ -f reward.json ]; then cat reward.json; else cat reward.txt; fi"


def grade_script(
    open_: OpenSandbox, task: RepairTask, script: TestScript, submission: Submission
) -> tuple[int, str, str]:
    """Returns how many of `STEPS` a submission is worth, why not all, and more on that for whoever wrote the task.

    Raises:
        SandboxError: the sandbox broke.
    """
    with closing(open_(spec_of(task))) as sandbox:
        if problem := lay_over(sandbox, task, submission):
            return 0, problem, problem
        _put(sandbox, "tests", script.files, script.executable)
        ran = _run(sandbox, "tests/test.sh", script)
        told = sandbox.exec(["sh", "-c", _READ])
    output = (ran.stdout + ran.stderr)[-2000:]
    if ran.timed_out or ran.oom:
        why = "test.sh timed out" if ran.timed_out else "test.sh ran out of memory"
        return 0, why, f"{why}: {output}"
    reward = _reward(told.stdout) if told.exit_code == 0 else None
    if reward is None:
        return 0, "test.sh wrote no reward", f"test.sh wrote no number from 0 to 1, but {told.stdout!r:.200}: {output}"
    passed = math.floor(reward * STEPS)
    return passed, "" if passed == STEPS else f"test.sh gave {reward:g}", f"test.sh gave {reward:g}: {output}"


def solve_by_script(open_: OpenSandbox, task: RepairTask, script: TestScript) -> Submission:
    """Returns what `solve.sh` makes of the workspace, as an agent's submission.

    Raises:
        SandboxError: the sandbox broke.
    """
    with closing(open_(spec_of(task))) as sandbox:
        _put(sandbox, "solution", script.solve, ("solve.sh",))
        _run(sandbox, "solution/solve.sh", script)
        return collect_submission(sandbox, task)


def _put(sandbox: Sandbox, folder: str, files: Mapping[str, str | bytes], executable: tuple[str, ...]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            info, data = tarfile.TarInfo(f"{folder}/{path}"), _with_places(as_bytes(content))
            info.size, info.mode = len(data), 0o755 if path in executable else 0o644
            tar.addfile(info, io.BytesIO(data))
    sandbox.exec(["python3", "-I", "-S", "-W", "ignore", "-c", _UNPACK], stdin=out.getvalue())


def _run(sandbox: Sandbox, path: str, script: TestScript) -> ExecResult:
    return sandbox.exec(["sh", "-c", _RUN, f"{_PLACE}/{path}"], timeout_s=script.timeout_s, env=script.env)


def _with_places(data: bytes) -> bytes:
    """Replaces Harbor's paths in what is text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return _PATH.sub(lambda match: _PLACES[match[1]], text).encode()


def _reward(text: str) -> float | None:
    """Reads a reward: a number, or JSON with `reward`; `None` where it is none from 0 to 1."""
    try:
        value: Any = json.loads(text)
        number = float(cast("Any", value)["reward"] if isinstance(value, dict) else value)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if 0 <= number <= 1 else None
