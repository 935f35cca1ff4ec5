"""Whether tasks can be solved: a task's own solution has to score 1, by the same path as every submission.

What was found is kept: for a process, and in a file for later ones, for the back ends of `open_sandbox`. The file is
named by a digest of the task, of the code that grades, and of how sandboxes are opened.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentenv.errors import TaskError
from agentenv.sandboxes import open_sandbox

from .grading import Grader
from .programs import record_program
from .script_grading import solve_by_script
from .scripts import TestScript
from .submissions import OpenSandbox, Submission, is_allowed, solution_of
from .suite_grading import plan_of
from .tasks import RepairTask

__all__ = ["check_task", "check_untouched"]

_MOST_DETAILS = 3


def check_task(task: RepairTask, open_: OpenSandbox = open_sandbox, *, case_timeout_s: float = 10.0) -> None:
    """Grades a task's own solution, unless that was done before; a task without one has a program's reference tried.

    Args:
        task: the task.
        open_: opens sandboxes.
        case_timeout_s: seconds on the clock for one hidden case.

    Raises:
        TaskError: the solution does not score 1; the message names task, case and reason.
        SandboxError: a sandbox broke: nothing is known of the task.
    """
    _once(_check, task, open_, case_timeout_s)


def check_untouched(task: RepairTask, open_: OpenSandbox = open_sandbox, *, case_timeout_s: float = 10.0) -> None:
    """Grades the untouched code, unless that was done before: where it scores 1, submitting it as it is is paid.

    Args:
        task: the task.
        open_: opens sandboxes.
        case_timeout_s: seconds on the clock for one hidden case.

    Raises:
        TaskError: it scores 1.
        SandboxError: a sandbox broke: nothing is known of the task.
    """
    _once(_check_untouched, task, open_, case_timeout_s)


def _once(check: Callable[[RepairTask, OpenSandbox, float], None], task: RepairTask, *how: Any) -> None:
    """Does a check, unless this process or an earlier one has done it."""
    key = _key(check.__name__, task, *how)
    if key in _checked():
        return
    place = _place(key, how[0])
    if place is None or not place.exists():
        check(task, *how)
        if place is not None:
            with contextlib.suppress(OSError):  # a home that cannot be written to
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
    _checked().add(key)


def _named(task: RepairTask) -> str:
    return f"task {task.id!r}" if task.id else f"the task {task.instruction.strip()[:60]!r}"


def _check_untouched(task: RepairTask, open_: OpenSandbox, case_timeout_s: float) -> None:
    if Grader(open_, case_timeout_s).grade(task, Submission()).solved:
        msg = f"{_named(task)}: its untouched code scores 1 already: what is hidden has to find the bug"
        raise TaskError(msg)


def _check(task: RepairTask, open_: OpenSandbox, case_timeout_s: float) -> None:
    name = _named(task)
    try:
        if task.script is not None:
            _require_solved_by_script(task, task.script, Grader(open_, case_timeout_s))
            return
        if not (task.solution or task.removed):
            if task.program is not None:
                record_program(open_, task.program.model_dump_json(), task.image)
            return
        if task.hidden or task.program is not None:
            _require_solved(task, Grader(open_, case_timeout_s))
        if task.suite is not None:
            plan_of(open_, task, task.suite)
    except TaskError as error:
        text = str(error)
        raise TaskError(text if task.id and repr(task.id) in text else f"{name}: {text}") from None


def _require_solved(task: RepairTask, grader: Grader) -> None:
    grade = grader.grade(task.model_copy(update={"suite": None}), solution_of(task), stop_early=False)
    if not grade.solved:
        shown = "; ".join(grade.details[:_MOST_DETAILS])
        more = f"; and {len(grade.details) - _MOST_DETAILS} more" if len(grade.details) > _MOST_DETAILS else ""
        msg = f"its own solution is right in {grade.passed} of {grade.total}: {shown}{more}{_left_out(task)}"
        raise TaskError(msg)


def _require_solved_by_script(task: RepairTask, script: TestScript, grader: Grader) -> None:
    if not (script.solve or task.solution or task.removed):
        return
    own = solve_by_script(grader.open, task, script) if script.solve else solution_of(task)
    grade = grader.grade(task, own)
    if not grade.solved:
        msg = f"its own solution does not pass its test.sh: {'; '.join(grade.details)}{_left_out(task)}"
        raise TaskError(msg)


def _left_out(task: RepairTask) -> str:
    names = [path for path in (*task.solution, *task.removed) if not is_allowed(path, task)]
    return f". No submission may hold {names[0]!r}, so it was left out; see 'editable'" if names else ""


@functools.cache
def _checked() -> set[str]:
    return set()


def _key(check: str, task: RepairTask, open_: OpenSandbox, case_timeout_s: float) -> str:
    content = [check, task.model_dump_json(), _graders(), _name_of(open_) or f"{id(open_)}", case_timeout_s]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@functools.cache
def _graders() -> str:
    python = os.path.realpath("/usr/bin/python3")  # what a sandbox without an image runs
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join((*sources, python.encode()))).hexdigest()


def _name_of(open_: OpenSandbox) -> str:
    """Names how sandboxes are opened; empty where it is nothing that a later process has, too."""
    function: Any = open_.func if isinstance(open_, functools.partial) else open_
    words: Any = (open_.args, sorted(open_.keywords.items())) if isinstance(open_, functools.partial) else ()
    return f"open_sandbox {words!r}" if function is open_sandbox else ""


def _place(key: str, open_: OpenSandbox) -> Path | None:
    if not _name_of(open_):
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    return Path(home) / "agentenv" / "solved" / key
