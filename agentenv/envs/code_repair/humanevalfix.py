"""HumanEvalFix: rows of `bigcode/humanevalpack` (Python) become repair tasks.

The workspace has `solution.py` with the buggy function. The row's `test` decides: it runs as a program of its own, in a
sandbox that never holds the submission, and every call it makes is answered by the submission out of process.
The row's `example_test`, where there is one, becomes the visible test.
"""

from collections.abc import Mapping
from typing import Any

from .cases import parse_python
from .tasks import RepairTask, TestProgram
from .visible_tests import VISIBLE_TESTS

__all__ = ["is_humanevalfix", "read_humanevalfix"]

_COLUMNS = ("declaration", "buggy_solution", "canonical_solution", "test", "entry_point")


def is_humanevalfix(row: Mapping[str, Any]) -> bool:
    """Whether a row has the columns of HumanEvalFix."""
    return all(column in row for column in _COLUMNS)


def read_humanevalfix(row: Mapping[str, Any]) -> RepairTask:
    """Returns the task of one row.

    Raises:
        ValueError: a column is no Python, or not about the same function; also where the row is of another language.
    """
    for column in _COLUMNS:
        if not isinstance(row[column], str) or not row[column]:
            msg = f"column {column!r} must be text, got {row[column]!r:.80}"
            raise ValueError(msg)
    name = str(row["entry_point"])
    head, buggy, right = (str(row[c]) for c in ("declaration", "buggy_solution", "canonical_solution"))
    program, example = str(row["test"]), str(row.get("example_test") or "")
    for column, text in (("buggy_solution", head + buggy), ("canonical_solution", head + right), ("test", program)):
        parse_python(text, column)
    about = str(row.get("docstring") or row.get("instruction") or "").strip()
    files: dict[str, str | bytes] = {"solution.py": head + buggy}
    if example.strip():
        files[VISIBLE_TESTS] = _visible(name, example)
    return RepairTask(
        id=str(row.get("task_id") or ""),
        instruction=f"The function `{name}` in solution.py is wrong. Repair it.\n\nWhat it should do:\n{about}",
        files=files,
        setup=f"from solution import {name}",
        program=TestProgram(program=program, function=name, reference=head + right),
        solution={"solution.py": head + right},
        kind=str(row.get("bug_type") or ""),
    )


def _visible(name: str, example: str) -> str:
    """Returns `example_test` as a `unittest` module; its last line runs it, which becomes the test's body."""
    body = "\n".join(f"        {line}" if line.strip() else "" for line in example.strip().split("\n"))
    return (
        f"import unittest\n\nfrom solution import {name}\n\n\n"
        f"class VisibleTests(unittest.TestCase):\n    def test_examples(self):\n{body}\n"
    )
