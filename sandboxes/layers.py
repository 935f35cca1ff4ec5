"""Immutable layers of files, and where their archives are kept.

A layer is kept as long as something refers to it and not a moment longer: the garbage collector is the reference
count. Archives are held in memory, equal ones once; over a budget the least recently used go to unnamed files on disk,
which the kernel removes with the process, however it ends.
"""

import hashlib
import io
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Protocol

from .guest.content import TreeFault, take_stored
from .guest.trees import Entry, assemble, inside, read_entries

__all__ = [
    "Archives",
    "Layer",
    "StoredLayer",
    "archives",
    "check_archive",
    "digest_entries",
    "flatten",
    "in_order",
    "merge_entries",
]


class Layer(Protocol):
    """Changes to a tree of files; the first layer of a snapshot starts from nothing."""

    def archive(self) -> bytes:
        """Returns the layer as an archive, see `guest/trees.py`."""
        ...

    def entries(self) -> list[Entry]:
        """Returns its entries, with digests of files."""
        ...


class StoredLayer:
    """A layer whose archive this process holds. Made by `Archives.add`.

    Attributes:
        digest: SHA-256 of the archive.
        size: bytes of the archive.
    """

    def __init__(self, store: "Archives", digest: str, size: int) -> None:
        self._store = store
        self.digest = digest
        self.size = size
        self._entries: list[Entry] | None = None

    def archive(self) -> bytes:
        """Returns the archive."""
        return self._store.get(self.digest)

    def entries(self) -> list[Entry]:
        """Returns its entries, with digests of files; computed once."""
        if self._entries is None:
            self._entries = list(_with_digests(self.archive()))
        return self._entries


def _with_digests(archive: bytes) -> Iterable[Entry]:
    stream = io.BytesIO(archive)
    digests: dict[str, str] = {}
    for entry in read_entries(stream.read):
        if entry.kind != "file":
            yield entry
            continue
        if entry.value:  # another name of a file that came before
            if entry.value not in digests:
                msg = f"{entry.path!r:.300} is another name of a file that is not there"
                raise TreeFault(msg)
            digest = digests[entry.value]
        else:
            digest = digests[entry.path] = hashlib.sha256(take_stored(stream.read, entry.size)).hexdigest()
        yield entry._replace(value=digest)


def check_archive(archive: bytes) -> None:
    """Reads all of an archive that may be anything.

    Raises:
        TreeFault: it is none, or cut short.
    """
    for _ in _with_digests(archive):
        pass


class Archives:
    """Keeps archives in memory up to a budget, and beyond it on disk.

    Args:
        memory: bytes to hold in memory.
    """

    def __init__(self, memory: int = 1 << 30) -> None:
        self._budget = memory
        self._lock = threading.RLock()
        self._hot: OrderedDict[str, bytes] = OrderedDict()
        self._cold: dict[str, IO[bytes]] = {}
        self._layers: weakref.WeakValueDictionary[str, StoredLayer] = weakref.WeakValueDictionary()
        self._held = 0

    @property
    def held(self) -> tuple[int, int]:
        """Bytes in memory, and number of archives on disk."""
        return self._held, len(self._cold)

    def add(self, archive: bytes) -> StoredLayer:
        """Keeps an archive; an equal one that is kept already is shared.

        Raises:
            ValueError: it is no archive.
        """
        digest = hashlib.sha256(archive).hexdigest()
        with self._lock:
            layer = self._layers.get(digest)
            if layer is not None:
                return layer
            try:
                read_entries(io.BytesIO(archive).read)
            except TreeFault as error:
                raise ValueError(str(error)) from error
            layer = StoredLayer(self, digest, len(archive))
            self._layers[digest] = layer
            self._drop(digest)  # what an equal layer, collected a moment ago, may have left
            self._hot[digest] = archive
            self._held += len(archive)
            weakref.finalize(layer, self._drop_unless_shared, digest).atexit = False
            self._spill()
            return layer

    def get(self, digest: str) -> bytes:
        """Returns a kept archive."""
        with self._lock:
            if digest in self._hot:
                self._hot.move_to_end(digest)
                return self._hot[digest]
            file = self._cold[digest]
            file.seek(0)
            return file.read()

    def _spill(self) -> None:
        while self._held > self._budget and self._hot:
            digest, archive = self._hot.popitem(last=False)
            self._held -= len(archive)
            file = tempfile.TemporaryFile()  # noqa: SIM115  stays open: it has no name
            file.write(archive)
            file.flush()
            self._cold[digest] = file

    def _drop_unless_shared(self, digest: str) -> None:
        with self._lock:
            if digest not in self._layers:
                self._drop(digest)

    def _drop(self, digest: str) -> None:
        archive = self._hot.pop(digest, None)
        if archive is not None:
            self._held -= len(archive)
        file = self._cold.pop(digest, None)
        if file is not None:
            file.close()


