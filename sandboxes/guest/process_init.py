"""A guest whose commands are held by Landlock and seccomp alone, where namespaces are not to be had.

Commands stay processes of this user. Landlock lets them see the system's programs, write their workspace and tmp, and
signal or reach by abstract sockets only each other; seccomp refuses sockets and everything deep in the kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from . import linux, seccomp
from .policy import Plain, raise_open_files, set_limit
from .serve import Guest, close_on_exec
from .wire import Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ProcessPolicy", "landlock_version", "main"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_READ_ONLY_FILE = _EXECUTE | _READ_FILE
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_DEVICE_BITS = (1 << 6) | (1 << 11)  # making character and block devices
_TCP = 3
_HIGH = 100
_SCOPES = 3  # abstract Unix sockets, signals
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
_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Returns the version of Landlock in this kernel, 0 for none."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, 0, 1))


class ProcessPolicy(Plain):
    """Confines a command to its own files.

    Args:
        settings: `limits`, `workspace`, `tmp`, `readonly`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._filter = seccomp.program(system_v=False, sockets=False, watches=False)
        self._open_files: int = settings["open_files"]
        rules = _ruleset([settings["workspace"], settings["tmp"]], settings["readonly"])
        self._rules = fcntl.fcntl(rules, fcntl.F_DUPFD_CLOEXEC, _HIGH)  # above the numbers that a command's pipes take
        os.close(rules)

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
        if _libc.syscall(_RESTRICT_SELF, self._rules, 0) < 0:
            raise OSError(ctypes.get_errno(), "Landlock refused", "restrict")
        linux.set_seccomp(self._filter)


def _ruleset(own: Sequence[str], readonly: Sequence[str]) -> int:
    version = landlock_version()
    handled = _ALL[min(version, 5)]
    fields = [handled, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0]
    size = 8 if version < 4 else 16 if version < 6 else 24
    record = b"".join(field.to_bytes(8, "little") for field in fields)[:size]
    ruleset = _libc.syscall(_CREATE_RULESET, record, size, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock makes no rules", "ruleset")
    for path in own:
        _allow(ruleset, path, handled & ~_DEVICE_BITS)
    for path in (*_SYSTEM, *_SYSTEM_MORE, *readonly):
        _allow(ruleset, path, _READ if os.path.isdir(path) else _READ_ONLY_FILE)
    for path in _DEVICES:
        _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
    return ruleset


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        record = access.to_bytes(8, "little") + fd.to_bytes(4, "little")
        if _libc.syscall(_ADD_RULE, ruleset, 1, record, 0) < 0:
            raise OSError(ctypes.get_errno(), "Landlock takes no rule", path)
    finally:
        os.close(fd)


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
