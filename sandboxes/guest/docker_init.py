"""PID 1 of a container: serves its parent over standard input and output, and runs commands as an ordinary user.

It keeps the few capabilities that ending and handing over take; commands get none of them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import linux, place, seccomp
from .policy import Plain, kill_namespace, set_limit
from .serve import Guest, close_on_exec
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .run import ReapedChildren

__all__ = ["DockerPolicy", "main", "serve_container"]

_AGENT = 1000
_OPEN_FILES = 1024
_OOM_COUNTS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/sys/fs/cgroup/memory/memory.events",
)


class DockerPolicy(Plain):
    """Takes every privilege from a command; the container around it does the rest.

    Args:
        settings: `limits`; `filtered`, whether to filter system calls.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.limits = settings["limits"]
        self.owner = (_AGENT, _AGENT)
        self._filter = seccomp.program(system_v=False) if settings["filtered"] else b""
        self._oom_file = next((path for path in _OOM_COUNTS if os.path.exists(path)), "")
        self._oom_kills = self._count_oom_kills()

    def prepare(self) -> None:
        """Runs in the child before the program."""
        super().prepare()
        set_limit("RLIMIT_NOFILE", _OPEN_FILES)
        try:
            linux.write_text("/proc/self/oom_score_adj", "1000")
        except OSError:
            pass  # gVisor has none
        linux.drop_bounding_set()
        os.setgroups([])
        os.setresgid(_AGENT, _AGENT, _AGENT)
        os.setresuid(_AGENT, _AGENT, _AGENT)
        linux.drop_capabilities()
        linux.no_new_privileges()
        if self._filter:
            linux.set_seccomp(self._filter)

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
    for name in ("workspace", "tmp"):
        os.chown(settings[name], _AGENT, _AGENT)
    served = guest(Wire(reader, writer), settings, policy(settings))
    served.wire.send({"ready": True, "uid": os.getuid()})
    served.serve()
