"""What a repair task is."""

import ast
import functools
import re
from pathlib import PurePosixPath

import pydantic

from agentenv.tasks import Task

from .cases import Case, parse_python
from .interpreter import PYTEST_COMMAND, TEST_COMMAND
from .repositories import GitTree, list_files, read_file
from .suites import TestSuite, check_path

__all__ = ["PROTECTED", "RepairTask", "TestProgram", "has_visible_tests"]

PROTECTED = (
    "tests/*",
    "*/tests/*",
    "test_*.py",
    "*/test_*.py",
    "*_test.py",
    "conftest.py",
    "*/conftest.py",
    "sitecustomize.py",
    "*/sitecustomize.py",
    "usercustomize.py",
    "*/usercustomize.py",
    "*.pth",
    "setup.py",
    "setup.cfg",
    "tox.ini",
    "pytest.ini",
    "pyproject.toml",
)
"""Files that are never part of a submission, whatever `editable` says: they steer how code is tested."""

VISIBLE_TESTS = "tests/test_visible.py"
_PYTEST = re.compile(r"^(async )?def test|^\s*(import|from) pytest\b", re.MULTILINE)


class TestProgram(pydantic.BaseModel):
    """A hidden test program for one function. It runs apart from the submission, with a stand-in for the function.

    Attributes:
        program: Python source that calls the function and asserts.
        function: the name under which it calls it.
        reference: Python source that defines the function correctly, and whatever else the program uses.
    """

    __test__ = False  # not one of pytest's
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    program: str = pydantic.Field(min_length=1)
    function: str = pydantic.Field(pattern=r"^[A-Za-z_]\w*$")
    reference: str = pydantic.Field(min_length=1)


class RepairTask(Task):
    """Broken code, what is wrong with it, and hidden cases that tell when it is repaired.

    Attributes:
        instruction: what the agent reads.
        files: the workspace at the start, by path; what lies over `base`, where there is one.
        base: a commit of a git repository on the host, whose files the workspace starts with.
        setup: Python source that runs before every call, usually imports from the workspace.
        visible: cases that the agent can see and run; they become `tests/test_visible.py` unless `files` has it.
        hidden: cases that decide.
        program: a hidden test program that decides, besides or instead of `hidden`.
        suite: a hidden test suite that decides, besides or instead of `hidden`.
        solution: files that repair it, by path; not needed for grading, but a `suite` is checked with it.
        removed: files that the solution removes.
        editable: shell patterns of the files that a submission may hold; `*` also matches `/`.
        test_command: what `run_tests` runs in the workspace, for `sh`; `python3 -m unittest discover -s tests` by
            default, or `python3 -m pytest -q` where `uses_pytest`.
        kind: the kind of bug.
        difficulty: 1 (one wrong token) to 5; 0 where unknown.
        image: container image, for the docker back end.
    """

    instruction: str = pydantic.Field(min_length=1)
    files: dict[str, str] = pydantic.Field(default_factory=dict[str, str])
    base: GitTree | None = None
    setup: str = ""
    visible: tuple[Case, ...] = ()
    hidden: tuple[Case, ...] = ()
    program: TestProgram | None = None
    suite: TestSuite | None = None
    solution: dict[str, str] = pydantic.Field(default_factory=dict[str, str])
    removed: tuple[str, ...] = ()
    editable: tuple[str, ...] = ("*.py",)
    test_command: str = ""
    kind: str = ""
    difficulty: int = pydantic.Field(default=0, ge=0, le=5)
    image: str | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "RepairTask":
        if not self.hidden and self.program is None and self.suite is None:
            msg = "a task needs 'hidden' cases, a 'program' or a 'suite' that decides"
            raise ValueError(msg)
        if not self.files and self.base is None:
            msg = "a task needs 'files' or a 'base' to start with"
            raise ValueError(msg)
        for path in (*self.files, *self.solution, *self.removed):
            check_path(path)
        parse_python(self.setup, "setup")
        return self

    @functools.cached_property
    def uses_pytest(self) -> bool:
        """Whether its tests are pytest's: those of a suite, and visible ones that `unittest` would not find."""
        return self.suite is not None or "pytest" in self.test_command or any(map(_is_pytest, self.files.items()))

    @property
    def command(self) -> str:
        """What `run_tests` runs."""
        return self.test_command or (PYTEST_COMMAND if self.uses_pytest else TEST_COMMAND)

    def workspace(self) -> dict[str, str]:
        """Returns the files that the agent finds, those of `base` apart; the visible tests are among them."""
        files = dict(self.files)
        if self.visible:
            files.setdefault(VISIBLE_TESTS, write_visible_tests(self))
        return files

    def paths(self) -> list[str]:
        """Returns the paths of all files that the agent finds, in order."""
        return sorted({*self.workspace(), *(list_files(self.base) if self.base else ())})

    def read(self, path: str) -> bytes:
        """Returns a file of the workspace at the start.

        Raises:
            KeyError: there is none.
        """
        files = self.workspace()
        return files[path].encode() if path in files or self.base is None else read_file(self.base, path)


def has_visible_tests(task: RepairTask) -> bool:
    """Whether there are tests for the agent to run, as far as names tell."""
    names = [PurePosixPath(path) for path in task.paths() if path.endswith(".py")]
    return any(name.match("test*.py") or name.match("*_test.py") for name in names)


def _is_pytest(file: tuple[str, str]) -> bool:
    """Whether a visible file has tests that only pytest finds: functions outside of classes, or what imports pytest."""
    path, source = file
    name = PurePosixPath(path).name
    is_test = name.startswith("test") or name.endswith("_test.py")
    return path.startswith("tests/") and path.endswith(".py") and is_test and _PYTEST.search(source) is not None


def write_visible_tests(task: RepairTask) -> str:
    """Returns the visible cases as a `unittest` module."""
    lines = ["import unittest", "", *task.setup.splitlines(), "", "", "class VisibleTests(unittest.TestCase):"]
    for number, case in enumerate(task.visible, 1):
        *before, last = [ast.unparse(statement) for statement in ast.parse(case.call).body]
        body = [line for statement in before for line in statement.splitlines()]
        if case.raises:
            body += [f"with self.assertRaises({case.raises}):", f"    {last}"]
        elif case.tolerance:
            body += [f"self.assertAlmostEqual({last}, {case.expected}, delta={case.tolerance})"]
        else:
            body += [f"self.assertEqual({last}, {case.expected})"]
        lines += [f"    def test_{number}(self):", *(f"        {line}" for line in body), ""]
    return "\n".join([*lines, "", 'if __name__ == "__main__":', "    unittest.main()", ""])
