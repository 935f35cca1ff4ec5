"""Harbor's `test.sh` as the only judge: a script that writes its verdict to a file."""

import pydantic

from .suites import FileContent, check_path

__all__ = ["PROMISE", "TestScript"]

PROMISE = (
    "the verdict is test.sh's own, written in a fresh sandbox without a network, where the submission lies over the "
    "task's files, and whatever the agent left running or changed elsewhere is not there; code of the submission that "
    "the script runs can read its tests and write its verdict"
)
"""What the verdict of a script promises, and what it does not."""


class TestScript(pydantic.BaseModel):
    """A hidden `test.sh`, and what lies beside it.

    Attributes:
        files: by path, relative to Harbor's `/tests`; `test.sh` is among them.
        executable: which of them are.
        env: more variables.
        timeout_s: seconds on the clock.
        solve: files of Harbor's `/solution`, with a `solve.sh`, that repair the workspace; may be empty.
    """

    __test__ = False  # not one of pytest's
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    files: dict[str, FileContent]
    executable: tuple[str, ...] = ()
    env: dict[str, str] = pydantic.Field(default_factory=dict[str, str])
    timeout_s: float = pydantic.Field(default=600.0, gt=0)
    solve: dict[str, FileContent] = pydantic.Field(default_factory=dict[str, str | bytes])

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "TestScript":
        for path in (*self.files, *self.solve):
            check_path(path)
        if "test.sh" not in self.files:
            msg = f"files must have 'test.sh', got {sorted(self.files)}"
            raise ValueError(msg)
        if self.solve and "solve.sh" not in self.solve:
            msg = f"solve must have 'solve.sh', got {sorted(self.solve)}"
            raise ValueError(msg)
        return self
