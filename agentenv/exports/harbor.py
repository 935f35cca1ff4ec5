"""Repair tasks as Harbor folders: what `harbor run -p FOLDER` and `read_folder` both read.

| in the folder | |
|---|---|
| `instruction.md`, `task.toml` | what the agent reads; settings, and ours in `[metadata.agentenv]` |
| `environment/` | the workspace with modes, and a `Dockerfile` that copies it to `/app` |
| `tests/` | `test.sh`, which writes `/logs/verifier/reward.txt`; `cases.json` and `grade.py`, or pytest files |
| `solution/` | the files that repair it, and `solve.sh`, which copies them to `/app` |

Reward 1 for the solution, 0 for the untouched workspace. In Harbor the verdict is made in the agent's own container, as
Harbor does it: there a submission that attacks the verifier may win; here it meets the grader of `CodeRepair`.
"""

import inspect
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from agentenv.envs.code_repair import cases, wire
from agentenv.envs.code_repair.interpreter import guest_source
from agentenv.envs.code_repair.suites import as_bytes
from agentenv.envs.code_repair.tasks import PROTECTED, RepairTask
from agentenv.errors import TaskError

from . import harbor_grade

__all__ = ["IMAGE", "write_harbor"]

IMAGE = "python:3.13-slim"
"""The image of tasks that name none."""

_SCHEMA = "1.4"
_LEVELS = ("", "easy", "easy", "medium", "hard", "hard")
_TAKEN = frozenset({"Dockerfile", "docker-compose.yaml", "docker-compose.yml", "solve.sh"})


def write_harbor(tasks: Iterable[RepairTask], folder: str | Path, *, image: str = IMAGE) -> list[Path]:
    """Writes a folder for each task, named after its id; returns them.

    Args:
        tasks: e.g. `bundled_tasks()`, or what `read_tasks` returns.
        folder: is made; the folders of tasks must not be there yet.
        image: the container image of tasks that name none; it needs Python, and pytest is installed for suites.

    Raises:
        TaskError: a task with a test program or a git repository, which a container cannot grade by itself; one that
            has a file which Harbor's layout needs itself; or two tasks of one name.
        FileExistsError: a folder is there.
    """
    found = [(task, _name(task.id) or f"task-{number}") for number, task in enumerate(tasks)]
    names = [name for _, name in found]
    for number, (task, name) in enumerate(found):
        if name in names[:number]:
            msg = f"task {task.id!r}: another one has the folder {name!r}, too; give tasks ids of their own"
            raise TaskError(msg)
        _check(task)
    return [_write(task, Path(folder) / name, name, task.image or image) for task, name in found]


def _name(task_id: str) -> str:
    """Returns an id as Harbor allows it: letters, digits, dots, hyphens and underscores."""
    return re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", task_id)).strip(".-_")


def _check(task: RepairTask) -> None:
    what = "a test program" if task.program else "a git repository as its base" if task.base else ""
    if what:
        msg = f"task {task.id!r} has {what}, which the test.sh of a Harbor folder cannot grade; leave it out"
        raise TaskError(msg)
    if taken := sorted(path for path in {*task.workspace(), *task.solution} if PurePosixPath(path).name in _TAKEN):
        msg = f"task {task.id!r} has a file {taken[0]!r}, a name that Harbor's layout keeps for itself; rename it"
        raise TaskError(msg)


def _write(task: RepairTask, place: Path, name: str, image: str) -> Path:
    place.mkdir(parents=True)
    workspace = {path: as_bytes(content) for path, content in task.workspace().items()}
    files: dict[str, bytes] = {
        "instruction.md": (task.instruction.rstrip() + "\n").encode(),
        "task.toml": _settings(task, name).encode(),
        "environment/Dockerfile": _dockerfile(task, workspace, image).encode(),
        "solution/solve.sh": _solve(task).encode(),
        **{f"environment/{path}": content for path, content in workspace.items()},
        **{f"solution/{path}": as_bytes(content) for path, content in task.solution.items()},
        **_tests(task, workspace),
    }
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    executable = {f"environment/{path}" for path in task.executable}
    executable |= {f"tests/base/{path}" for path in task.executable} if task.hidden else set()
    executable |= {f"tests/{PurePosixPath(path).name}" for path in (task.suite.executable if task.suite else ())}
    for path in executable | {"tests/test.sh", "solution/solve.sh"}:
        if (place / path).exists():
            (place / path).chmod(0o755)
    return place


