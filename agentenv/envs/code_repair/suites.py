"""Hidden test suites: pytest files that the agent never sees, and the tests in them that decide."""

import base64
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple, cast

import pydantic

__all__ = ["Content", "FileContent", "TestId", "TestSuite", "as_bytes", "check_path", "read_id"]

_ID = re.compile(r"(?P<path>[^\0:\[\]]+\.py)(?P<names>(::[^\W\d]\w*)+)(?P<parameters>\[.*\])?", re.DOTALL)


class TestId(NamedTuple):
    """A pytest node id, taken apart.

    Attributes:
        path: the file.
        names: the classes and the function, from outside to inside.
        parameters: what stands in brackets, with them.
    """

    path: str
    names: tuple[str, ...]
    parameters: str = ""

    @property
    def function(self) -> str:
        """The id without parameters: what all parameters of one function share."""
        return "::".join((self.path, *self.names))


def read_id(text: str) -> TestId:
    """Returns the parts of a node id such as `tests/test_a.py::TestB::test_c[1-2]`.

    Raises:
        ValueError: it is none.
    """
    found = _ID.fullmatch(text)
    if found is None:
        msg = (
            f"a test must be named by its pytest node id, like 'tests/test_a.py::test_b[1-2]', got {text!r:.200}; "
            "`pytest --collect-only -q` prints them"
        )
        raise ValueError(msg)
    check_path(found["path"])
    return TestId(found["path"], tuple(found["names"].split("::")[1:]), found["parameters"] or "")


def check_path(path: str) -> str:
    """Returns a path of the workspace if it is relative and plain.

    Raises:
        ValueError: it is not.
    """
    if not path or path.startswith("/") or "\0" in path or {"..", ".", ""} & set(path.split("/")):
        msg = f"paths must be relative and plain, got {path!r}"
        raise ValueError(msg)
    return path


def as_bytes(content: str | bytes) -> bytes:
    """Returns the bytes of a file."""
    return content.encode() if isinstance(content, str) else content


def _read_file_content(value: Any) -> Any:
    if isinstance(value, dict):
        coded = cast("dict[str, Any]", value).get("base64")
        if not isinstance(coded, str):
            msg = "a file must be text, or {'base64': '...'}"
            raise ValueError(msg)
        return base64.b64decode(coded, validate=True)
    return value


def _read_content(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else _read_file_content(value)


def _write_content(data: str | bytes) -> str | dict[str, str]:
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


Content = Annotated[
    bytes,
    pydantic.BeforeValidator(_read_content),
    pydantic.PlainSerializer(_write_content, when_used="json"),
]
"""A file's bytes. In JSON it is text, or `{"base64": "..."}` where it is no UTF-8."""


FileContent = Annotated[
    str | bytes,
    pydantic.BeforeValidator(_read_file_content),
    pydantic.PlainSerializer(_write_content, when_used="json"),
]
"""A file's text or bytes, likewise."""


class TestSuite(pydantic.BaseModel):
    """Tests that decide, by pytest node ids relative to the workspace.

    Attributes:
        fail_to_pass: tests that fail on the untouched code and must pass.
        pass_to_pass: tests that pass on it and must still pass.
        files: hidden test files and what they need besides, by path; laid over the submission.
        deleted: files of the workspace that are removed before the tests run.
        executable: which of `files` are executable.
        options: settings of pytest's ini file, e.g. `{"python_files": "check_*.py"}`. The submission's own are ignored.
        plugins: pytest plugins to load; only an image has any besides pytest's own.
        source: folders that the tests import from.
        python: the interpreter, for images that have several.
        timeout_s: seconds on the clock for one run of all tests.
    """

    __test__ = False  # not one of pytest's
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    fail_to_pass: tuple[str, ...] = pydantic.Field(min_length=1)
    pass_to_pass: tuple[str, ...] = ()
    files: dict[str, Content] = pydantic.Field(default_factory=dict[str, bytes])
    deleted: tuple[str, ...] = ()
    executable: tuple[str, ...] = ()
    options: dict[str, str] = pydantic.Field(default_factory=dict[str, str])
    plugins: tuple[str, ...] = ()
    source: tuple[str, ...] = (".",)
    python: str = "python3"
    timeout_s: float = pydantic.Field(default=300.0, gt=0.0)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "TestSuite":
        for name in (*self.fail_to_pass, *self.pass_to_pass):
            read_id(name)
        for path in (*self.files, *self.deleted, *(folder for folder in self.source if folder != ".")):
            check_path(path)
        if unknown := set(self.executable) - self.files.keys():
            msg = f"executable must be among files, got {sorted(unknown)}"
            raise ValueError(msg)
        if twice := set(self.fail_to_pass) & set(self.pass_to_pass):
            msg = f"a test cannot be in fail_to_pass and in pass_to_pass: {min(twice)}"
            raise ValueError(msg)
        for key, value in self.options.items():
            if not key.isidentifier() or key in {"addopts", "pythonpath", "minversion", "required_plugins"}:
                msg = f"options cannot set {key!r} ({value!r:.80})"
                raise ValueError(msg)
        return self

    @property
    def paths(self) -> frozenset[str]:
        """Every file that holds a test, or is hidden."""
        return frozenset(self.files) | {read_id(name).path for name in (*self.fail_to_pass, *self.pass_to_pass)}

    def may_hold(self, path: str) -> bool:
        """Whether a submission may hold a file, as far as this suite goes."""
        above = {str(folder) for folder in PurePosixPath(path).parents}
        return path not in self.paths and path not in self.deleted and not above & self.paths
