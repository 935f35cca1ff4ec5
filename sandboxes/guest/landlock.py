"""Landlock: what of the file system a process may use from here on."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ALL_OF",
    "DEVICE_BITS",
    "READ",
    "READ_FILE",
    "READ_ONLY_FILE",
    "TRUNCATE",
    "WRITE",
    "WRITE_FILE",
    "Rules",
    "landlock_version",
]

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
READ = EXECUTE | READ_FILE | READ_DIR
READ_ONLY_FILE = EXECUTE | READ_FILE
ALL_OF = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
DEVICE_BITS = (1 << 6) | (1 << 11)  # making character and block devices
TRUNCATE = 1 << 14
WRITE = WRITE_FILE | 1 << 13 | TRUNCATE  # and moving between folders; making one would cost a walk to the top each time
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_TCP = 3
_SCOPES = 3  # abstract Unix sockets, signals
_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Returns the version of Landlock in this kernel, 0 for none."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, 0, 1))


class Rules:
    """A set of rules, all of which allow something.

    Args:
        handled: what needs a rule.
        alone: whether also to keep the process from TCP, and from signals and abstract sockets of others.

    Attributes:
        fd: the open set.
    """

    def __init__(self, handled: int, *, alone: bool) -> None:
        version = landlock_version()
        fields = [handled, _TCP if alone and version >= 4 else 0, _SCOPES if alone and version >= 6 else 0]
        size = 8 if version < 4 else 16 if version < 6 else 24
        record = b"".join(field.to_bytes(8, "little") for field in fields)[:size]
        self.fd: int = _libc.syscall(_CREATE_RULESET, record, size, 0)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "Landlock makes no rules", "ruleset")

    def allow(self, paths: Iterable[str], access: int, file_access: int | None = None) -> None:
        """Allows `access` below each of these paths, as far as they exist; `file_access` where one is a file."""
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # what is not there needs no rule
            try:
                bits = access if file_access is None or os.path.isdir(path) else file_access
                record = bits.to_bytes(8, "little") + fd.to_bytes(4, "little")
                if _libc.syscall(_ADD_RULE, self.fd, 1, record, 0) < 0:
                    raise OSError(ctypes.get_errno(), "Landlock takes no rule", path)
            finally:
                os.close(fd)

    def restrict(self) -> None:
        """Puts this process and its descendants under the rules, for ever."""
        if _libc.syscall(_RESTRICT_SELF, self.fd, 0) < 0:
            raise OSError(ctypes.get_errno(), "Landlock refused", "restrict")
