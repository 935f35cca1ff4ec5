"""A guest whose commands are held by Landlock and seccomp alone, where namespaces are not to be had.

Commands stay processes of this user. Landlock lets them see the system's programs, write their workspace and tmp, and
signal or reach by abstract sockets only each other; seccomp refuses sockets and everything deep in the kernel.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from . import linux, seccomp
from .landlock import ALL_OF, DEVICE_BITS, READ, READ_FILE, READ_ONLY_FILE, WRITE_FILE, Rules, landlock_version
from .policy import Plain, raise_open_files, set_limit
from .serve import Guest, close_on_exec
from .wire import Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ProcessPolicy", "main"]

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
        settings: `limits`, `workspace`, `tmp`, `readonly`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._filter = seccomp.program(system_v=False, sockets=False, watches=False)
        self._open_files: int = settings["open_files"]
        handled = ALL_OF[max(1, min(landlock_version(), 5))]
        self._rules = Rules(handled, alone=True)
        self._rules.allow([settings["workspace"], settings["tmp"]], handled & ~DEVICE_BITS)
        self._rules.allow((*_SYSTEM, *_SYSTEM_MORE, *settings["readonly"]), READ, READ_ONLY_FILE)
        self._rules.allow(_DEVICES, READ_FILE | WRITE_FILE)

    def prepare(self) -> None:
        """Runs in the child before the program."""
        super().prepare()
        set_limit("RLIMIT_AS", self.limits["memory"])
        set_limit("RLIMIT_NOFILE", self._open_files)
        set_limit("RLIMIT_SIGPENDING", resource.getrlimit(resource.RLIMIT_SIGPENDING)[0] // 2)
        linux.no_new_privileges()
        if os.getuid() == 0:
            linux.drop_bounding_set()
            linux.drop_capabilities()
        self._rules.restrict()
        linux.set_seccomp(self._filter)


def main() -> None:
    """Runs a guest: `python -c ... FD SETTINGS`."""
    close_on_exec()
    raise_open_files()
    fd, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    wire = Wire(fd, fd)
    try:
        guest = Guest(wire, settings, ProcessPolicy(settings))
    except Exception as error:  # noqa: BLE001  whatever it is, the parent hears why
        wire.send({"fault": "guest", "message": reason_of(error)})
        return
    wire.send({"ready": os.getpid()})
    guest.serve()
    guest.do_shell_close(b"")
