"""Folders as data: scanned into entries, packed into one archive, unpacked again.

A tree has named roots (`workspace`, `tmp`), each an open folder. Everything is reached by descriptors of folders that
were opened without following links, so no name inside can lead outside.

Archive: 8 bytes (little endian) of length, the entries as JSON, then the contents of the files, in order. A layer of an
overlay also holds `gone` entries (a name that hides one below) and `fresh` folders (which hide all that was below).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["Entry", "TreeFault", "assemble", "clear", "pack", "read_entries", "scan", "unpack"]

MAX_DEPTH = 200
FOLDERS = ("dir", "fresh")
_OPAQUE = "user.overlay.opaque"
_CHUNK = 1 << 20
_LENGTH = 8
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TreeFault(Exception):
    """A tree or an archive that cannot be handled; the message says why."""


class Entry(NamedTuple):
    """One name in a tree.

    Attributes:
        path: starts with the name of its root.
        kind: `dir`, `file`, `link`, `fifo`; in layers also `fresh` and `gone`.
        mode: permission bits.
        mtime_ns: time of the last change.
        size: bytes of a file.
        value: target of a link; SHA-256 of a file where it was asked for.
    """

    path: str
    kind: str
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    value: str = ""


def scan(roots: Mapping[str, int], *, digests: bool = False, layer: bool = False) -> list[Entry]:
    """Returns the entries of the open folders in `roots`, parents before children, names in order.

    Sockets and devices are left out. With `layer`, the marks of an overlay are read.

    Raises:
        TreeFault: a folder is nested deeper than `MAX_DEPTH`.
    """
    entries: list[Entry] = []
    for name in sorted(roots):
        _scan_folder(roots[name], name, 0, entries, digests, layer)
    return entries


def _scan_folder(folder: int, path: str, depth: int, out: list[Entry], digests: bool, layer: bool) -> None:
    if depth > MAX_DEPTH:
        msg = f"a folder is nested deeper than {MAX_DEPTH}: {path[:80]}..."
        raise TreeFault(msg)
    info = os.fstat(folder)
    kind = "fresh" if layer and _is_opaque(folder) else "dir"
    out.append(Entry(path, kind, stat.S_IMODE(info.st_mode), info.st_mtime_ns))
    for name in sorted(os.listdir(folder)):
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        below = path + "/" + name
        if stat.S_ISDIR(info.st_mode):
            child = os.open(name, _OPEN_FOLDER, dir_fd=folder)
            try:
                _scan_folder(child, below, depth + 1, out, digests, layer)
            finally:
                os.close(child)
        else:
            entry = _scan_name(folder, name, below, info, digests)
            if entry is not None and (layer or entry.kind != "gone"):
                out.append(entry)


def _scan_name(folder: int, name: str, path: str, info: os.stat_result, digests: bool) -> Entry | None:
    mode, mtime = stat.S_IMODE(info.st_mode), info.st_mtime_ns
    if stat.S_ISREG(info.st_mode):
        return Entry(path, "file", mode, mtime, info.st_size, _digest(folder, name) if digests else "")
    if stat.S_ISLNK(info.st_mode):
        return Entry(path, "link", 0o777, mtime, 0, os.readlink(name, dir_fd=folder))
    if stat.S_ISFIFO(info.st_mode):
        return Entry(path, "fifo", mode, mtime)
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
        return Entry(path, "gone")
    return None


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError:
        return False


def _digest(folder: int, name: str) -> str:
    state = hashlib.sha256()
    fd = os.open(name, _OPEN_FILE, dir_fd=folder)
    try:
        while True:
            part = os.read(fd, _CHUNK)
            if not part:
                return state.hexdigest()
            state.update(part)
    finally:
        os.close(fd)


def pack(
    roots: Mapping[str, int],
    *,
    layer: bool = False,
    choose: Callable[[Entry], bool] | None = None,
) -> Iterator[bytes]:
    """Yields an archive of the open folders in `roots`, piece by piece.

    Args:
        roots: open folders by name.
        layer: read the marks of an overlay.
        choose: which entries to take; all without it.
    """
    entries = scan(roots, layer=layer)
    if choose is not None:
        entries = [entry for entry in entries if choose(entry)]
    yield assemble(entries, ())
    opened = _Opened(roots)
    try:
        for entry in entries:
            if entry.kind == "file":
                folder, name = opened.parent(entry.path)
                yield from _content(folder, name, entry.size)
    finally:
        opened.close()


def assemble(entries: Sequence[Entry], contents: Iterable[bytes]) -> bytes:
    """Returns the archive of these entries, given the contents of the files among them, in order."""
    text = json.dumps(entries).encode()
    return b"".join((len(text).to_bytes(_LENGTH, "little"), text, *contents))


def _content(folder: int, name: str, size: int) -> Iterator[bytes]:
    """Yields exactly `size` bytes, zeros where the file has become shorter."""
    fd = os.open(name, _OPEN_FILE, dir_fd=folder)
    try:
        while size:
            part = os.read(fd, min(size, _CHUNK)) or bytes(min(size, _CHUNK))
            size -= len(part)
            yield part
    finally:
        os.close(fd)


def read_entries(read: Callable[[int], bytes]) -> list[Entry]:
    """Returns the entries of an archive and leaves `read` at the first content.

    Raises:
        TreeFault: not an archive, or a path that is not plain.
    """
    text = _exactly(read, int.from_bytes(_exactly(read, _LENGTH), "little"))
    try:
        entries = [Entry(*fields) for fields in json.loads(text)]
    except (ValueError, TypeError) as error:
        msg = f"not an archive of a workspace: {error}"
        raise TreeFault(msg) from error
    for entry in entries:
        parts = entry.path.split("/")
        if any(part in {"", ".", ".."} or "\0" in part for part in parts):
            msg = f"a path in the archive is not plain: {entry.path!r}"
            raise TreeFault(msg)
    return entries


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = read(size - len(parts))
        if not part:
            msg = "the archive is cut short"
            raise TreeFault(msg)
        parts += part
    return bytes(parts)


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
    opened = _Opened(roots)
    try:
        for entry in entries:
            _write_entry(opened, entry, read, owner)
    finally:
        opened.close()
    return len(entries)


def _write_entry(opened: _Opened, entry: Entry, read: Callable[[int], bytes], owner: tuple[int, int] | None) -> None:
    if entry.kind in FOLDERS:
        opened.make(entry, owner)
        return
    folder, name = opened.parent(entry.path)
    _remove_name(folder, name)
    if entry.kind == "file":
        _write_file(folder, name, entry, read, owner)
        return
    if entry.kind == "link":
        os.symlink(entry.value, name, dir_fd=folder)
    elif entry.kind == "fifo":
        os.mkfifo(name, entry.mode, dir_fd=folder)
    elif entry.kind == "gone":
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder)
        return
    else:
        msg = f"unknown kind {entry.kind!r} of {entry.path!r}"
        raise TreeFault(msg)
    if owner is not None:
        os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)


def _write_file(
    folder: int, name: str, entry: Entry, read: Callable[[int], bytes], owner: tuple[int, int] | None
) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        left = entry.size
        while left:
            part = read(min(left, _CHUNK))
            if not part:
                msg = f"the archive is cut short in {entry.path!r}"
                raise TreeFault(msg)
            left -= len(part)
            view = memoryview(part)
            while view:
                view = view[os.write(fd, view) :]
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, entry.mode & 0o7777)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    finally:
        os.close(fd)


class _Opened:
    """The open folders on the way to the current entry; entries come parents first, so a stack is enough."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = roots
        self._stack: list[tuple[str, int, Entry | None]] = []

    def parent(self, path: str) -> tuple[int, str]:
        """Returns the open folder of `path` and its last name."""
        folder, _, name = path.rpartition("/")
        self._pop_to(folder)
        if not self._stack or self._stack[-1][0] != folder:
            self._open_way(folder)
        return self._stack[-1][1], name

    def make(self, entry: Entry, owner: tuple[int, int] | None) -> None:
        """Makes the folder of `entry` unless it exists; its mode and time are set when it is left."""
        if entry.path in self._roots:
            self._pop_to(entry.path)
            self._stack.append((entry.path, os.dup(self._roots[entry.path]), entry))
            return
        folder, name = self.parent(entry.path)
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                _remove_name(folder, name)
                os.mkdir(name, 0o700, dir_fd=folder)
        fd = os.open(name, _OPEN_FOLDER, dir_fd=folder)
        self._stack.append((entry.path, fd, entry))
        if owner is not None:
            os.fchown(fd, *owner)
        if entry.kind == "fresh":
            os.setxattr(fd, _OPAQUE, b"y")

    def close(self) -> None:
        """Closes all, setting what is left to set."""
        self._pop_to("")

    def _open_way(self, folder: str) -> None:
        parts = folder.split("/")
        if parts[0] not in self._roots:
            msg = f"{folder!r} is in none of {sorted(self._roots)}"
            raise TreeFault(msg)
        start = len(self._stack)
        for end in range(start + 1, len(parts) + 1):
            path = "/".join(parts[:end])
            above = self._stack[-1][1] if self._stack else -1
            fd = os.dup(self._roots[path]) if end == 1 else os.open(parts[end - 1], _OPEN_FOLDER, dir_fd=above)
            self._stack.append((path, fd, None))

    def _pop_to(self, folder: str) -> None:
        while self._stack and not (folder + "/").startswith(self._stack[-1][0] + "/"):
            _, fd, entry = self._stack.pop()
            if entry is not None:
                os.fchmod(fd, entry.mode & 0o7777)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            os.close(fd)


