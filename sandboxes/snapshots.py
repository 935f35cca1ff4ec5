"""Snapshots: stacks of immutable layers."""

from collections.abc import Iterable, Mapping
from functools import cached_property

from typing_extensions import override

from agentenv.errors import SnapshotError
from agentenv.protocols import Fidelity, FileChange

from .guest.trees import FAR, Entry, inside
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

    @property
    def content_id(self) -> str:
        """SHA-256 over all paths, kinds, modes and contents: equal exactly where those are. Times do not count."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
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
    """Returns what differs in the workspace between two states, by path.

    What differs below a folder whose path is longer than `FAR` is one change of that folder.
    """
    differs = {path for path in old.keys() | new.keys() if not _same(old.get(path), new.get(path))}
    if any(path.startswith("@") for path in differs):
        differs = _near(differs, {inside(path): path for path in old.keys() | new.keys() if len(path) >= FAR})
    changes: list[FileChange] = []
    for path in sorted(differs):
        root, _, inner = path.partition("/")
        before, after = old.get(path), new.get(path)
        entry = after or before
        if root == "workspace" and inner and entry is not None:
            kind = "added" if before is None else "deleted" if after is None else "modified"
            changes.append(FileChange(inner, kind, _TYPES.get(entry.kind, entry.kind), after.size if after else 0))
    return changes


def _near(paths: Iterable[str], folders: Mapping[str, str]) -> set[str]:
    """Replaces paths that begin with a digest by the folder, among `folders` by digest, far below which they are."""
    known = dict(folders)

    def above(path: str) -> str:
        way: list[str] = []
        while path.startswith("@"):
            way.append(path.partition("/")[0])
            path = known[way[-1]]
        known.update(dict.fromkeys(way, path))
        return path

    return {above(path) for path in paths}


def _same(before: Entry | None, after: Entry | None) -> bool:
    return before is not None and after is not None and before._replace(mtime_ns=0) == after._replace(mtime_ns=0)
