"""The memory that a sandbox holds: of its processes, and of a control group, whoever it belongs to.

Files in memory that no process has open any more, messages on their way between sockets, segments that nobody is
attached to: all that is charged to the group of whoever made it, and found nowhere else. So is much that nobody holds:
names that were looked up and do not exist, pages that were given back and not taken yet, the rest of a huge page. The
kernel frees that when it has to, and not before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["GroupMemory", "given_back", "in_connections", "processes_memory", "used_in"]

_KERNEL = 32 << 20
_KERNEL_PER_FILE = 2 << 10
_PAGE = os.sysconf("SC_PAGE_SIZE")


class GroupMemory:
    """Watches a group beside the kernel, which would kill whom it likes: the guest, too.

    Args:
        usage: the open file that has the bytes of everything.
        stat: the open file that has them by kind.
        reclaim: the open file by which the kernel is told to free what nobody holds, where it may be written.
        folders: where files in memory are that have a limit of their own.
        limit: bytes for all but those files.
        files: how many there may be: each takes some of the kernel's own memory.
        given_back: returns the bytes that processes gave back and that still count; asked where there is no `reclaim`.
        elsewhere: returns the bytes that the group does not count, where these may be beyond a limit.
    """

    def __init__(
        self,
        usage: int,
        stat: int,
        reclaim: int | None,
        folders: Sequence[str],
        limit: int,
        files: int,
        given_back: Callable[[], int] = lambda: 0,
        elsewhere: Callable[[int], int] | None = None,
    ) -> None:
        self._usage = usage
        self._stat = stat
        self._reclaim = reclaim
        self._folders = folders
        self._limit = limit
        self._kernel_limit = _KERNEL + files * _KERNEL_PER_FILE
        self._given_back = given_back
        self._elsewhere = elsewhere
        self._before = (0, 0)

    def begin(self) -> None:
        """Takes what there is, while nothing runs, as not to count: files of earlier states, for instance."""
        _, loose, kernel = self._held()
        self._before = loose, kernel

    def is_over(self) -> bool:
        """Whether too much is held."""
        if self._elsewhere is not None and self._elsewhere(self._limit) > self._limit:
            return True
        if _number(self._usage) <= self._limit or self._counted() <= self._limit:
            return False
        if self._reclaim is None:
            return self._counted() - self._given_back() > self._limit
        try:
            os.write(self._reclaim, b"%d" % _number(self._usage))  # all of it; version 1 reads no number
        except OSError:
            pass  # that much could not be freed
        return self._counted() > self._limit

    def _counted(self) -> int:
        anonymous, loose, kernel = self._held()
        loose, kernel = loose - self._before[0], kernel - self._before[1]
        return anonymous + max(0, loose) + max(0, kernel - self._kernel_limit)

    def _held(self) -> tuple[int, int, int]:
        """Returns the bytes of processes alone, those of files in memory that are in no folder, and the kernel's."""
        kinds = _fields(os.pread(self._stat, 1 << 16, 0).decode())
        anonymous = kinds.get("rss", kinds.get("anon", 0))
        files = kinds.get("cache", kinds.get("file", 0))
        kernel = _number(self._usage) - files - anonymous
        if self._reclaim is None:
            kernel -= _reclaimable(kinds)
        return anonymous, kinds.get("shmem", 0) - sum(map(used_in, self._folders)), kernel


def _reclaimable(kinds: Mapping[str, int]) -> int:
    """Returns how much of the kernel's memory it would free before it killed anybody, in bytes.

    Version 1 of control groups does not tell: then it is that of the whole machine, whose growth is no less.
    """
    if "slab_reclaimable" in kinds:
        return kinds["slab_reclaimable"]
    with open("/proc/meminfo") as file:
        return _fields(file.read())["SReclaimable:"] << 10


def in_connections(limit: int) -> int:
    """Returns the bytes on their way in TCP connections of this network namespace, where that may be beyond a limit.

    Version 1 of control groups counts them apart, and only where they have a limit. To list them the kernel walks
    a table of all of the machine; what the whole machine has is told at once.
    """
    with open("/proc/self/net/sockstat") as file:
        pages = next((int(line.split()[-1]) for line in file if line.startswith("TCP:")), 0)
    return sum(map(_queued, ("tcp", "tcp6"))) if pages * _PAGE > limit else 0


def _queued(kind: str) -> int:
    try:
        with open(f"/proc/self/net/{kind}") as file:
            queues = [line.split(None, 5)[4].split(":") for line in file][1:]
    except FileNotFoundError:  # a kernel without this protocol
        return 0
    return sum(int(sent, 16) + int(received, 16) for sent, received in queues)


def processes_memory() -> int:
    """Returns the bytes of all processes together but this one, without what is backed by files of the host.

    Shared pages count once, where it matters.
    """
    return sum(_of_process(pid, "Pss_Anon:", "Pss_Shmem:") for pid in _others()) - given_back()


def given_back() -> int:
    """Returns the bytes that all processes but this one gave back (`MADV_FREE`) and that the kernel has not taken."""
    return sum(_of_process(pid, "LazyFree:") for pid in _others())


def _others() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def _of_process(pid: str, *names: str) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            fields = _fields(file.read())
    except OSError:
        return 0
    return sum(fields.get(name, 0) for name in names) << 10


def _fields(text: str) -> dict[str, int]:
    """Reads lines of a name, a number and maybe a unit."""
    words = [line.split() for line in text.splitlines()]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def _number(fd: int) -> int:
    return int(os.pread(fd, 64, 0))


def used_in(folder: str) -> int:
    """Returns the bytes of the files of a file system in memory."""
    info = os.statvfs(folder)
    return (info.f_blocks - info.f_bfree) * info.f_frsize
