"""The bundled repair tasks: small projects, each with several bugs that can be put into it.

A project is a TOML file in `projects/` with correct code and with cases, written as assertions:
`median([3, 1]) == 2.0`, or `median([]) raises ValueError`. A bug replaces texts of it; its task is the project with the
bug in it.
"""

import ast
import functools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from agentenv.errors import TaskError

from .cases import Case, parse_python
from .tasks import RepairTask

__all__ = ["Bug", "Project", "bundled_projects", "bundled_tasks", "read_case"]

_FOLDER = Path(__file__).parent / "projects"


class Bug(pydantic.BaseModel):
    """A bug that can be put into a project.

    Attributes:
        id: names it within the project.
        kind: e.g. `boundary` or `wrong variable`.
        difficulty: 1 to 5.
        report: what a user of the code notices.
        changes: by file, pairs of a text that occurs once in the correct file, and what the bug makes of it.
        visible: more visible cases.
        hidden: more hidden cases.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: str
    difficulty: int
    report: str
    changes: dict[str, tuple[tuple[str, str], ...]]
    visible: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


class Project(pydantic.BaseModel):
    """A small correct project, cases for it, and bugs.

    Attributes:
        id: names it.
        about: what it does.
        setup: imports for the cases.
        files: correct code by path.
        visible: cases that the agent sees.
        hidden: cases that decide.
        bugs: what can be wrong with it.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    id: str
    about: str
    setup: str
    files: dict[str, str]
    visible: tuple[str, ...]
    hidden: tuple[str, ...]
    bugs: tuple[Bug, ...]

    def task(self, bug: Bug) -> RepairTask:
        """Returns the task of repairing one bug.

        Raises:
            TaskError: a text that the bug replaces does not occur exactly once.
        """
        broken = {
            path: _replaced(self.files[path], pairs, f"{self.id}/{bug.id}") for path, pairs in bug.changes.items()
        }
        return RepairTask(
            id=f"{self.id}/{bug.id}",
            instruction=f"{self.about.strip()}\n\nReport: {bug.report.strip()}",
            files={**self.files, **broken},
            setup=self.setup,
            visible=tuple(map(read_case, (*self.visible, *bug.visible))),
            hidden=tuple(map(read_case, (*bug.hidden, *self.hidden))),
            solution={path: self.files[path] for path in broken},
            kind=bug.kind,
            difficulty=bug.difficulty,
        )


def _replaced(content: str, pairs: Sequence[tuple[str, str]], where: str) -> str:
    for old, new in pairs:
        if content.count(old) != 1:
            msg = f"{where}: the bug replaces a text that occurs {content.count(old)} times, not once: {old!r}"
            raise TaskError(msg)
        content = content.replace(old, new)
    return content


def read_case(text: str) -> Case:
    """Reads a case that is written as an assertion: `call == literal`, or `call raises ErrorName`.

    Raises:
        ValueError: it is neither.
    """
    call, raises, error = text.rpartition(" raises ")
    if raises and error.replace(".", "").isidentifier():
        return Case(call=call, raises=error)
    body = parse_python(text, "a case").body
    last = body[-1] if body else None
    if not (
        isinstance(last, ast.Expr) and isinstance(last.value, ast.Compare) and isinstance(last.value.ops[-1], ast.Eq)
    ):
        msg = f"a case must be written 'call == literal' or 'call raises Error', got {text!r}"
        raise ValueError(msg)
    compared = last.value
    tested: ast.expr = compared.left
    if len(compared.ops) > 1:  # the call is itself a comparison
        tested = ast.Compare(compared.left, compared.ops[:-1], compared.comparators[:-1])
    before = [ast.unparse(statement) for statement in body[:-1]]
    return Case(call="\n".join([*before, ast.unparse(tested)]), expected=ast.unparse(compared.comparators[-1]))


def read_project(data: Mapping[str, Any], name: str) -> Project:
    """Returns the project of a parsed TOML file."""
    return Project.model_validate({"id": name, **data})


@functools.cache
def bundled_projects() -> tuple[Project, ...]:
    """Returns the bundled projects."""
    return tuple(
        read_project(tomllib.loads(path.read_text(encoding="utf-8")), path.stem)
        for path in sorted(_FOLDER.glob("*.toml"))
    )


@functools.cache
def bundled_tasks() -> tuple[RepairTask, ...]:
    """Returns the bundled tasks, by project, the easier ones of a project first."""
    return tuple(
        project.task(bug)
        for project in bundled_projects()
        for bug in sorted(project.bugs, key=lambda bug: bug.difficulty)
    )
