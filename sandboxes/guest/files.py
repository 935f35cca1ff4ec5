"""Reading and writing single files of a workspace, without ever following a name out of it.

A path is walked one name at a time from the open workspace. A link is read and its target walked in turn, so it may
point anywhere inside; one that leads outside is refused.
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["locate", "read_file", "write_file"]

_MAX_LINKS = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def locate(
    workspace: int, path: str, home: str, *, make: bool = False, owner: tuple[int, int] | None = None
) -> tuple[int, str]:
    """Returns the open folder that holds `path`, and its last name there, links resolved. The caller closes the folder.

    Args:
        workspace: the open workspace.
        path: relative to it, or absolute below `home`.
        home: the absolute path under which commands see the workspace.
        make: make missing folders on the way.
        owner: user and group of the folders made.

    Raises:
        OSError: `EXDEV` where the path leads outside; `ELOOP`, `ENOENT`, `ENOTDIR` as usual.
    """
    names = _names(path, home, path)
    folders = [os.dup(workspace)]
    links = 0
    try:
        while names:
            name = names.pop(0)
            if name == "..":
                if len(folders) == 1:
                    raise OSError(errno.EXDEV, "the path leads out of the workspace", path)
                os.close(folders.pop())
                continue
            target = _link_target(folders[-1], name)
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                names = _names(target, home, path, folders) + names
            elif names:
                folders.append(_enter(folders[-1], name, path, make, owner))
            else:
                return os.dup(folders[-1]), name
        return os.dup(folders[-1]), "."
    finally:
        for folder in folders:
            os.close(folder)


def _names(path: str, home: str, shown: str, folders: list[int] | None = None) -> list[str]:
    """Splits a path; an absolute one must lie below `home` and starts over at the workspace."""
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL", shown)
    if path.startswith("/"):
        if path != home and not path.startswith(home + "/"):
            raise OSError(errno.EXDEV, "the path leads out of the workspace", shown)
        path = path[len(home) :]
        for folder in (folders or [])[1:]:
            os.close(folder)
        if folders is not None:
            del folders[1:]
    return [name for name in path.split("/") if name not in {"", "."}]


def _link_target(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def _enter(folder: int, name: str, path: str, make: bool, owner: tuple[int, int] | None) -> int:
    if make:
        try:
            os.mkdir(name, 0o755, dir_fd=folder)
            if owner is not None:
                os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            pass
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error


def read_file(workspace: int, path: str, home: str, limit: int) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: it is missing, no regular file, outside, or longer than `limit` bytes (`EFBIG`).
    """
    folder, name = locate(workspace, path, home)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = _open(name, flags, folder, path)
    finally:
        os.close(folder)
    try:
        info = os.fstat(fd)
        _require_regular(info, path)
        if info.st_size > limit:
            raise OSError(errno.EFBIG, f"the file has {info.st_size} bytes, more than the limit of {limit}", path)
        return _read_all(fd, limit)
    finally:
        os.close(fd)


def _read_all(fd: int, limit: int) -> bytes:
    parts = bytearray()
    while len(parts) <= limit:
        part = os.read(fd, 1 << 20)
        if not part:
            break
        parts += part
    return bytes(parts[:limit])


def write_file(
    workspace: int, path: str, home: str, content: bytes, mode: int | None, owner: tuple[int, int] | None
) -> None:
    """Writes a regular file, making missing folders; a file that exists keeps its mode unless one is given.

    Where there is no room, a file that exists keeps its content, and a new one is removed again.

    Raises:
        OSError: it is no regular file, or outside, or there is no room.
    """
    folder, name = locate(workspace, path, home, make=True, owner=owner)
    try:
        fd, is_new = _open_to_write(name, folder, path)
        try:
            _fill(fd, content, path)
            if mode is not None:
                os.fchmod(fd, mode)
            if owner is not None:
                os.fchown(fd, *owner)
        except OSError:
            if is_new:
                os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(folder)


def _open_to_write(name: str, folder: int, path: str) -> tuple[int, bool]:
    """Opens a file, and says whether it was made."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_CREAT
    try:
        return _open(name, flags | os.O_EXCL, folder, path), True
    except FileExistsError:
        return _open(name, flags, folder, path), False


def _fill(fd: int, content: bytes, path: str) -> None:
    """Replaces the content of a file, after finding room for all of it."""
    info = os.fstat(fd)
    _require_regular(info, path)
    try:
        if content:
            _reserve(fd, len(content))
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        os.ftruncate(fd, info.st_size)
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    os.ftruncate(fd, len(content))


def _reserve(fd: int, size: int) -> None:
    """Takes the room that a file needs, where that can be done."""
    try:
        os.posix_fallocate(fd, 0, size)
    except (AttributeError, OSError) as error:  # not on every system, not in every file system
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise


def _open(name: str, flags: int, folder: int, path: str) -> int:
    try:
        return os.open(name, flags, 0o644, dir_fd=folder)
    except OSError as error:
        code = error.errno or 0
        if code == errno.ENXIO:  # a FIFO without a reader, or a socket
            raise OSError(errno.EINVAL, "not a regular file", path) from error
        raise OSError(code, os.strerror(code), path) from error


def _require_regular(info: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
