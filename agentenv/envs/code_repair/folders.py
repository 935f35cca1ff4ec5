"""Task folders: code and tests as they lie there, in Harbor's layout or in a plain one.

| in the folder | becomes |
|---|---|
| `instruction.md` | the instruction; every task has one |
| `environment/` | the workspace, without `Dockerfile` and `docker-compose.yaml` |
| `tests/cases.txt` | the hidden cases, one assertion per line: `f(1) == 2`, or `f(0) raises ValueError` |
| `tests/cases.json` | the same, as `agentenv export --to harbor` writes them |
| `tests/test_*.py` | a hidden pytest suite: every test function in them; what else is in `tests/` lies beside them |
| `solution/` | the files that repair it, without `solve.sh` |
| `task.toml` | settings, see below; may be missing |

A plain folder has no `environment/`: there the workspace is the folder itself, its own `tests/` are visible, and
`hidden/` has what decides, in the same form: `hidden/cases.txt`, `hidden/test_*.py`.

`task.toml`: `[metadata] difficulty`, `[environment] docker_image`; and `[metadata.agentenv]` or `[agentenv]` with
`setup` (source that runs before each case), `visible` (cases that the agent can run), `editable` (patterns of the
files that a submission may hold) and `test_command` (what `run_tests` runs).

Files are taken as they are: binary ones, line ends, executable bits. Hidden pytest files run under the runner that
grades all suites; `test.sh` then is not run. Where `tests/test.sh` is all that there is, it decides, as in Harbor: see
`scripts.py` for what that promises.
"""

import ast
import json
import os
import tomllib
from pathlib import Path
from typing import Any, cast

import pydantic

from agentenv.errors import TaskError
from agentenv.rows import describe

from .cases import Case, parse_python
from .library import read_case
from .scripts import TestScript
from .suites import FileContent, TestSuite
from .tasks import RepairTask

__all__ = ["is_folder_of_tasks", "read_folder", "read_folders", "read_harbor"]

_LEVELS = {"easy": 2, "medium": 3, "hard": 4}
_NOT_FILES = frozenset({"Dockerfile", "docker-compose.yaml", "docker-compose.yml", "solve.sh"})
_OWN = frozenset({"instruction.md", "task.toml", "hidden", "solution", ".git"})
_RUBBISH = frozenset({"__pycache__", ".pytest_cache", ".DS_Store"})


def is_folder_of_tasks(path: Path) -> bool:
    """Whether a path is a folder, and no data set that a library wrote as one."""
    return path.is_dir() and not any(path.glob("*.arrow"))


def read_folders(folder: Path) -> tuple[RepairTask, ...]:
    """Reads the task of a folder, or those of its folders, by name.

    Raises:
        TaskError: there is none, or one is wrong.
    """
    if (folder / "instruction.md").is_file() or (folder / "task.toml").is_file():
        return (read_folder(folder),)
    found = sorted(path.parent for path in folder.glob("*/instruction.md"))
    if not found:
        msg = (
            f"{folder}: no task: there must be instruction.md, the code, and hidden/cases.txt or hidden/test_*.py, "
            "in it or in each folder of it"
        )
        raise TaskError(msg)
    return tuple(map(read_folder, found))


def read_folder(folder: str | os.PathLike[str]) -> RepairTask:
    """Reads one task.

    Raises:
        TaskError: a part is missing or wrong; the message names it.
    """
    folder = Path(folder)
    try:
        return _read(folder)
    except pydantic.ValidationError as error:
        msg = f"{folder}: {describe(error)}"
        raise TaskError(msg) from None
    except (OSError, ValueError, TypeError) as error:
        msg = f"{folder}: {error}"
        raise TaskError(msg) from None


read_harbor = read_folder


def _read(folder: Path) -> RepairTask:
    path = folder / "task.toml"
    settings = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    metadata, environment = _table(settings, "metadata"), _table(settings, "environment")
    own = _table(metadata, "agentenv") | _table(settings, "agentenv")
    is_harbor = (folder / "environment").is_dir()
    tests = "tests" if is_harbor else "hidden"
    script = _script(folder, folder / tests, settings) if is_harbor else None
    files = _files(folder / "environment") if is_harbor else _files(folder, without=_OWN)
    return RepairTask(
        id=own.get("id", folder.resolve().name),
        instruction=(folder / "instruction.md").read_text(encoding="utf-8"),
        files={path: _content(place) for path, place in files.items()},
        executable=tuple(path for path, place in files.items() if place.stat().st_mode & 0o100),
        setup=own.get("setup", ""),
        visible=tuple(map(_case, own.get("visible", ()))),
        hidden=tuple(map(_case, _cases(folder / tests))),
        script=script,
        suite=_suite(folder / tests),
        solution={path: _content(place) for path, place in _files(folder / "solution").items()},
        removed=tuple(own.get("removed", ())),
        kind=own.get("kind", ""),
        difficulty=own.get("difficulty", _LEVELS.get(str(metadata.get("difficulty", 0)), 0)),
        image=environment.get("docker_image"),
        editable=tuple(own.get("editable", ("*.py",) if script is None else ("*",))),
        test_command=own.get("test_command", ""),
    )


