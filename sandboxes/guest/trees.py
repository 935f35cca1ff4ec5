"""Folders as data: scanned into entries, packed into one archive, unpacked again.

A tree has named roots (`workspace`, `tmp`), each an open folder. No path in it is long, however deep an agent nests:
see `inside`.

Archive: 8 bytes (little endian) of length, the entries as JSON, then the contents of the files (see `content.py`), in
order. A layer of an overlay also holds `gone` entries (a name that hides one below) and `fresh` folders (which hide all
that was below).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from .aside import Aside
from .content import TreeFault, exactly, read_content, write_content
from .place import Place, open_file, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = [
    "FAR",
    "FOLDERS",
    "OPAQUE",
    "Entry",
    "assemble",
    "contents",
    "inside",
    "is_opaque",
    "is_whiteout",
    "pack",
    "parse_entries",
    "read_entries",
    "scan",
    "unpack",
]

FAR = 1000
FOLDERS = ("dir", "fresh")
OPAQUE = "user.overlay.opaque"
_KINDS = {"file", "link", "fifo", "gone", *FOLDERS}
_LENGTH = 8
_MAX_TEXT = 4 << 30
_MAX_NUMBER = 1 << 63
_CHANGED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL}  # by whoever still runs


class Entry(NamedTuple):
    """One name in a tree.

    Attributes:
        path: the folder that holds it, as `inside` names it, and its name.
        kind: `dir`, `file`, `link`, `fifo`; in layers also `fresh` and `gone`.
        mode: permission bits.
        mtime_ns: time of the last change.
        size: bytes of a file.
        value: target of a link. Of a file, where digests were asked for, SHA-256 of its stored content; otherwise the
            path of an earlier name of the same file, if it has one (a hard link).
    """

    path: str
    kind: str
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    value: str = ""


def inside(folder: str) -> str:
    """Returns what the paths of names in a folder begin with: its own path, or its digest where that is `FAR` long.

    Full paths of folders nested 20,000 deep would take gigabytes.
    """
    return folder if len(folder) < FAR else "@" + hashlib.sha256(folder.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------------- reading


def scan(roots: Mapping[str, int], *, digests: bool = False, layer: bool = False, force: bool = False) -> list[Entry]:
    """Returns the entries of the open folders in `roots`, parents before children, names in order.

    Sockets and devices are left out, and what vanishes meanwhile.

    Args:
        roots: open folders by name.
        digests: read the files.
        layer: read the marks of an overlay.
        force: read what modes close to their owner.

    Raises:
        TreeFault: a folder was moved meanwhile.
    """
    entries: list[Entry] = []
    for name in sorted(roots):
        _Scan(entries, digests=digests, layer=layer, force=force).read(roots[name], name)
    return entries


class _Scan:
    """Reads one root."""

    def __init__(self, entries: list[Entry], *, digests: bool, layer: bool, force: bool) -> None:
        self._entries = entries
        self._digests = digests
        self._layer = layer
        self._force = force
        self._known: dict[tuple[int, int], str] = {}  # values of files with several names

    def read(self, root: int, name: str) -> None:
        place = Place(root, force=self._force)
        try:
            todo = [self._enter(place, name)]
            while todo:
                folder, names = todo[-1]
                if not names:
                    todo.pop()
                    if todo:
                        place.up()
                    continue
                below = names.pop()
                try:
                    info = os.stat(below, dir_fd=place.fd, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        place.down(below)
                        todo.append(self._enter(place, f"{folder}/{below}", info))
                    else:
                        self._add_name(place.fd, below, f"{folder}/{below}", info)
                except OSError as error:
                    if error.errno not in _CHANGED:
                        raise
        finally:
            place.close()

    def _enter(self, place: Place, path: str, info: os.stat_result | None = None) -> tuple[str, list[str]]:
        """Adds a folder; returns what the paths in it begin with, and its names, the first one last."""
        info = info or os.fstat(place.fd)
        kind = "fresh" if self._layer and is_opaque(place.fd) else "dir"
        self._entries.append(Entry(path, kind, stat.S_IMODE(info.st_mode), info.st_mtime_ns))
        return inside(path), _names(place.fd)

    def _add_name(self, folder: int, name: str, path: str, info: os.stat_result) -> None:
        mode, mtime = stat.S_IMODE(info.st_mode), info.st_mtime_ns
        if stat.S_ISREG(info.st_mode):
            value = self._value(folder, name, path, info)
            self._entries.append(Entry(path, "file", mode, mtime, info.st_size, value))
        elif stat.S_ISLNK(info.st_mode):
            self._entries.append(Entry(path, "link", 0o777, mtime, 0, os.readlink(name, dir_fd=folder)))
        elif stat.S_ISFIFO(info.st_mode):
            self._entries.append(Entry(path, "fifo", mode, mtime))
        elif self._layer and is_whiteout(info):
            self._entries.append(Entry(path, "gone"))

    def _value(self, folder: int, name: str, path: str, info: os.stat_result) -> str:
        identity = (info.st_dev, info.st_ino)
        known = self._known.get(identity) if info.st_nlink > 1 else None
        if known is not None:
            return known
        value = self._digest(folder, name, info.st_size) if self._digests else ""
        if info.st_nlink > 1:
            self._known[identity] = value or path
        return value

    def _digest(self, folder: int, name: str, size: int) -> str:
        state = hashlib.sha256()
        fd = open_file(folder, name, force=self._force)
        try:
            for part in read_content(fd, size):
                state.update(part)
        finally:
            os.close(fd)
        return state.hexdigest()


def _names(folder: int) -> list[str]:
    """Returns the names in an open folder, the first one last; none where it has been removed."""
    try:
        return sorted(os.listdir(folder), reverse=True)
    except FileNotFoundError:
        return []


def is_opaque(folder: int) -> bool:
    """Whether a folder of a layer hides all that was below."""
    try:
        return os.getxattr(folder, OPAQUE) == b"y"
    except OSError:
        return False


def is_whiteout(info: os.stat_result) -> bool:
    """Whether a name of a layer only hides one below."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def pack(roots: Mapping[str, int], *, layer: bool = False, force: bool = False) -> Iterator[bytes]:
    """Yields an archive of the open folders in `roots`, piece by piece; arguments as of `scan`."""
    entries = scan(roots, layer=layer, force=force)
    yield assemble(entries, ())
    first_names = {entry.path for entry in entries if entry.kind == "file" and not entry.value}
    yield from contents(roots, entries, first_names, force=force)


