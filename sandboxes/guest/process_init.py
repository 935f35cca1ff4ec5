"""A guest whose commands are held by Landlock and seccomp alone, where namespaces are not to be had.

Landlock lets them see the system's programs, write their workspace and tmp, and signal or reach by abstract sockets
only each other; seccomp refuses sockets and everything deep in the kernel. Root makes each sandbox a user of its own.
Anybody else's commands stay processes of this user, whose files they could give other modes, owners and times wherever
they are, which Landlock does not see: seccomp refuses all that, in the workspace, too.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from . import linux, seccomp
from .landlock import ALL_OF, DEVICE_BITS, READ, READ_FILE, READ_ONLY_FILE, WRITE_FILE, Rules, landlock_version
from .policy import Plain, limit_counted_by_user, raise_open_files, set_limit
from .serve import Guest, close_on_exec
from .wire import Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ProcessPolicy", "main", "serve"]

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
_SYSTEM_MORE = (
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class ProcessPolicy(Plain):
    """Confines a command to its own files.

    Args:
        settings: `limits`, `workspace`, `tmp`, `readonly`, `open_files`; `agent`, the user and group that commands are,
            `None` where they stay this one; `may_lack_landlock`, whether to do without where the kernel has none.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.owner = _take_over(settings)
        self._filter = seccomp.program(system_v=False, sockets=False, alone=self.owner is not None)
        self._open_files: int = settings["open_files"]
        lacks = settings.get("may_lack_landlock", False) and landlock_version() == 0
        self._rules = None if lacks else _rules_for(settings)

    def prepare(self) -> None:
        """Runs in the child before the program."""
        super().prepare()
        set_limit("RLIMIT_AS", self.limits["memory"])
        set_limit("RLIMIT_NOFILE", self._open_files)
        if self.owner is None:
            set_limit("RLIMIT_SIGPENDING", resource.getrlimit(resource.RLIMIT_SIGPENDING)[0] // 2)
        else:
            limit_counted_by_user()
            set_limit("RLIMIT_NPROC", self.limits["processes"])
        linux.no_new_privileges()
        if os.getuid() == 0:
            linux.drop_bounding_set()
            if self.owner is not None:
                os.setgroups([])
                os.setresgid(*(self.owner[1],) * 3)
                os.setresuid(*(self.owner[0],) * 3)
            linux.drop_capabilities()
        if self._rules is not None:
            self._rules.restrict()
        linux.set_seccomp(self._filter)


def _rules_for(settings: Mapping[str, Any]) -> Rules:
    """Returns what commands may reach: the system to read, their own files to write."""
    handled = ALL_OF[max(1, min(landlock_version(), 5))]
    rules = Rules(handled, alone=True)
    rules.allow([settings["workspace"], settings["tmp"]], handled & ~DEVICE_BITS)
    rules.allow((*_SYSTEM, *_SYSTEM_MORE, *settings["readonly"]), READ, READ_ONLY_FILE)
    rules.allow(_DEVICES, READ_FILE | WRITE_FILE)
    return rules


def _take_over(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Gives workspace and tmp to a user of their own; `None` where there is none, or it would not reach its files."""
    agent: int | None = settings["agent"]
    home = os.path.dirname(settings["workspace"])
    if agent is None or not all(map(_is_open_to_all, (os.path.dirname(home), *settings["readonly"]))):
        return None
    try:
        for folder in (settings["workspace"], settings["tmp"]):
            os.chown(folder, agent, agent)
        os.chmod(home, 0o711)  # noqa: S103  to pass, not to look
    except OSError:  # a root without such users
        return None
    return agent, agent


def _is_open_to_all(path: str) -> bool:
    """Whether every user may look into a folder, or read a file, and reach it."""
    mode = os.stat(path).st_mode if os.path.exists(path) else 0o777
    above = os.path.dirname(os.path.realpath(path))
    may_pass = all(os.stat(folder).st_mode & 0o001 for folder in _with_parents(above))
    return may_pass and bool(mode & 0o004)


def _with_parents(path: str) -> list[str]:
    return [path] if path == "/" else [path, *_with_parents(os.path.dirname(path))]


def serve(fd: int, settings: Mapping[str, Any]) -> None:
    """Runs a guest on an open connection until the parent is gone; the first message says how it begins."""
    raise_open_files()
    wire = Wire(fd, fd)
    try:
        policy = ProcessPolicy(settings)
        guest = Guest(wire, settings, policy)
    except Exception as error:  # noqa: BLE001  whatever it is, the parent hears why
        wire.send({"fault": "guest", "message": reason_of(error)})
        return
    wire.send({"ready": os.getpid(), "apart": policy.owner is not None, "landlock": landlock_version()})
    guest.serve()
    guest.do_shell_close(b"")


def main() -> None:
    """Runs a guest: `python -c ... FD SETTINGS`."""
    close_on_exec()
    serve(int(sys.argv[1]), json.loads(sys.argv[2]))
