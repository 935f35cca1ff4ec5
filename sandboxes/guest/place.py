"""A place in a tree of folders that an agent made: as deep as it likes, closed to everybody, moved while it is read.

Everything is reached by descriptors of folders that were opened without following links, so no name inside can lead
outside.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from .content import TreeFault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Place", "clear", "open_file", "remove", "remove_path"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """An open folder, moved down by a name and up again. Holds one descriptor, however deep it is.

    Args:
        root: the open folder where it starts; not closed.
        force: open what its mode closes to its owner, and give it its mode back when leaving.

    Attributes:
        fd: the open folder where it is.
    """

    def __init__(self, root: int, *, force: bool = False) -> None:
        self.fd = os.dup(root)
        self._force = force
        self._way: list[tuple[tuple[int, int], int | None]] = []  # the folder above, the mode to give back

    def down(self, name: str) -> None:
        """Enters a folder.

        Raises:
            OSError: there is none of this name, or it may not be entered.
        """
        child, mode = _open(name, _FOLDER, self.fd, self._force)
        if self._force and mode is None:
            mode = _make_searchable(child)
        self._way.append((_identity(self.fd), mode))
        os.close(self.fd)
        self.fd = child

    def up(self, settle: Callable[[int], None] | None = None) -> None:
        """Leaves the folder for the one above.

        Args:
            settle: called with the folder that is left, when nothing has to be done in it any more.

        Raises:
            TreeFault: the folder is no longer where it was entered.
        """
        above = os.open("..", _FOLDER, dir_fd=self.fd)
        identity, mode = self._way.pop()
        if _identity(above) != identity:
            os.close(above)
            msg = "a folder was moved while it was read"
            raise TreeFault(msg)
        if mode is not None:
            os.fchmod(self.fd, mode)
        if settle is not None:
            settle(self.fd)
        os.close(self.fd)
        self.fd = above

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self.fd)


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _open(name: str, flags: int, folder: int, force: bool) -> tuple[int, int | None]:
    """Opens a name; returns also the mode that it had where that had to be changed."""
    try:
        return os.open(name, flags, dir_fd=folder), None
    except PermissionError:
        if not force:
            raise
    handle = os.open(name, _HANDLE, dir_fd=folder)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.chmod(f"/proc/self/fd/{handle}", mode | stat.S_IRWXU)
        return os.open(name, flags, dir_fd=folder), mode
    finally:
        os.close(handle)


def _make_searchable(folder: int) -> int | None:
    """Lets the names of an open folder be looked up; returns the mode that it had where that had to be changed."""
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & stat.S_IXUSR:
        return None
    try:
        os.stat(".", dir_fd=folder)
    except PermissionError:
        os.fchmod(folder, mode | stat.S_IRWXU)
        return mode
    return None


def open_file(folder: int, name: str, *, force: bool = False) -> int:
    """Opens a file to read it; with `force` also one whose mode closes it to its owner, which keeps that mode."""
    fd, mode = _open(name, _FILE, folder, force)
    if mode is not None:
        os.fchmod(fd, mode)
    return fd


def clear(folder: int) -> None:
    """Removes everything in an open folder."""
    for name in os.listdir(folder):
        remove(folder, name)


def remove(folder: int, name: str) -> None:
    """Removes a name, and all below it, if it exists."""
    if _unlink(folder, name):
        return
    place = Place(folder, force=True)
    trail: list[tuple[str, list[str]]] = []
    try:
        _enter(place, name, trail)
        while trail:
            inner, names = trail[-1]
            if not names:
                trail.pop()
                place.up()
                os.rmdir(inner, dir_fd=place.fd)
            elif not _unlink(place.fd, below := names.pop()):
                _enter(place, below, trail)
    finally:
        place.close()


def remove_path(path: str) -> None:
    """Removes a file or folder as far as that is possible; unlike `shutil.rmtree`, whatever its depth and modes."""
    try:
        above = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove(above, os.path.basename(path))
        finally:
            os.close(above)
    except (OSError, TreeFault):
        pass


def _enter(place: Place, name: str, trail: list[tuple[str, list[str]]]) -> None:
    place.down(name)
    os.fchmod(place.fd, stat.S_IRWXU)
    trail.append((name, os.listdir(place.fd)))


def _unlink(folder: int, name: str) -> bool:
    """Removes a name unless it is a folder, and says whether."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in {errno.EISDIR, errno.EPERM}:
            raise
        return False
    return True
