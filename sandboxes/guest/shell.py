"""A bash that stays between commands.

Bash reads from a pipe. A command arrives as quoted text for `eval`, with standard input from `/dev/null`; after it bash
writes its exit code to a pipe of its own, by which the end is known. A command that writes to that pipe only fools
itself.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import time
from typing import TYPE_CHECKING

from .launch import Command, Launcher, PrepareFault, check_prepared
from .run import Collector, Outcome, ReapedChildren

if TYPE_CHECKING:
    from .policy import Plain

__all__ = ["Shell"]

_STATUS_FD = 3
_START_S = 10.0
_WATCH_MS = 20
_ARGV = ("bash", "--noprofile", "--norc")


class Shell:
    """One bash and the pipes to it.

    Args:
        command: its folder, environment and output limit.
        children: reaps.
        launcher: starts it.
        policy: what holds around it.

    Raises:
        PrepareFault: it could not be isolated, or there is no bash.
    """

    def __init__(self, command: Command, children: ReapedChildren, launcher: Launcher, policy: Plain) -> None:
        self._command = command._replace(argv=_ARGV)
        self._children = children
        self._policy = policy
        stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        self._out, out = os.pipe2(os.O_CLOEXEC)
        self._err, err = os.pipe2(os.O_CLOEXEC)
        self._status, status = os.pipe2(os.O_CLOEXEC)
        self._pid, self._faults = launcher.start_with(self._command, (stdin, out, err, status))
        self.alive = True
        for fd in (stdin, out, err, status):
            os.close(fd)
        if self.run(b":", _START_S).exit_code:
            check_prepared(self._faults)
            msg = "bash cannot be started here"
            raise PrepareFault(msg)
        check_prepared(self._faults)

    def run(self, text: bytes, timeout_s: float) -> Outcome:
        """Runs one command; at the deadline the shell and all it started are killed."""
        started = time.monotonic()
        collector = Collector((self._out, self._err), self._command.output)
        line = f"eval {shlex.quote(text.decode())} </dev/null 3>&-\necho $? >&{_STATUS_FD}\n"
        code, stopped = self._talk(line.encode(), collector, started + timeout_s)
        if code is None:
            self.alive = False
            self._policy.kill_all(self._children)
            ended = self._children.code(self._pid)
            code = 128 + signal.SIGKILL if ended is None else ended
        for fd in (self._out, self._err):
            collector.drain(fd)
        return Outcome(
            code,
            collector.take(self._out),
            collector.take(self._err),
            time.monotonic() - started,
            stopped == "time",
            collector.truncated,
            stopped == "memory",
            0,
        )

    def _talk(self, line: bytes, collector: Collector, deadline: float) -> tuple[int | None, str]:
        """Feeds the line and collects output until bash reports a code; `None` when it ended or ran over."""
        os.set_blocking(self._stdin, False)
        poller = select.poll()
        for fd in (self._out, self._err, self._status):
            poller.register(fd, select.POLLIN)
        poller.register(self._stdin, select.POLLOUT)
        poller.register(self._children.lifeline, 0)
        while True:
            stopped = self._must_stop(deadline)
            if stopped:
                return None, stopped
            for fd, _ in poller.poll(_WATCH_MS):
                if fd == self._children.lifeline:
                    return None, "parent"
                if fd == self._status:
                    return _code(os.read(fd, 64)), ""
                if fd == self._stdin:
                    line = self._feed(line)
                    if not line:
                        poller.unregister(fd)
                elif not collector.read(fd):
                    poller.unregister(fd)

    def _must_stop(self, deadline: float) -> str:
        if time.monotonic() >= deadline:
            return "time"
        over = self._policy.over_memory
        return "memory" if over is not None and over() else ""

    def _feed(self, line: bytes) -> bytes:
        try:
            return line[os.write(self._stdin, line) :]
        except BlockingIOError:
            return line
        except BrokenPipeError:
            return b""

    def close(self) -> None:
        """Closes the pipes; whoever calls it kills the processes."""
        for fd in (self._stdin, self._out, self._err, self._status):
            os.close(fd)


def _code(text: bytes) -> int | None:
    """Reads what bash reported; `None` when it is gone."""
    try:
        return int(text.split()[-1]) & 255
    except (ValueError, IndexError):
        return None