def assemble(entries: Sequence[Entry], stored: Iterable[bytes]) -> bytes:
    """Returns the archive of these entries, given the stored contents of the files among them, in order."""
    text = json.dumps(entries).encode()
    return b"".join((len(text).to_bytes(_LENGTH, "little"), text, *stored))


def contents(
    roots: Mapping[str, int], entries: Iterable[Entry], chosen: Collection[str], *, force: bool = False
) -> Iterator[bytes]:
    """Yields the stored contents of the files whose paths are in `chosen`, among the `entries` that `scan` returned."""
    with _Way(roots, force=force) as way:
        for entry in entries:
            if entry.kind in FOLDERS:
                way.enter(entry)
            elif entry.path in chosen:
                folder, name = way.find(entry)
                fd = open_file(folder, name, force=force)
                try:
                    yield from read_content(fd, entry.size)
                finally:
                    os.close(fd)


class _Way:
    """Follows entries through the open folders in `roots`: in their order, it takes one step up or down at a time."""

    def __init__(self, roots: Mapping[str, int], *, force: bool = False) -> None:
        self._roots = roots
        self._force = force
        self._place: Place | None = None
        self._passed: list[tuple[str, Entry]] = []

    def enter(self, entry: Entry) -> None:
        """Goes into a folder."""
        if entry.path in self._roots:
            self._leave_all()
            self._place = Place(self._roots[entry.path], force=self._force)
        else:
            folder, name = self.find(entry)
            self.make(folder, name, entry)
            assert self._place is not None
            self._place.down(name)
        self._passed.append((inside(entry.path), entry))
        self.entered(entry)

    def find(self, entry: Entry) -> tuple[int, str]:
        """Returns the open folder that holds an entry, and its name there.

        Raises:
            TreeFault: the folder has not been entered, or was left.
        """
        folder, _, name = entry.path.rpartition("/")
        while self._passed and self._passed[-1][0] != folder:
            self._leave()
        if self._place is None or not self._passed:
            msg = f"{entry.path[:200]!r} is in none of {sorted(self._roots)}, or out of order"
            raise TreeFault(msg)
        return self._place.fd, name

    def make(self, folder: int, name: str, entry: Entry) -> None:
        """Prepares to enter a folder."""

    def entered(self, entry: Entry) -> None:
        """Has entered a folder."""

    def settle(self, folder: int, entry: Entry) -> None:
        """Has left a folder."""

    def _leave(self) -> None:
        _, entry = self._passed.pop()
        assert self._place is not None
        if self._passed:
            self._place.up(lambda folder: self.settle(folder, entry))
        else:
            self.settle(self._place.fd, entry)

    def _leave_all(self) -> None:
        while self._passed:
            self._leave()
        if self._place is not None:
            self._place.close()
            self._place = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._leave_all()
        elif self._place is not None:
            self._place.close()


# ---------------------------------------------------------------------- writing


def read_entries(read: Callable[[int], bytes], *, whole: bool = True) -> list[Entry]:
    """Returns the entries of an archive and leaves `read` at the first content.

    Args:
        read: returns up to so many next bytes of it.
        whole: it has every folder, before what is in it.

    Raises:
        TreeFault: not an archive, or a path that is not plain.
    """
    size = int.from_bytes(exactly(read, _LENGTH), "little")
    if size > _MAX_TEXT:
        msg = f"not an archive of a workspace: its list of entries has {size} bytes"
        raise TreeFault(msg)
    return parse_entries(exactly(read, size), whole=whole)


