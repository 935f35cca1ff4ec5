"""Task folders in Harbor's layout.

| in the folder | becomes |
|---|---|
| `task.toml` | `[metadata] difficulty`, `[environment] docker_image`; `[agentenv] setup`, `visible`, `editable` |
| `instruction.md` | the instruction |
| `environment/` | the workspace, without `Dockerfile` and `docker-compose.yaml` |
| `tests/cases.txt` | the hidden cases, one assertion per line: `f(1) == 2`, or `f(0) raises ValueError` |
| `solution/` | the files that repair it, without `solve.sh` |

A task whose only test is `tests/test.sh` is refused: such a script writes its own verdict in the container where the
submission runs, so the submission can write it too.
"""

import tomllib
from pathlib import Path
from typing import Any, cast

import pydantic

from agentenv.errors import TaskError

from .library import read_case
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
        found = (
            "only test.sh, whose verdict a submission could write itself" if (tests / "test.sh").exists() else "none"
        )
        msg = f"hidden cases must be in tests/cases.txt; found {found}"
        raise ValueError(msg)
    lines = (line.strip() for line in cases.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in paths
        if path.name not in _NOT_FILES
    }