def _settings(task: RepairTask, name: str) -> str:
    ours = {
        "id": task.id,
        "setup": task.setup,
        "visible": [json.dumps(case.model_dump(exclude_defaults=True)) for case in task.visible],
        "editable": list(task.editable),
        "test_command": task.test_command,
        "kind": task.kind,
        "difficulty": task.difficulty,
        "removed": list(task.removed),
    }
    lines = [
        f"schema_version = {_quoted(_SCHEMA)}",
        "\n[task]",
        f"name = {_quoted(f'agentenv/{name}')}",
        "\n[metadata]",
        *([f"difficulty = {_quoted(_LEVELS[task.difficulty])}"] if task.difficulty else []),
        "\n[metadata.agentenv]",
        *(f"{key} = {_quoted(value)}" for key, value in ours.items() if value),
        "\n[verifier]\ntimeout_sec = 600.0",
        "\n[agent]\ntimeout_sec = 900.0",
        '\n[environment]\nnetwork_mode = "no-network"',
    ]
    if task.image:
        lines.append(f"docker_image = {_quoted(task.image)}")
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    """A value in TOML: its basic strings, integers and arrays are those of JSON, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _dockerfile(task: RepairTask, workspace: Iterable[str], image: str) -> str:
    tops = sorted({path.partition("/")[0] for path in workspace})
    copies = [f"COPY {json.dumps([top, f'/app/{top}'])}" for top in tops]
    pytest = ["RUN python3 -m pip install --no-cache-dir pytest"] if task.uses_pytest else []
    return "\n".join([f"FROM {image}", *pytest, "WORKDIR /app", *copies]) + "\n"


def _solve(task: RepairTask) -> str:
    lines = ["#!/bin/sh", "# Repairs the workspace.", "set -e"]
    for path in task.solution:
        target = PurePosixPath("/app", path)
        lines.append(f"mkdir -p {shlex.quote(str(target.parent))}")
        lines.append(f"cp {shlex.quote(f'/solution/{path}')} {shlex.quote(str(target))}")
    lines += [f"rm -rf {shlex.quote(f'/app/{path}')}" for path in task.removed]
    return "\n".join(lines) + "\n"


def _tests(task: RepairTask, workspace: dict[str, bytes]) -> dict[str, bytes]:
    steps, files = ["#!/bin/sh", "# Grades what is in /app; the reward is 1 or 0."], dict[str, bytes]()
    steps += ["mkdir -p /logs/verifier", "echo 0 > /logs/verifier/reward.txt"]
    checks: list[str] = []
    if task.suite is not None:
        files |= {f"tests/{_below_tests(task, path)}": as_bytes(text) for path, text in task.suite.files.items()}
        ids = [f"/tests/{_below_tests(task, name)}" for name in (*task.suite.fail_to_pass, *task.suite.pass_to_pass)]
        checks.append(f"(cd /app && PYTHONPATH=/app python3 -m pytest -q -p no:cacheprovider {shlex.join(ids)})")
    if task.hidden:
        whole = {
            "setup": task.setup,
            "editable": list(task.editable),
            "protected": list(PROTECTED),
            "cases": [case.model_dump() | {"wire": None if case.raises else case.wire} for case in task.hidden],
        }
        files["tests/cases.json"] = (json.dumps(whole, indent=1) + "\n").encode()
        files["tests/grade.py"] = _grader().encode()
        files |= {f"tests/base/{path}": content for path, content in workspace.items()}
        checks.append('python3 /tests/grade.py && [ "$(cat /logs/verifier/reward.txt)" = 1 ]')
    checks = [*checks[:1], *(f"echo 0 > /logs/verifier/reward.txt; {check}" for check in checks[1:])]
    for check in checks:
        steps.append(f"{{ {check}; }} || {{ echo 0 > /logs/verifier/reward.txt; exit 0; }}")
    steps.append("echo 1 > /logs/verifier/reward.txt")
    return files | {"tests/test.sh": ("\n".join(steps) + "\n").encode()}


def _below_tests(task: RepairTask, path: str) -> str:
    inside = PurePosixPath(path.partition("::")[0])
    if inside.parts[0] not in {"tests", "hidden"} or len(inside.parts) != 2:
        msg = f"task {task.id!r}: the tests of its suite must be in tests/, got {path!r}"
        raise TaskError(msg)
    return path.partition("/")[2]


def _grader() -> str:
    """The program that grades, with what it needs of this package: standard library alone."""
    parts = [guest_source("functions", "wire")]
    parts += [inspect.getsource(function) for function in (cases.matches, vars(cases)["_same_float"], wire.sort_key)]
    own = Path(harbor_grade.__file__).read_text(encoding="utf-8")
    parts.append("\n".join(line for line in own.split("\n") if not line.startswith("from agentenv")))
    head = "from __future__ import annotations\n\nimport math\n"
    return head + "\n\n".join(part.split('"""\n', 1)[1] if part.startswith('"""') else part for part in parts)
