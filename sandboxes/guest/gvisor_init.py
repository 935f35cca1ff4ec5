"""PID 1 of a container whose kernel is gVisor's own (its "sentry"): what that kernel counts itself is limited here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .docker_init import FOLDERS, DockerPolicy, serve_container
from .memory import used_in
from .policy import set_limit
from .serve import Guest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .serve import Reply

__all__ = ["HOST_MEMORY", "GvisorGuest", "GvisorPolicy", "host_threads", "main"]

HOST_MEMORY = 640 << 20
"""What gVisor itself may take beyond what is counted here, for the machine to allow."""

_KERNEL_HEAP = 160 << 20  # what pipes, sockets and names of files may take of the kernel's own memory
_KERNEL_GROWTH = 32 << 20  # what a command may add where it is in use already, up to ...
_KERNEL_MOST = 288 << 20
_GARBAGE = 2 << 20
_EXTRA_DEVICES = ("/dev/fuse",)


def host_threads(processes: int) -> int:
    """Returns how many threads of the machine it takes to run so many; gVisor ends when it gets no more."""
    return processes * 8 + 256


class GvisorPolicy(DockerPolicy):
    """Limits processes by user, of whom there is one per kernel, and memory by what the kernel counts.

    Args:
        settings: as for `DockerPolicy`.
    """

    hides_descriptors = False

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._group = self._rules = None
        for path in _EXTRA_DEVICES:
            if os.path.exists(path):
                os.unlink(path)
        self._own_memory = _held_outside_folders()
        self._own_files = _kilobytes("/proc/meminfo", "Shmem:")
        self._own_heap = _kernel_heap()
        self._kernel_limit = _KERNEL_HEAP
        self.over_memory = self._is_over_memory

    def prepare(self) -> None:
        """Runs in the child before the program."""
        set_limit("RLIMIT_NPROC", self.limits["processes"])  # this user has no processes elsewhere in this kernel
        super().prepare()

    def limit_counted_by_user(self) -> None:
        """Limits nothing: this kernel has no other users."""

    def after_command(self) -> None:
        """Empties `/dev/shm`, and finds what the kernel still holds for what is left."""
        super().after_command()
        held = _kernel_heap()
        if held > _KERNEL_HEAP // 2:
            held = _collected_heap()
        self._kernel_limit = min(_KERNEL_MOST, max(_KERNEL_HEAP, held + _KERNEL_GROWTH))

    def is_stale(self) -> bool:
        """Whether something is held that nobody can reach: this kernel never looks for sockets that hold each other."""
        held = _kernel_heap() - self._own_heap
        if held > _KERNEL_GROWTH:
            held = _collected_heap() - self._own_heap
        return super().is_stale() or held > _KERNEL_GROWTH or _kilobytes("/proc/meminfo", "Shmem:") > self._own_files

    def _is_over_memory(self) -> bool:
        """Whether all processes together, or the kernel for them, hold more than they may."""
        used = _held_outside_folders() - self._own_memory
        return used > self.limits["memory"] or _kernel_heap() > self._kernel_limit


def _held_outside_folders() -> int:
    """Returns the bytes of processes and of files in memory, but for those that have a limit of their own."""
    return _kilobytes("/proc/meminfo", "AnonPages:") - sum(map(used_in, FOLDERS))  # in this kernel, files are in it


def _kernel_heap() -> int:
    """Returns the bytes of the kernel's heap: of what is held, and of what its collector has not freed yet."""
    return _kilobytes("/proc/sentry-meminfo", "Alloc:")


def _collected_heap() -> int:
    """Returns the bytes of the kernel's heap that are held.

    The collector begins at twice what was held when it last ended, so after a peak that is over long ago most of the
    heap may be garbage, for minutes. Making more of it, in pipes that are closed at once, makes the collector run: some
    25 ms for each 100 MiB. It frees piece by piece.
    """
    least, freeing = _kernel_heap(), False
    for _ in range(_KERNEL_MOST // _GARBAGE):
        _make_garbage()
        heap = _kernel_heap()
        if heap < least:
            freeing = True
        elif freeing:
            break
        least = heap
    return least


def _make_garbage() -> None:
    block = bytes(1 << 16)  # what a pipe takes
    for _ in range(_GARBAGE // len(block)):
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.write(writer, block)
        os.close(reader)
        os.close(writer)


def _kilobytes(path: str, name: str) -> int:
    """Returns an amount from a file of `/proc`, in bytes; 0 where it is not there."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


class GvisorGuest(Guest):
    """A guest of which images are taken, and which goes on in each of them."""

    def do_hold(self, body: bytes) -> Reply:
        """Stops what runs until `continue`; returns an archive of the files, and how much memory an image takes."""
        live = self.do_stop(b"")[0]["live"]
        total, free = (_kilobytes("/proc/meminfo", name) for name in ("MemTotal:", "MemFree:"))
        return {"live": live, "memory": total - free}, self.pack_roots()


def main(settings: dict[str, Any]) -> None:
    """Runs a guest as PID 1 of a container on gVisor."""
    serve_container(settings, GvisorPolicy, GvisorGuest)
