"""Snapshots: stacks of immutable layers."""

from collections.abc import Mapping
from functools import cached_property

from agentenv.errors import SnapshotError
from agentenv.protocols import Fidelity, FileChange

from .guest.trees import Entry
from .layers import Layer, archives, digest_entries, merge_entries

__all__ = ["WorkspaceSnapshot", "compare"]

_TYPES = {"dir": "directory"}


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


def _rebuild(parts: tuple[bytes, ...]) -> WorkspaceSnapshot:
    try:
        return WorkspaceSnapshot(tuple(archives.add(part) for part in parts))
    except ValueError as error:
        msg = f"the pickled snapshot is damaged: {error}"
        raise SnapshotError(msg) from error


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