archives = Archives()
"""The archives of this process."""


def merge_entries(layers: Iterable[Layer]) -> dict[str, Entry]:
    """Returns the entries that are visible when `layers` lie on each other, the first at the bottom, by path."""
    visible: dict[str, Entry] = {}
    for layer in layers:
        entries = layer.entries()
        _hide(visible, [entry.path for entry in entries if entry.kind != "dir" and entry.path in visible])
        for entry in entries:
            if entry.kind == "fresh":
                visible[entry.path] = entry._replace(kind="dir")
            elif entry.kind != "gone":
                visible[entry.path] = entry
    return visible


def _hide(visible: dict[str, Entry], paths: list[str]) -> None:
    """Removes these paths and all below them."""
    below = _by_folder(visible) if any(visible[path].kind == "dir" for path in paths) else {}
    while paths:
        path = paths.pop()
        visible.pop(path, None)
        paths += below.get(inside(path), ())


def _by_folder(paths: Iterable[str]) -> dict[str, list[str]]:
    """Returns paths by the folder they are in, as `inside` names it, in order; the roots under `""`."""
    found: dict[str, list[str]] = {}
    for path in sorted(paths):
        found.setdefault(path.rpartition("/")[0], []).append(path)
    return found


def digest_entries(entries: Mapping[str, Entry]) -> str:
    """Returns SHA-256 over the sorted entries: path, kind, mode, size and content, but not times."""
    state = hashlib.sha256()
    for path in sorted(entries):
        entry = entries[path]
        state.update(ascii((path, entry.kind, entry.mode, entry.size, entry.value)).encode())
    return state.hexdigest()


def flatten(layers: tuple[Layer, ...]) -> bytes:
    """Returns one archive of all that is visible through `layers`.

    A single layer is returned as it is.
    """
    if len(layers) == 1:
        return layers[0].archive()
    visible = merge_entries(layers)
    homes: dict[str, tuple[int, str]] = {}  # of a visible file: its layer, and the path of its content there
    contents: dict[tuple[int, str], bytes] = {}
    for number, layer in enumerate(layers):
        stream = io.BytesIO(layer.archive())
        files = [entry for entry in read_entries(stream.read) if entry.kind == "file"]
        homes |= {entry.path: (number, entry.value or entry.path) for entry in files if entry.path in visible}
        for entry in files:
            if not entry.value:
                contents[number, entry.path] = take_stored(stream.read, entry.size)
    entries: list[Entry] = []
    stored: list[bytes] = []
    first_paths: dict[tuple[int, str], str] = {}
    for entry in in_order(visible):
        if entry.kind != "file":
            entries.append(entry)
            continue
        home = homes[entry.path]
        first = first_paths.setdefault(home, entry.path)
        entries.append(entry._replace(value="" if first == entry.path else first))
        if first == entry.path:
            stored.append(contents.pop(home))
    return assemble(entries, stored)


def in_order(entries: Mapping[str, Entry]) -> Iterator[Entry]:
    """Yields entries as an archive has them: what is in a folder follows it at once."""
    below = _by_folder(entries)
    todo = below[""][::-1]
    while todo:
        path = todo.pop()
        yield entries[path]
        todo += below.get(inside(path), ())[::-1]
