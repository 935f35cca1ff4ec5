"""PID 1 of a container: serves its parent over standard input and output, and runs commands as an ordinary user.

It keeps the few capabilities that ending and handing over take; commands get none of them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import linux, place, seccomp
from .landlock import ALL_OF, DEVICE_BITS, TRUNCATE, WRITE, WRITE_FILE, Rules, landlock_version
from .memory import GroupMemory, given_back, in_connections
from .policy import NetworkCounters, Plain, kill_namespace, limit_counted_by_user, set_limit
from .serve import Guest, close_on_exec
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .run import ReapedChildren

__all__ = ["FOLDERS", "DockerPolicy", "main", "serve_container"]

FOLDERS = ("/workspace", "/tmp", "/dev/shm")
"""Where files in memory have limits of their own."""

_AGENT = 1000
_WRITABLE = (*FOLDERS, "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GROUPS = (
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat"),
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
)
_REFERS = 2  # from this version of Landlock on, moving files between folders can be allowed
_OOM_COUNTS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/sys/fs/cgroup/memory/memory.events",
)


class DockerPolicy(Plain):
    """Takes every privilege from a command; the container around it does the rest.

    Args:
        settings: `limits`; `open_files`, how many a command may have; `agent`, the user and group that commands are:
            nobody else on the machine, because much is counted by user; `filtered`, whether to filter system calls.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.limits = settings["limits"]
        self._open_files: int = settings["open_files"]
        self.owner = _take_over(settings)
        self._filter = seccomp.program(system_v=False) if settings["filtered"] else b""
        self._rules = self._write_rules()
        self._group = _watch_of(self.limits, self._given_back)
        if self._group is not None:
            self.over_memory = self._group.is_over
        self._network = NetworkCounters()
        self._oom_file = next((path for path in _OOM_COUNTS if os.path.exists(path)), "")
        self._oom_kills = self._count_oom_kills()

    def prepare(self) -> None:
        """Runs in the child before the program."""
        super().prepare()
        set_limit("RLIMIT_NOFILE", self._open_files)
        self.limit_counted_by_user()
        try:
            linux.write_text("/proc/self/oom_score_adj", "1000")
        except OSError:
            pass  # gVisor has none
        linux.drop_bounding_set()
        assert self.owner is not None
        os.setgroups([])
        os.setresgid(*(self.owner[1],) * 3)
        os.setresuid(*(self.owner[0],) * 3)
        linux.drop_capabilities()
        linux.no_new_privileges()
        if self._rules is not None:
            self._rules.restrict()
        if self._filter:
            linux.set_seccomp(self._filter)

    def _write_rules(self) -> Rules | None:
        """Returns rules that allow writing to its own files alone: not to who is killed first for memory, in `/proc`.

        None where the kernel, or the container's own filter, has no Landlock.
        """
        version = landlock_version()
        if version < _REFERS:
            return None
        handled = ALL_OF[min(version, 5)] & WRITE
        rules = Rules(handled, alone=False)
        rules.allow(_WRITABLE, handled & ~DEVICE_BITS, handled & (WRITE_FILE | TRUNCATE))
        return rules

    def limit_counted_by_user(self) -> None:
        """Limits what the machine's kernel counts by user."""
        limit_counted_by_user()

    def before_command(self) -> None:
        """Notes what memory is held by files already."""
        if self._group is not None:
            self._group.begin()

    def _given_back(self) -> int:
        """Returns the bytes that commands gave back and that still count, asked as the user that they are."""
        assert self.owner is not None
        os.setegid(self.owner[1])
        os.seteuid(self.owner[0])
        try:
            return given_back()
        finally:
            os.seteuid(0)
            os.setegid(0)

    def is_stale(self) -> bool:
        """Whether the counters of the network tell what earlier commands did."""
        return self._network.changed()

    def kill_all(self, children: ReapedChildren) -> int:
        """Kills and reaps everything but this process, which is PID 1."""
        return kill_namespace(children)

    def after_command(self) -> None:
        """Empties `/dev/shm`."""
        folder = os.open("/dev/shm", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place.clear(folder)
        finally:
            os.close(folder)

    def ran_out_of_memory(self) -> bool:
        """Whether a process was killed for memory since the last time this was asked."""
        before, self._oom_kills = self._oom_kills, self._count_oom_kills()
        return self._oom_kills > before

    def _count_oom_kills(self) -> int:
        if not self._oom_file:
            return 0
        with open(self._oom_file) as file:
            counts = dict(line.split() for line in file if len(line.split()) == 2)
        return int(counts.get("oom_kill", 0))


def _take_over(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Gives workspace and tmp to the user that commands are; an ordinary one where there are no such high numbers."""
    agent: int = settings["agent"]
    try:
        os.chown(settings["workspace"], agent, agent)
    except OSError:
        agent = _AGENT
    for name in ("workspace", "tmp"):
        os.chown(settings[name], agent, agent)
    return agent, agent


def _watch_of(limits: Mapping[str, Any], given_back: Callable[[], int]) -> GroupMemory | None:
    for usage, stat in _GROUPS:
        if os.path.exists(usage) and os.path.exists(stat):
            counted, kinds = (os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (usage, stat))
            elsewhere = in_connections if usage == _GROUPS[0][0] else None
            return GroupMemory(counted, kinds, None, FOLDERS, limits["memory"], limits["files"], given_back, elsewhere)
    return None


def main(settings: dict[str, Any]) -> None:
    """Runs a guest as PID 1 of a container, which must have no other input than its parent's."""
    serve_container(settings, DockerPolicy, Guest)


def serve_container(settings: dict[str, Any], policy: type[DockerPolicy], guest: type[Guest]) -> None:
    """Serves over standard input and output, which become empty, until the parent is gone."""
    reader, writer = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    close_on_exec()
    try:
        linux.set_dumpable(dumpable=False)
    except OSError:
        pass  # gVisor: nobody can look into its processes anyway
    served = guest(Wire(reader, writer), settings, policy(settings))
    served.wire.send({"ready": True, "uid": os.getuid()})
    os.dup2(null, 2)  # from here on what goes wrong is answered; on gVisor, commands could open it
    served.serve()
