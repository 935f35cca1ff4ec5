"""Scripted play: what a careful programmer calls, and what a hasty one does.

Made for imitation and for checks: a policy that copies a mixture of the two knows the tools, is right some of the time,
and has something left to learn. Every call is a step of its own. The repair is the task's own solution, cut into edits.
"""

import difflib
import shlex
from functools import lru_cache

import numpy as np

from agentenv.types import ToolCall

from .mutation import Mutation, find_mutations
from .suites import as_bytes
from .tasks import RepairTask
from .texts import NotText, Text, find_all
from .visible_tests import is_test_file

__all__ = ["careful_calls", "noisy_calls"]


def careful_calls(task: RepairTask, *, tests: bool = True) -> list[ToolCall]:
    """Returns the calls that read each file that is wrong, make of it what the solution does, test, and submit.

    Args:
        task: with a solution.
        tests: whether to run the visible tests, where there are some, before submitting.

    Raises:
        ValueError: the task names no solution, or one with a file that is no text.
    """
    calls = [call for path, repaired in _solution(task).items() for call in _mend(task, path, repaired)]
    calls += [ToolCall("run", {"command": f"rm {shlex.quote(path)}"}) for path in task.removed]
    return [*calls, *(_tests(task) if tests else ()), ToolCall("submit", {})]


def noisy_calls(
    task: RepairTask,
    rng: np.random.Generator,
    *,
    wrong: float = 0.35,
    unread: float = 0.1,
    early: float = 0.1,
    untested: float = 0.5,
) -> list[ToolCall]:
    """Returns the calls of a programmer who edits without having read, mends it the wrong way, or gives up.

    Args:
        task: with a solution.
        rng: draws the slips.
        wrong: probability, per file, of writing the solution with a mutation near what it changes: see
            `find_mutations`. A mutation may do no harm.
        unread: probability, per file, of not reading it first.
        early: probability of submitting when half of the files that are wrong (of one file, none) were mended.
        untested: probability of not running the visible tests.

    Raises:
        ValueError: the task names no solution, or one with a file that is no text.
    """
    solution, calls = _solution(task), list[ToolCall]()
    removed = task.removed
    if rng.random() < early:
        solution, removed = dict(list(solution.items())[: len(solution) // 2]), ()
    for path, repaired in solution.items():
        slipped = _mutated(_content(task, path), repaired, rng) if rng.random() < wrong else repaired
        mending = _mend(task, path, slipped)
        calls += mending[1:] if mending and mending[0].name == "read_file" and rng.random() < unread else mending
    calls += [ToolCall("run", {"command": f"rm {shlex.quote(path)}"}) for path in removed]
    return [*calls, *(() if rng.random() < untested else _tests(task)), ToolCall("submit", {})]


def _solution(task: RepairTask) -> dict[str, str]:
    """Returns what the solution makes of each file, by path."""
    if not task.solution and not task.removed:
        msg = f"task {task.id!r} names no solution, so there is nothing to demonstrate"
        raise ValueError(msg)
    found: dict[str, str] = {}
    for path, content in task.solution.items():
        try:
            found[path] = as_bytes(content).decode()
        except UnicodeDecodeError:
            msg = f"the solution of task {task.id!r} has {path!r}, which is not UTF-8: no tool can write it"
            raise ValueError(msg) from None
    return found


def _content(task: RepairTask, path: str) -> str | None:
    """Returns a file as an agent can edit it; `None` where there is none, or none that `write_file` could have made."""
    try:
        text = Text.read(task.read(path))
    except (KeyError, NotText):
        return None
    return text.content if text.encoding == "utf-8" and not text.mark else None


def _tests(task: RepairTask) -> list[ToolCall]:
    """Returns the call that runs the visible tests, where there are some."""
    shown = task.test_command or any(map(is_test_file, task.paths()))
    return [ToolCall("run_tests", {})] if shown else []


def _mutated(found: str | None, repaired: str, rng: np.random.Generator) -> str:
    """Returns the repaired file with a mutation in a line that the repair changes, or in any where those have none."""
    try:
        mutations = _mutations(repaired)
    except (SyntaxError, ValueError):
        return repaired
    kept = (found or "").splitlines()
    lines = [repaired.encode()[: mutation.start].count(b"\n") for mutation in mutations]
    changed = {n for n, line in enumerate(repaired.splitlines()) if line not in kept}
    wrong = [(mutation.apply(repaired), line) for mutation, line in zip(mutations, lines, strict=True)]
    wrong = [(text, line) for text, line in wrong if text != found]
    near = [text for text, line in wrong if line in changed] or [text for text, _ in wrong]
    return near[int(rng.integers(len(near)))] if near else repaired


@lru_cache(maxsize=256)
def _mutations(source: str) -> tuple[Mutation, ...]:
    """Finds the mutations of a source once: tasks share files, and are played often."""
    return tuple(find_mutations(source))


def _mend(task: RepairTask, path: str, wanted: str) -> list[ToolCall]:
    """Returns the calls that make a file what is wanted: edits of a file that there is, otherwise the whole file."""
    found = _content(task, path)
    if found is None:
        return [ToolCall("write_file", {"path": path, "content": wanted})]
    reading = ToolCall("read_file", {"path": path})
    edits = _edits(found, wanted)
    if edits is None:
        return [reading, ToolCall("write_file", {"path": path, "content": wanted})]
    return [reading, *(ToolCall("edit_file", {"path": path, "old": old, "new": new}) for old, new in edits)]


def _edits(found: str, wanted: str) -> list[tuple[str, str]] | None:
    """Returns pairs of a text that occurs once and what takes its place; `None` where they do not lead there."""
    edits, text = list[tuple[str, str]](), Text(found)
    while text.content != wanted:
        edit = _first_edit(text.content, wanted)
        places = find_all(text.content, edit[0]) if edit[0] else []
        if len(places) != 1 or len(edits) > _MOST_EDITS:
            return None
        text = text.replace(places[0], edit[1])
        edits.append(edit)
    return edits


_MOST_EDITS = 40
"""Of one file; a file with more is written anew."""


def _first_edit(found: str, wanted: str) -> tuple[str, str]:
    """Returns the first lines that differ, with as many of those before and after as make them the only ones."""
    a, b = found.splitlines(keepends=True), wanted.splitlines(keepends=True)
    blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    _, start, end, first, last = next(block for block in blocks if block[0] != "equal")
    spare = 0
    while True:
        before, after = min(start, first, spare), min(len(a) - end, len(b) - last, spare)
        old, new = "".join(a[start - before : end + after]), "".join(b[first - before : last + after])
        if old.endswith("\n") and new.endswith("\n") and len(old) > 1:
            old, new = old[:-1], new[:-1]
        if (old and len(find_all(found, old)) == 1) or spare > len(a):
            return old, new
        spare += 1
