"""A shell in a sandbox, as its caller sees it."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agentenv.errors import SandboxError
from agentenv.protocols import ExecResult

__all__ = ["GuestShell"]


class GuestShell:
    """A bash that stays, see `GuestSandbox.shell`.

    Args:
        run: runs a command; returns its result and whether the shell is still there.
        end: ends the shell.

    Attributes:
        alive: whether it can run another command.
    """

    def __init__(self, run: Callable[[str, float | None], tuple[ExecResult, bool]], end: Callable[[], None]) -> None:
        self._run = run
        self._end = end
        self._lock = threading.Lock()
        self.alive = True

    def run(self, command: str, *, timeout_s: float | None = None) -> ExecResult:
        """Runs a command and waits for it.

        When the deadline passes, memory runs over or the command ends the shell, all that the shell started is killed
        and the shell is over.

        Raises:
            SandboxError: the shell is over, or the sandbox is closed or was restored.
        """
        with self._lock:
            if not self.alive:
                msg = "this shell has ended: open another with sandbox.shell()"
                raise SandboxError(msg)
            result, self.alive = self._run(command, timeout_s)
            return result

    def close(self) -> None:
        """Ends the shell and all it started. May be called twice."""
        with self._lock:
            alive, self.alive = self.alive, False
            if alive:
                self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
