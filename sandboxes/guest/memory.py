"""The memory that a control group holds, whoever it belongs to.

Files in memory that no process has open any more, messages on their way between sockets, segments that nobody is
attached to: all that is charged to the group of whoever made it, and found nowhere else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GroupMemory"]

_KERNEL = 32 << 20
_KERNEL_PER_FILE = 2 << 10


class GroupMemory:
    """Watches a group beside the kernel, which would kill whom it likes: the guest, too.

    Args:
        usage: the open file that has the bytes of everything.
        stat: the open file that has them by kind.
        folders: where files in memory are that have a limit of their own.
        limit: bytes for all but those files.
        files: how many there may be: each takes some of the kernel's own memory.
    """

    def __init__(self, usage: int, stat: int, folders: Sequence[str], limit: int, files: int) -> None:
        self._usage = usage
        self._stat = stat
        self._folders = folders
        self._limit = limit
        self._kernel_limit = _KERNEL + files * _KERNEL_PER_FILE
        self._before = (0, 0)

    def begin(self) -> None:
        """Takes what there is, while nothing runs, as not to count: files of earlier states, for instance."""
        _, loose, kernel = self._held()
        self._before = loose, kernel

    def is_over(self) -> bool:
        """Whether too much is held."""
        if _number(self._usage) <= self._limit:
            return False
        anonymous, loose, kernel = self._held()
        loose, kernel = loose - self._before[0], kernel - self._before[1]
        return anonymous + max(0, loose) + max(0, kernel - self._kernel_limit) > self._limit

    def _held(self) -> tuple[int, int, int]:
        """Returns the bytes of processes alone, those of files in memory that are in no folder, and the kernel's."""
        kinds = dict(line.split()[:2] for line in os.pread(self._stat, 1 << 16, 0).decode().splitlines() if " " in line)
        anonymous = int(kinds.get("rss", kinds.get("anon", 0)))
        files = int(kinds.get("cache", kinds.get("file", 0)))
        shared = int(kinds.get("shmem", 0))
        return anonymous, shared - sum(map(_used, self._folders)), _number(self._usage) - files - anonymous


def _number(fd: int) -> int:
    return int(os.pread(fd, 64, 0))


def _used(folder: str) -> int:
    info = os.statvfs(folder)
    return (info.f_blocks - info.f_bfree) * info.f_frsize