def parse_entries(text: bytes, *, whole: bool = True) -> list[Entry]:
    """Returns entries from JSON, which anybody may have written.

    Raises:
        TreeFault: they are no entries, a path is not plain, or a name comes before the folder that holds it.
    """
    try:
        entries = [Entry(*fields) for fields in json.loads(text)]
    except (ValueError, TypeError, RecursionError) as error:
        msg = f"not an archive of a workspace: {error}"
        raise TreeFault(msg) from error
    folders: set[str] = set()
    for entry in entries:
        if not _can_be(entry):
            msg = f"an entry of the archive cannot be: {entry!r:.300}"
            raise TreeFault(msg)
        folder, inner, name = entry.path.rpartition("/")
        parts = entry.path.split("/")
        if any(part in {"", ".", ".."} or "\0" in part for part in parts):
            msg = f"a path in the archive is not plain: {entry.path!r:.300}"
            raise TreeFault(msg)
        if not whole:
            continue
        if (folder not in folders) if inner else (entry.kind not in FOLDERS or name.startswith("@")):
            msg = f"{entry.path!r:.300} is in no folder that came before it"
            raise TreeFault(msg)
        if entry.kind in FOLDERS:
            folders.add(inside(entry.path))
    return entries


def _can_be(entry: Entry) -> bool:
    """Whether the fields of an entry have values that such fields can have."""
    texts, numbers = (entry.path, entry.kind, entry.value), (entry.mode, entry.mtime_ns, entry.size)
    return (
        all(type(text) is str for text in texts)
        and all(type(number) is int for number in numbers)
        and entry.kind in _KINDS
        and 0 <= entry.mode <= 0o7777
        and abs(entry.mtime_ns) < _MAX_NUMBER
        and 0 <= entry.size < _MAX_NUMBER
    )


def unpack(
    read: Callable[[int], bytes],
    roots: Mapping[str, int],
    *,
    owner: tuple[int, int] | None = None,
) -> int:
    """Writes an archive into the open folders in `roots`; returns how many entries it had.

    Names that exist are replaced, except folders, which are kept.

    Args:
        read: returns up to so many next bytes of the archive.
        roots: open folders by name.
        owner: user and group of everything written.

    Raises:
        TreeFault: not an archive, a path outside the roots, or an archive cut short.
        OSError: the file system refused (no room, for instance).
    """
    entries = read_entries(read)
    with _Writer(roots, owner) as writer:
        writer.expect(entries)
        for entry in entries:
            writer.write(entry, read)
    return len(entries)


class _Writer(_Way):
    """Writes entries."""

    def __init__(self, roots: Mapping[str, int], owner: tuple[int, int] | None) -> None:
        super().__init__(roots)
        self._owner = owner
        self._aside = {name: Aside(fd) for name, fd in roots.items()}
        self._root = ""
        self._more_names: dict[str, int] = {}

    def expect(self, entries: Iterable[Entry]) -> None:
        """Notes which files will get more names."""
        for entry in entries:
            if entry.kind == "file" and entry.value:
                self._more_names[entry.value] = self._more_names.get(entry.value, 0) + 1

    def write(self, entry: Entry, read: Callable[[int], bytes]) -> None:
        """Writes one entry."""
        if entry.kind in FOLDERS:
            self.enter(entry)
            return
        folder, name = self.find(entry)
        remove(folder, name)
        if entry.kind == "file":
            self._write_file(folder, name, entry, read)
        elif entry.kind == "link":
            os.symlink(entry.value, name, dir_fd=folder)
        elif entry.kind == "fifo":
            os.mkfifo(name, entry.mode, dir_fd=folder)
        elif entry.kind == "gone":
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder)
        else:
            msg = f"unknown kind {entry.kind!r} of {entry.path!r}"
            raise TreeFault(msg)
        if entry.kind in {"link", "fifo"}:
            if self._owner is not None:
                os.chown(name, *self._owner, dir_fd=folder, follow_symlinks=False)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def _write_file(self, folder: int, name: str, entry: Entry, read: Callable[[int], bytes]) -> None:
        aside = self._aside[self._root]
        if entry.value:
            aside.give(entry.value, folder, name)
            return
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            write_content(read, fd, entry.size)
            if self._owner is not None:
                os.fchown(fd, *self._owner)
            os.fchmod(fd, entry.mode & 0o7777)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        aside.put(entry.path, folder, name, self._more_names.get(entry.path, 0))

    def make(self, folder: int, name: str, entry: Entry) -> None:
        """Makes a folder unless it exists; its mode and time are set when it is left."""
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                remove(folder, name)
                os.mkdir(name, 0o700, dir_fd=folder)

    def entered(self, entry: Entry) -> None:
        """Marks and hands over a folder."""
        assert self._place is not None
        if entry.path in self._roots:
            self._root = entry.path
            return
        if self._owner is not None:
            os.fchown(self._place.fd, *self._owner)
        if entry.kind == "fresh":
            os.setxattr(self._place.fd, OPAQUE, b"y")

    def settle(self, folder: int, entry: Entry) -> None:
        """Gives a folder its mode and time."""
        os.fchmod(folder, entry.mode & 0o7777)
        os.utime(folder, ns=(entry.mtime_ns, entry.mtime_ns))