def _table(settings: dict[str, Any], name: str) -> dict[str, Any]:
    table = settings.get(name, {})
    if not isinstance(table, dict):
        msg = f"task.toml: {name} must be a table, got {table!r}"
        raise ValueError(msg)
    return cast("dict[str, Any]", table)


def _case(written: str | dict[str, Any]) -> Case:
    """Reads a case that is written as an assertion, as its fields, or as JSON of them."""
    if isinstance(written, dict):
        return Case.model_validate({name: value for name, value in written.items() if name != "wire"})
    return Case.model_validate_json(written) if written.lstrip().startswith("{") else read_case(written)


def _cases(tests: Path) -> list[Any]:
    if (tests / "cases.json").is_file():
        return json.loads((tests / "cases.json").read_text(encoding="utf-8"))["cases"]
    cases = tests / "cases.txt"
    if not cases.is_file():
        if any(tests.glob("test_*.py")) or (tests.name == "tests" and (tests / "test.sh").is_file()):
            return []
        msg = f"hidden tests must be in {tests.name}/cases.txt or in {tests.name}/test_*.py; found none"
        raise ValueError(msg)
    lines = (line.strip() for line in cases.read_text(encoding="utf-8").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _script(folder: Path, tests: Path, settings: dict[str, Any]) -> TestScript | None:
    """Returns Harbor's `test.sh` where nothing else decides."""
    others = [tests / "cases.txt", tests / "cases.json", *tests.glob("test_*.py")]
    if not (tests / "test.sh").is_file() or any(path.exists() for path in others):
        return None
    files = _files(tests, without=set())
    verifier = _table(settings, "verifier")
    return TestScript(
        files={path: _content(place) for path, place in files.items()},
        executable=tuple(path for path, place in files.items() if place.stat().st_mode & 0o100),
        env={str(name): str(value) for name, value in _table(verifier, "env").items()},
        timeout_s=float(verifier.get("timeout_sec", 600.0)),
        solve=_solve_script(folder / "solution"),
    )


def _solve_script(solution: Path) -> dict[str, FileContent]:
    """Returns the files of a solution that only `solve.sh` puts in their places."""
    if not (solution / "solve.sh").is_file():
        return {}
    return {path: _content(place) for path, place in _files(solution, keep="solve.sh").items()}


def _suite(tests: Path) -> TestSuite | None:
    """Returns the suite of the pytest files of a folder; none where there are none."""
    sources = sorted(tests.glob("test_*.py"))
    if not sources:
        return None
    names = [f"{tests.name}/{path.name}::{name}" for path in sources for name in _test_names(path)]
    if not names:
        msg = f"there is no test function in {', '.join(path.name for path in sources)}"
        raise ValueError(msg)
    files = {f"{tests.name}/{path}": place for path, place in _files(tests, without={"test.sh", "cases.txt"}).items()}
    return TestSuite(
        fail_to_pass=tuple(names),
        files={path: place.read_bytes() for path, place in files.items()},
        executable=tuple(path for path, place in files.items() if place.stat().st_mode & 0o100),
    )


def _test_names(path: Path) -> list[str]:
    """Returns the test functions of a file as pytest collects them, as far as can be read."""
    names: list[str] = []
    for node in parse_python(path.read_bytes(), path.name).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names += [node.name] if node.name.startswith("test") else []
        elif isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or _is_unittest(node)):
            functions = (inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef))
            names += [f"{node.name}::{inner.name}" for inner in functions if inner.name.startswith("test")]
    return list(dict.fromkeys(names))


def _is_unittest(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).rpartition(".")[2].endswith("TestCase") for base in node.bases)


def _files(folder: Path, *, without: frozenset[str] | set[str] = frozenset(), keep: str = "") -> dict[str, Path]:
    """Returns the files of a folder by their paths in it, without links and what tools leave behind."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        left_out = (
            inside.parts[0] in without or (path.name in _NOT_FILES and path.name != keep) or _RUBBISH & {*inside.parts}
        )
        if path.is_file() and not path.is_symlink() and not left_out:
            found[inside.as_posix()] = path
    return found


def _content(path: Path) -> str | bytes:
    """Returns text where a file is UTF-8, line ends as they are; otherwise its bytes."""
    data = path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
