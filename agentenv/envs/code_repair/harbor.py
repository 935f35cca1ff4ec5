"""Task folders in Harbor's layout.

| in the folder | becomes |
|---|---|
| `task.toml` | `[metadata] difficulty`, `[environment] docker_image`; `[agentenv] setup`, `visible`, `editable` |
| `instruction.md` | the instruction |
| `environment/` | the workspace, without `Dockerfile` and `docker-compose.yaml` |
| `tests/cases.txt` | the hidden cases, one assertion per line: `f(1) == 2`, or `f(0) raises ValueError` |
| `tests/test_*.py` | a hidden pytest suite: every test function in them; what else is in `tests/` lies beside them |
| `solution/` | the files that repair it, without `solve.sh` |

Pytest files run in `tests/` of the workspace, under the runner that grades all suites; `test.sh` is not run. A task
with no test but `tests/test.sh` is refused: such a script writes its own verdict in the container where the submission
runs, so the submission can write it too.
"""

import ast
import tomllib
from pathlib import Path
from typing import Any, cast

import pydantic

from agentenv.errors import TaskError

from .cases import parse_python
from .library import read_case
from .suites import TestSuite
from .tasks import RepairTask

__all__ = ["read_harbor"]

_LEVELS = {"easy": 2, "medium": 3, "hard": 4}
_NOT_FILES = frozenset({"Dockerfile", "docker-compose.yaml", "docker-compose.yml", "solve.sh"})


def read_harbor(folder: str | Path) -> RepairTask:
    """Reads one task.

    Raises:
        TaskError: a part is missing or wrong; the message names it.
    """
    folder = Path(folder)
    try:
        settings = tomllib.loads((folder / "task.toml").read_text(encoding="utf-8"))
        own, environment = _table(settings, "agentenv"), _table(settings, "environment")
        level = _table(settings, "metadata").get("difficulty", 0)
        return RepairTask(
            id=folder.resolve().name,
            instruction=(folder / "instruction.md").read_text(encoding="utf-8"),
            files=_files(folder / "environment"),
            setup=own.get("setup", ""),
            visible=tuple(map(read_case, own.get("visible", ()))),
            hidden=tuple(map(read_case, _lines(folder / "tests"))),
            suite=_suite(folder / "tests"),
            solution=_files(folder / "solution") if (folder / "solution").is_dir() else {},
            difficulty=_LEVELS.get(str(level), 0),
            image=environment.get("docker_image"),
            editable=tuple(own.get("editable", ("*.py",))),
        )
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        msg = f"{folder}: {problems}"
        raise TaskError(msg) from None
    except (OSError, ValueError, TypeError) as error:
        msg = f"{folder}: {error}"
        raise TaskError(msg) from None


def _table(settings: dict[str, Any], name: str) -> dict[str, Any]:
    table = settings.get(name, {})
    if not isinstance(table, dict):
        msg = f"task.toml: {name} must be a table, got {table!r}"
        raise ValueError(msg)
    return cast("dict[str, Any]", table)


def _lines(tests: Path) -> list[str]:
    cases = tests / "cases.txt"
    if not cases.is_file():
        if any(tests.glob("test_*.py")):
            return []
        found = (
            "only test.sh, whose verdict a submission could write itself" if (tests / "test.sh").exists() else "none"
        )
        msg = f"hidden tests must be in tests/cases.txt or in tests/test_*.py; found {found}"
        raise ValueError(msg)
    lines = (line.strip() for line in cases.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _suite(tests: Path) -> TestSuite | None:
    """Returns the suite of the pytest files of a folder; none where there are none."""
    sources = sorted(tests.glob("test_*.py"))
    if not sources:
        return None
    names = [f"tests/{path.name}::{name}" for path in sources for name in _test_names(path)]
    if not names:
        msg = f"there is no test function in {', '.join(path.name for path in sources)}"
        raise ValueError(msg)
    paths = (p for p in sorted(tests.rglob("*")) if p.is_file() and p.name not in {"test.sh", "cases.txt"})
    return TestSuite(
        fail_to_pass=tuple(names),
        files={f"tests/{path.relative_to(tests).as_posix()}": path.read_bytes() for path in paths},
    )


def _test_names(path: Path) -> list[str]:
    """Returns the test functions of a file as pytest collects them, as far as can be read."""
    names: list[str] = []
    for node in parse_python(path.read_text(encoding="utf-8"), path.name).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names += [node.name] if node.name.startswith("test") else []
        elif isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or _is_unittest(node)):
            functions = (inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef))
            names += [f"{node.name}::{inner.name}" for inner in functions if inner.name.startswith("test")]
    return list(dict.fromkeys(names))


def _is_unittest(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).rpartition(".")[2].endswith("TestCase") for base in node.bases)


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in paths
        if path.name not in _NOT_FILES
    }
