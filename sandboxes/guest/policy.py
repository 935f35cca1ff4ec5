"""What holds around a command: `Plain` limits resources and ends process trees; subclasses isolate."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .run import ReapedChildren

__all__ = ["NetworkCounters", "Plain", "kill_namespace", "limit_counted_by_user", "raise_open_files", "set_limit"]

_PR_SET_CHILD_SUBREAPER = 36
_END_S = 10.0
_STOP_S = 0.2
_TIMERS = 1024
_PAGES = 1 << 16
_COUNTERS = ("dev", "snmp", "snmp6")  # whatever leaves a trace elsewhere counts here, too


class Plain:
    """No isolation: resource limits per process, and the end of every descendant.

    Args:
        settings: `limits` by name, see `Limits` of the parent.

    Attributes:
        owner: user and group that own the workspace, where they differ from the guest's.
        hides_descriptors: whether commands can open none of the guest's, whoever owns what is behind them.
        over_memory: asked while a command runs; `None` where nothing has to be watched.
    """

    owner: tuple[int, int] | None = None
    hides_descriptors = True
    over_memory: Callable[[], bool] | None = None

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.limits: Mapping[str, Any] = settings["limits"]
        try:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        except (AttributeError, OSError):
            pass  # not Linux: only the command's own process group can be ended

    def prepare(self) -> None:
        """Runs in the child before the program: limits its files and its core dumps."""
        set_limit("RLIMIT_CORE", 1)  # 0 would still feed a core handler behind a pipe
        set_limit("RLIMIT_FSIZE", self.limits["file_size"])

    def kill_all(self, children: ReapedChildren) -> int:
        """Kills and reaps every descendant; orphans come back to the guest, so it repeats until none is left."""
        killed = 0
        deadline = time.monotonic() + _END_S
        while time.monotonic() < deadline:
            alive = _children()
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            killed += children.collect()
            if not alive and not _children():
                return killed
            time.sleep(0.001)
        return killed

    def before_fork(self) -> None:
        """Comes before a process is made that waits for its command; nothing runs."""

    def before_command(self) -> None:
        """Notes what there is before anything runs."""

    def after_command(self) -> None:
        """Removes what a command can leave besides processes and files of the workspace."""

    def is_stale(self) -> bool:
        """Whether commands of later states could tell what earlier ones did; asked when the files are gone."""
        return False

    def ran_out_of_memory(self) -> bool:
        """Whether a process was killed for memory since the last time this was asked."""
        return False

    def stop_all(self) -> None:
        """Stops every process, so that files can be copied in one state; waits for what is inside the kernel."""
        _signal_all(signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_S
        while any(_is_running(pid) for pid in _everything()) and time.monotonic() < deadline:
            time.sleep(0.0005)

    def continue_all(self) -> None:
        """Lets them go on."""
        _signal_all(signal.SIGCONT)


def _everything() -> list[int]:
    """Returns what the guest started: all of the PID namespace where it is PID 1, otherwise its descendants."""
    if os.getpid() == 1:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    return _descendants()


def _is_running(pid: int) -> bool:
    """Whether a thread of a process is not stopped; one that waits for a child it has forked by `vfork` never is."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return any(_state(f"/proc/{pid}/task/{thread}/stat") not in "TtZX" for thread in threads)
    except (OSError, IndexError):
        return False


def _state(file: str) -> str:
    with open(file, "rb") as text:
        return chr(text.read().rpartition(b")")[2].split()[0][0])


def _signal_all(number: int) -> None:
    """Signals everything the guest started."""
    if os.getpid() == 1:
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            pass
        return
    for pid in _descendants():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_namespace(children: ReapedChildren) -> int:
    """Kills and reaps everything in the PID namespace but PID 1, which calls this; no fork can slip through.

    Returns:
        How many processes were still running.
    """
    killed = 0
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return killed + children.collect()
        killed += children.collect()
        time.sleep(0.0002)


class NetworkCounters:
    """What the kernel has counted in this network namespace since this was made."""

    def __init__(self) -> None:
        self._files: list[int] = []
        self.start_over()

    def start_over(self) -> None:
        """Begins anew, maybe in another namespace."""
        self.close()
        for name in _COUNTERS:
            try:
                self._files.append(os.open(f"/proc/self/net/{name}", os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                pass  # no such protocol in this kernel
        self._before = self._read()

    def changed(self) -> bool:
        """Whether anything was counted."""
        return self._read() != self._before

    def _read(self) -> list[bytes]:
        return [os.pread(file, _PAGES, 0) for file in self._files]

    def close(self) -> None:
        """Lets go of the namespace."""
        while self._files:
            os.close(self._files.pop())


def raise_open_files() -> None:
    """Takes all the descriptors that this process may have: commands get fewer, so that they run out of them first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_limit(name: str, value: int) -> None:
    """Sets a resource limit, soft and hard, no higher than the hard limit that stands."""
    number = getattr(resource, name, None)
    if number is None:
        return
    _, hard = resource.getrlimit(number)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(number, (value, value))


def limit_counted_by_user() -> None:
    """Limits what the machine's kernel counts by user, for one that nobody else is."""
    set_limit("RLIMIT_SIGPENDING", _TIMERS)
    set_limit("RLIMIT_MSGQUEUE", 0)
    set_limit("RLIMIT_MEMLOCK", 1 << 20)


def _children(pid: int | str = "self") -> list[int]:
    """Returns the children of a process."""
    try:
        with open(f"/proc/{pid}/task/{os.getpid() if pid == 'self' else pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _descendants() -> list[int]:
    found: list[int] = []
    todo = _children()
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += _children(pid)
    return found
