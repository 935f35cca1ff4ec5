"""Grades hidden cases in a Harbor container: the program `tests/grade.py` of the folders that `write_harbor` writes.

It needs Python alone. What the agent left in `/app` is laid over a copy of the task's own files, as far as it may be
part of a submission; each case runs there in a process of its own, which knows its one input and no expected value;
outcomes are compared here, by type and value. All of that happens in the agent's own container, and is as strong as it.
"""

import ast
import fnmatch
import importlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from agentenv.envs.code_repair.cases import matches
from agentenv.envs.code_repair.wire import encode

__all__ = ["main"]

_HERE = Path(__file__).resolve().parent
_TIMEOUT_S = 10.0


def main() -> None:
    """Grades, and writes 1 or 0 to `reward.txt`; as `grade.py case`, runs one case."""
    if sys.argv[1:] == ["case"]:
        _answer()
        return
    logs = Path(os.environ.get("AGENTENV_LOGS", "/logs/verifier"))
    task = json.loads((_HERE / "cases.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "workspace"
        shutil.copytree(_HERE / "base", place)
        _lay_over(place, Path(os.environ.get("AGENTENV_APP", "/app")), task)
        wrong = next((case for case in task["cases"] if not _is_right(place, task["setup"], case)), None)
    sys.stdout.write("all cases are right\n" if wrong is None else "a case is wrong\n")
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "reward.txt").write_text("0\n" if wrong else "1\n")


def _lay_over(place: Path, app: Path, task: dict[str, Any]) -> None:
    """Puts what may be part of a submission over the task's files, and takes away what it removed."""
    found = {p.relative_to(app).as_posix(): p for p in app.rglob("*") if p.is_file() and not p.is_symlink()}
    base = {p.relative_to(place).as_posix(): p for p in place.rglob("*") if p.is_file()}
    for path in sorted({*found, *base}):
        allowed = any(fnmatch.fnmatchcase(path, pattern) for pattern in task["editable"])
        if not allowed or any(fnmatch.fnmatchcase(path, pattern) for pattern in task["protected"]):
            continue
        if path in found:
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found[path], place / path)
        else:
            base[path].unlink()


def _is_right(place: Path, setup: str, case: dict[str, Any]) -> bool:
    """Whether a case, run in a process of its own, gives what it must."""
    nonce = secrets.token_hex(16)
    ours, theirs = os.pipe()
    request = {"setup": setup, "call": case["call"], "nonce": nonce, "out": theirs}
    argv = [sys.executable, str(Path(__file__).resolve()), "case"]
    env = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    quiet = subprocess.DEVNULL
    with os.fdopen(ours, encoding="utf-8", errors="replace") as answer:
        try:
            process = subprocess.Popen(  # noqa: S603
                argv, cwd=place, env=env, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, pass_fds=[theirs]
            )
        finally:
            os.close(theirs)
        try:
            process.communicate(json.dumps(request).encode(), timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False
        finally:
            process.kill()
            process.wait()
        os.set_blocking(answer.fileno(), False)  # whatever else it started may still hold the other end
        try:
            outcome: Any = json.loads(answer.read() or "null")
        except ValueError:
            return False
    if process.returncode != 0 or not isinstance(outcome, dict):
        return False
    told = cast("dict[str, Any]", outcome)
    if told.get("nonce") != nonce:
        return False
    if case["raises"]:
        return case["raises"] in told.get("raised", ())
    return "value" in told and matches(case["wire"], told["value"], case["tolerance"])


def _answer() -> None:
    """Runs one call in the current folder, and says what became of it."""
    request = json.loads(sys.stdin.read())
    importlib.import_module("unittest")  # loaded where visible tests run, too
    sys.path[:1] = [str(Path.cwd() / "tests"), str(Path.cwd())]
    sys.argv = ["python3 -m unittest", "discover", "-s", "tests"]
    scope: dict[str, Any] = {"__name__": "__case__"}
    outcome: dict[str, Any] = {"nonce": request["nonce"]}
    try:
        exec(compile(request["setup"], "<setup>", "exec"), scope)  # noqa: S102
        body = ast.parse(request["call"]).body
        last = body.pop()
        exec(compile(ast.Module(body, []), "<case>", "exec"), scope)  # noqa: S102
        value = eval(compile(ast.Expression(last.value), "<case>", "eval"), scope)  # noqa: S307
        outcome["value"] = encode(value)
    except BaseException as error:  # noqa: BLE001  whatever the code under test raises
        kinds = type.mro(type(error))
        outcome["raised"] = [
            kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            for kind in kinds
        ]
    os.write(request["out"], json.dumps(outcome).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
