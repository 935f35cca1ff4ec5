"""Running one command to its end: output collected up to a limit, killed at the deadline, and nothing left behind."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from .launch import check_prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .launch import Command, Launcher

__all__ = ["Collector", "Outcome", "ReapedChildren", "run"]

_CHUNK = 1 << 16
_WATCH_S = 0.02


class Outcome(NamedTuple):
    """How it ended; `killed` counts the processes that outlived it."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration_s: float
    timed_out: bool
    truncated: bool
    oom: bool
    killed: int


class ReapedChildren:
    """Collects ended children, and wakes a poll when one ends.

    Args:
        lifeline: descriptor of the connection to the parent; when it hangs up, what runs has to end.
    """

    def __init__(self, lifeline: int) -> None:
        self.lifeline = lifeline
        self.wake, self._poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._codes: dict[int, int] = {}
        signal.set_wakeup_fd(self._poke, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake_only)

    def code(self, pid: int) -> int | None:
        """Returns the exit code of a child, `None` while it runs; forgets it."""
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            pass
        self.collect()
        return self._codes.pop(pid, None)

    def collect(self) -> int:
        """Reaps what has ended without waiting; returns how many of them were killed."""
        killed = 0
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return killed
            if pid == 0:
                return killed
            self._codes[pid] = exit_code(status)
            killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    def forget(self) -> None:
        """Drops the codes of children nobody asked for."""
        self._codes.clear()


def _wake_only(signum: int, frame: object) -> None:
    """Does nothing: the signal only has to wake `poll`."""


def exit_code(status: int) -> int:
    """Returns a wait status as a shell shows it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Collector:
    """Reads pipes until told to stop; keeps the first `limit` bytes of each and drops the rest."""

    def __init__(self, fds: Sequence[int], limit: int) -> None:
        self._parts: dict[int, bytearray] = {fd: bytearray() for fd in fds}
        self._limit = limit
        self.truncated = False
        for fd in fds:
            os.set_blocking(fd, False)

    def read(self, fd: int) -> bool:
        """Reads what is there; returns whether more may come."""
        try:
            part = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        room = self._limit - len(self._parts[fd])
        self._parts[fd] += part[: max(0, room)]
        self.truncated = self.truncated or len(part) > room
        return bool(part)

    def drain(self, fd: int) -> None:
        """Reads all that is in a pipe that nobody writes to any more."""
        while True:
            try:
                part = os.read(fd, _CHUNK)
            except BlockingIOError:
                return
            if not part:
                return
            room = self._limit - len(self._parts[fd])
            self._parts[fd] += part[: max(0, room)]
            self.truncated = self.truncated or len(part) > room

    def take(self, fd: int) -> bytes:
        """Returns what was kept."""
        return bytes(self._parts[fd])


def run(
    command: Command,
    children: ReapedChildren,
    launcher: Launcher,
    kill_all: Callable[[], int],
    over_memory: Callable[[], bool] | None,
) -> Outcome:
    """Runs a command and kills all it started.

    Args:
        command: what to run.
        children: reaps.
        launcher: starts it.
        kill_all: kills and reaps every process of the sandbox; returns how many were still running.
        over_memory: asked every 20 ms whether all processes together hold too much; `None` where that is not known.

    Raises:
        PrepareFault: it could not be isolated, and was not run.
    """
    began = time.monotonic()
    started = launcher.start(command)
    pid, out, err = started.pid, started.out, started.err
    collector = Collector((out, err), command.output)
    deadline = began + command.timeout_s
    code, stopped = wait(pid, children, collector, (out, err), deadline, over_memory)
    killed = kill_all()
    if code is None:
        code = children.code(pid)
        killed = max(0, killed - 1)
    children.forget()
    for fd in (out, err):
        collector.drain(fd)
    started.close()
    check_prepared(started.faults)
    return Outcome(
        128 + signal.SIGKILL if code is None else code,
        collector.take(out),
        collector.take(err),
        time.monotonic() - began,
        stopped == "time",
        collector.truncated,
        stopped == "memory",
        killed,
    )


class _Watch:
    """Asks now and then whether too much memory is held."""

    def __init__(self, over_memory: Callable[[], bool] | None) -> None:
        self._over_memory = over_memory
        self._next = time.monotonic() + _WATCH_S

    def exceeded(self) -> bool:
        if self._over_memory is None or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _WATCH_S
        return self._over_memory()

    def pause(self, left: float) -> float:
        return left if self._over_memory is None else min(left, _WATCH_S)


def wait(
    pid: int,
    children: ReapedChildren,
    collector: Collector,
    fds: Sequence[int],
    deadline: float,
    over_memory: Callable[[], bool] | None,
) -> tuple[int | None, str]:
    """Collects output until the child ends, the deadline passes, or memory runs over; says which."""
    poller = select.poll()
    for fd in (*fds, children.wake):
        poller.register(fd, select.POLLIN)
    poller.register(children.lifeline, 0)  # hanging up is always reported
    watch = _Watch(over_memory)
    while True:
        code = children.code(pid)
        if code is not None:
            return code, ""
        left = deadline - time.monotonic()
        if left <= 0:
            return None, "time"
        if watch.exceeded():
            return None, "memory"
        for fd, _ in poller.poll(watch.pause(left) * 1000):
            if fd == children.lifeline:
                return None, "parent"
            if fd != children.wake and not collector.read(fd):
                poller.unregister(fd)