def clear(folder: int) -> None:
    """Removes everything in an open folder."""
    for name in os.listdir(folder):
        _remove_name(folder, name)


def _remove_name(folder: int, name: str) -> None:
    """Removes `name`, and all below it, if it exists."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.EISDIR, errno.EPERM}:
            raise
        _remove_folder(folder, name)


def _remove_folder(folder: int, name: str) -> None:
    """Removes a folder of any depth: climbs with `..`, because an agent may nest deeper than recursion or paths go."""
    fd = os.open(name, _OPEN_FOLDER, dir_fd=folder)
    trail = [name]
    try:
        while trail:
            os.fchmod(fd, 0o700)
            below = _empty_but_one(fd)
            if below is None:
                beyond = os.open("..", _OPEN_FOLDER, dir_fd=fd)
                os.close(fd)
                fd = beyond
                os.rmdir(trail.pop(), dir_fd=fd)
            else:
                child = os.open(below, _OPEN_FOLDER, dir_fd=fd)
                os.close(fd)
                fd = child
                trail.append(below)
    finally:
        os.close(fd)


def _empty_but_one(folder: int) -> str | None:
    """Removes names until a folder is met, which is returned."""
    for name in os.listdir(folder):
        try:
            os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in {errno.EISDIR, errno.EPERM}:
                raise
            return name  # not tried with rmdir, which walks all that the kernel has cached below
    return None


def lay_over(source: int, target: int) -> None:
    """Copies the content of one layer's folder over another's, as if the overlay had been written to.

    Marks that hide what is below are kept, because there may be more layers below.
    """
    for name in os.listdir(source):
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            _lay_folder(source, target, name, info)
        else:
            _remove_name(target, name)
            _copy_name(source, target, name, info)


def _lay_folder(source: int, target: int, name: str, info: os.stat_result) -> None:
    inner = os.open(name, _OPEN_FOLDER, dir_fd=source)
    try:
        fresh = _is_opaque(inner)
        hides = _replaces(target, name)
        if fresh or hides == "other":
            _remove_name(target, name)
        if fresh or hides != "folder":
            os.mkdir(name, 0o700, dir_fd=target)
        outer = os.open(name, _OPEN_FOLDER, dir_fd=target)
        try:
            if fresh or hides == "other":
                os.setxattr(outer, _OPAQUE, b"y")
            lay_over(inner, outer)
            os.fchown(outer, info.st_uid, info.st_gid)
            os.fchmod(outer, stat.S_IMODE(info.st_mode))
            os.utime(outer, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def _replaces(folder: int, name: str) -> str:
    """What `name` is in an open folder: `nothing`, `folder` or `other`."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return "nothing"
    return "folder" if stat.S_ISDIR(info.st_mode) else "other"


def _copy_name(source: int, target: int, name: str, info: os.stat_result) -> None:
    if stat.S_ISREG(info.st_mode):
        _copy_file(source, target, name, info)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISFIFO(info.st_mode) or (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):
        os.mknod(name, info.st_mode, 0, dir_fd=target)
    else:
        return
    os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str, info: os.stat_result) -> None:
    old = os.open(name, _OPEN_FILE, dir_fd=source)
    try:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(new, old, None, _CHUNK):
                pass
            os.fchown(new, info.st_uid, info.st_gid)
            os.fchmod(new, stat.S_IMODE(info.st_mode))
            os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(new)
    finally:
        os.close(old)
