"""Snapshots: stacks of immutable layers."""

from collections.abc import Mapping
from functools import cached_property

from typing_extensions import override

from agentenv.errors import SnapshotError
from agentenv.protocols import Fidelity, FileChange

from .guest.trees import Entry
from .layers import Layer, archives, digest_entries, merge_entries

__all__ = ["ProcessSnapshot", "WorkspaceSnapshot", "bytes_of_base", "compare"]

_TYPES = {"dir": "directory"}
_PAGE = 4096


class WorkspaceSnapshot:
    """The files of a sandbox (its workspace and its `/tmp`) at one moment.

    Immutable; outlives the sandbox; can be restored any number of times, at once, and by every back end. Pickling
    takes the contents along, so a pickled snapshot can be restored anywhere, at any time.

    Attributes:
        layers: from the bottom to the top.
    """

    fidelity = Fidelity.PORTABLE

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = layers

    @cached_property
    def content_id(self) -> str:
        """SHA-256 over all paths, kinds, modes and contents: equal exactly where those are. Times do not count."""
        return digest_entries(self.entries)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every file and folder by path; paths start with `workspace` or `tmp`."""
        return merge_entries(self.layers)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (tuple(layer.archive() for layer in self.layers),)

    def __repr__(self) -> str:
        return f"WorkspaceSnapshot({len(self.layers)} layers)"


class ProcessSnapshot(WorkspaceSnapshot):
    """The files of a sandbox together with what runs in it: the open shell, its jobs, their memory.

    Restored by the back end that took it, in the process that took it. `files` is what can travel.

    Attributes:
        backend: the name of that back end.
        image: what it keeps of the processes; freed with the last reference.
        shell_open: whether a shell is part of it.
    """

    fidelity = Fidelity.LOCAL

    def __init__(self, layers: tuple[Layer, ...], backend: str, image: object, *, shell_open: bool) -> None:
        super().__init__(layers)
        self.backend = backend
        self.image = image
        self.shell_open = shell_open

    @property
    def files(self) -> WorkspaceSnapshot:
        """The files alone, as a snapshot that every back end restores and that can be pickled."""
        return WorkspaceSnapshot(self.layers)

    @override
    def __reduce__(self) -> tuple[object, ...]:
        msg = "a snapshot with running processes cannot leave the process that took it: pickle its `files` instead"
        raise SnapshotError(msg)

    @override
    def __repr__(self) -> str:
        return f"ProcessSnapshot({self.backend}, {len(self.layers)} layers)"


def _rebuild(parts: tuple[bytes, ...]) -> WorkspaceSnapshot:
    try:
        return WorkspaceSnapshot(tuple(archives.add(part) for part in parts))
    except ValueError as error:
        msg = f"the pickled snapshot is damaged: {error}"
        raise SnapshotError(msg) from error


def bytes_of_base(snapshot: WorkspaceSnapshot) -> int:
    """Returns what the files at the start, the lowest layer, take up in memory: whole pages."""
    return sum(-(-entry.size // _PAGE) * _PAGE for entry in snapshot.layers[0].entries()) if snapshot.layers else 0


def compare(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> list[FileChange]:
    """Returns what differs in the workspace between two states, by path."""
    changes: list[FileChange] = []
    for path in sorted(old.keys() | new.keys()):
        root, _, inner = path.partition("/")
        before, after = old.get(path), new.get(path)
        if root != "workspace" or not inner:
            continue
        entry = after or before
        if entry is None or (before is not None and after is not None and _same(before, after)):
            continue
        kind = "added" if before is None else "deleted" if after is None else "modified"
        changes.append(FileChange(inner, kind, _TYPES.get(entry.kind, entry.kind), after.size if after else 0))
    return changes


def _same(before: Entry, after: Entry) -> bool:
    return before._replace(mtime_ns=0) == after._replace(mtime_ns=0)
