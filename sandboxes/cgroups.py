"""Control groups: memory and processes of a whole sandbox, where this user may make them.

Version 1 hierarchies and version 2 are both tried, by making a group. A group is named after its owner, so that a later
process can remove what a killed one left.
"""

import contextlib
import hashlib
import itertools
import os
import platform
import time
from functools import cache
from pathlib import Path

from .once import once

__all__ = ["Cgroup", "find_controllers", "owner_lives", "owner_tag", "sweep_cgroups"]

_MOUNTS = Path("/proc/self/mounts")
_PREFIX = "agentenv-"
_END_S = 2.0
_STEP = 64 << 20
_USAGE = ("memory.current", "memory.usage_in_bytes")
_RECLAIM = ("memory.reclaim", "memory.force_empty")
_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
_numbers = itertools.count()


@cache
def _place() -> str:
    """Names this boot and this PID namespace: pids mean nothing elsewhere."""
    boot = _read(Path("/proc/sys/kernel/random/boot_id"))
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return hashlib.sha256(f"{boot} {namespace} {platform.node()}".encode()).hexdigest()[:8]


def owner_tag(pid: int | None = None) -> str:
    """Returns what identifies a process for ever: where it runs, its pid, and when it started, in ticks since boot."""
    pid = os.getpid() if pid is None else pid
    start = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[19:20]
    return f"{_place()}-{pid}-{start[0] if start else 'gone'}"


def owner_lives(tag: str) -> bool:
    """Whether the process with this tag may still run; always so for one of another place, which cannot be known."""
    place, _, rest = tag.partition("-")
    pid = rest.partition("-")[0]
    return place != _place() or (pid.isdigit() and owner_tag(int(pid)) == tag)


@once
def find_controllers() -> dict[str, Path]:
    """Returns the folders in which groups can be made, by controller (`memory`, `pids`); found by making one."""
    found: dict[str, Path] = {}
    for line in _MOUNTS.read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup":
            names = {"memory", "pids"} & set(options.split(","))
        elif kind == "cgroup2":
            names = {"memory", "pids"} & set(_read(Path(folder, "cgroup.subtree_control")).split())
        else:
            continue
        for name in names:
            if name not in found and _can_make(Path(folder)):
                found[name] = Path(folder)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _can_make(folder: Path) -> bool:
    trial = folder / f"{_PREFIX}{owner_tag()}-probe{next(_numbers)}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


class Cgroup:
    """The groups of one sandbox.

    Args:
        memory: bytes of all its processes, and of the files they write.
        processes: at once.
        messages: bytes on their way in TCP connections, which version 1 counts apart, and only where they are limited.
    """

    def __init__(self, *, memory: int, processes: int, messages: int | None = None) -> None:
        self._name = f"{_PREFIX}{owner_tag()}-{next(_numbers)}"
        self._folders: list[Path] = []
        self._memory: Path | None = None
        self._bytes = memory
        self._allowed = -_STEP  # beyond what is written to the group, which is seldom
        try:
            for controller, parent in find_controllers().items():
                folder = parent / self._name
                if folder not in self._folders:
                    folder.mkdir()
                    self._folders.append(folder)
                if controller == "memory":
                    self._memory = folder
                    _limit(folder, "memory.max", "memory.limit_in_bytes", memory)
                    _try_limit(folder, "memory.swap.max", "memory.memsw.limit_in_bytes", memory)
                    if messages is not None:
                        _write_if_there(folder / _TCP_LIMIT, messages)
                else:
                    _limit(folder, "pids.max", "pids.max", processes)
        except OSError:
            self.close()
            raise

    def open_members(self) -> list[int]:
        """Opens the files by which a process joins: it writes `0` to each; its children will be born there.

        The caller closes them.
        """
        return [os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self._folders]

    def open_memory(self) -> list[int]:
        """Opens the files that have the bytes of everything, and by kind; none where memory is not limited.

        Then, where there is one that may be written, the file by which the kernel is told to free what nobody holds.
        The caller closes them.
        """
        if self._memory is None:
            return []
        usage = next(file for name in _USAGE if (file := self._memory / name).exists())
        found = [os.open(file, os.O_RDONLY | os.O_CLOEXEC) for file in (usage, self._memory / "memory.stat")]
        for name in _RECLAIM:
            with contextlib.suppress(OSError):
                found.append(os.open(self._memory / name, os.O_WRONLY | os.O_CLOEXEC))
                break
        return found

    def allow(self, memory: int) -> None:
        """Allows so many more bytes: files of earlier states stay charged to the group."""
        self._allowed += memory
        if self._memory is not None and self._allowed > 0:
            self._bytes += self._allowed + _STEP
            self._allowed = -_STEP
            _try_limit(self._memory, "memory.swap.max", "memory.memsw.limit_in_bytes", self._bytes)
            with contextlib.suppress(OSError):
                _limit(self._memory, "memory.max", "memory.limit_in_bytes", self._bytes)

    def count_oom_kills(self) -> int:
        """Returns how many processes were killed for memory so far."""
        if self._memory is None:
            return 0
        text = _read(self._memory / "memory.events") or _read(self._memory / "memory.oom_control")
        counts = dict(line.split(maxsplit=1) for line in text.splitlines())
        return int(counts.get("oom_kill", "0"))

    def close(self) -> None:
        """Removes the groups; their processes must have been killed."""
        deadline = time.monotonic() + _END_S
        while self._folders:
            self._folders = [folder for folder in self._folders if not _removed(folder)]
            if time.monotonic() > deadline:
                return  # a later sweep removes them
            if self._folders:
                time.sleep(0.001)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _limit(folder: Path, new: str, old: str, value: int) -> None:
    file = folder / new
    (file if file.exists() else folder / old).write_text(str(value))


def _write_if_there(file: Path, value: int) -> None:
    with contextlib.suppress(OSError):
        if file.exists():
            file.write_text(str(value))


def _try_limit(folder: Path, new: str, old: str, value: int) -> None:
    file, limit = (folder / new, 0) if (folder / new).exists() else (folder / old, value)
    _write_if_there(file, limit)


def sweep_cgroups() -> list[str]:
    """Removes the groups of owners that no longer live; returns what was removed."""
    removed: list[str] = []
    for parent in set(find_controllers().values()):
        for folder in parent.glob(f"{_PREFIX}*"):
            tag = folder.name[len(_PREFIX) :].rpartition("-")[0]
            if not owner_lives(tag):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    removed.append(f"cgroup {folder}")
    return removed
