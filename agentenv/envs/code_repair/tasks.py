"""What a repair task is."""

import pydantic

from agentenv.tasks import Task

from .cases import Case, parse_python
from .interpreter import PYTEST_COMMAND, TEST_COMMAND
from .repositories import GitTree, list_files, read_file
from .scripts import PROMISE, TestScript
from .suites import FileContent, TestSuite, as_bytes, check_path
from .visible_tests import VISIBLE_TESTS, is_of_pytest, write_visible_tests

__all__ = ["PROTECTED", "RepairTask", "TestProgram"]

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
        files: the workspace at the start, by path; what lies over `base`, where there is one. Text, or bytes; in JSON
            these are `{"base64": "..."}`.
        executable: which of `files` are executable.
        base: a commit of a git repository on the host, whose files the workspace starts with.
        setup: Python source that runs before every call, usually imports from the workspace.
        visible: cases that the agent can see and run; they become `tests/test_visible.py` unless `files` has it.
        hidden: cases that decide.
        program: a hidden test program that decides, besides or instead of `hidden`.
        suite: a hidden test suite that decides, besides or instead of `hidden`.
        script: a hidden `test.sh`, Harbor's, that decides where nothing else does; see `promise`.
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
    files: dict[str, FileContent] = pydantic.Field(default_factory=dict[str, str | bytes])
    executable: tuple[str, ...] = ()
    base: GitTree | None = None
    setup: str = ""
    visible: tuple[Case, ...] = ()
    hidden: tuple[Case, ...] = ()
    program: TestProgram | None = None
    suite: TestSuite | None = None
    script: TestScript | None = None
    solution: dict[str, FileContent] = pydantic.Field(default_factory=dict[str, str | bytes])
    removed: tuple[str, ...] = ()
    editable: tuple[str, ...] = ("*.py",)
    test_command: str = ""
    kind: str = ""
    difficulty: int = pydantic.Field(default=0, ge=0, le=5)
    image: str | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "RepairTask":
        others = bool(self.hidden) or self.program is not None or self.suite is not None
        if others == (self.script is not None):
            msg = "a task needs 'hidden' cases, a 'program' or a 'suite' that decides, or a 'script' instead of them"
            raise ValueError(msg)
        if not self.files and self.base is None:
            msg = "a task needs 'files' or a 'base' to start with"
            raise ValueError(msg)
        for path in (*self.files, *self.solution, *self.removed):
            check_path(path)
        if unknown := set(self.executable) - self.files.keys():
            msg = f"executable must be among files, got {sorted(unknown)}"
            raise ValueError(msg)
        parse_python(self.setup, "setup")
        return self

    @property
    def promise(self) -> str:
        """What its verdict does not promise and others do; empty where a submission cannot write it."""
        return PROMISE if self.script is not None else ""

    @property
    def uses_pytest(self) -> bool:
        """Whether its tests are pytest's: those of a suite, and visible ones that `unittest` would not find."""
        if self.suite is not None or "pytest" in self.test_command:
            return True
        return any(is_of_pytest(path, as_bytes(content)) for path, content in self.files.items())

    @property
    def command(self) -> str:
        """What `run_tests` runs."""
        return self.test_command or (PYTEST_COMMAND if self.uses_pytest else TEST_COMMAND)

    def workspace(self) -> dict[str, str | bytes]:
        """Returns the files that the agent finds, those of `base` apart; the visible tests are among them."""
        files = dict(self.files)
        if self.visible:
            files.setdefault(VISIBLE_TESTS, write_visible_tests(self.setup, self.visible))
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
        return as_bytes(files[path]) if path in files or self.base is None else read_file(self.base, path)
