"""Layers of an overlay, laid over each other without the kernel."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from .aside import Aside
from .content import copy_content
from .place import Place, open_file, remove
from .trees import OPAQUE, is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lay_over"]


def lay_over(source: int, target: int) -> None:
    """Copies the content of one layer's folder over another's, as if the overlay had been written to.

    Marks that hide what is below are kept, because there may be more layers below.
    """
    old, new, aside = Place(source), Place(target), Aside(target)
    todo: list[tuple[os.stat_result, list[str]]] = [(os.fstat(source), os.listdir(source))]
    try:
        while todo:
            info, names = todo[-1]
            if not names:
                todo.pop()
                if todo:
                    old.up()
                    new.up(_settling(info))
                continue
            name = names.pop()
            info = os.stat(name, dir_fd=old.fd, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                _lay_folder(old, new, name)
                todo.append((info, os.listdir(old.fd)))
            else:
                remove(new.fd, name)
                _copy_name(old.fd, new.fd, name, info, aside)
        aside.clear()
    finally:
        old.close()
        new.close()


def _lay_folder(old: Place, new: Place, name: str) -> None:
    """Goes into a folder of a layer, and into its like in the other, which is made where it is missing."""
    hides = _replaces(new.fd, name)
    old.down(name)
    fresh = is_opaque(old.fd)
    if fresh or hides == "other":
        remove(new.fd, name)
    if fresh or hides != "folder":
        os.mkdir(name, 0o700, dir_fd=new.fd)
    new.down(name)
    if fresh or hides == "other":
        os.setxattr(new.fd, OPAQUE, b"y")


def _replaces(folder: int, name: str) -> str:
    """What `name` is in an open folder: `nothing`, `folder` or `other`."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return "nothing"
    return "folder" if stat.S_ISDIR(info.st_mode) else "other"


def _settling(info: os.stat_result) -> Callable[[int], None]:
    """Returns what gives an open file or folder the owner, mode and times of another."""

    def settle(fd: int) -> None:
        os.fchown(fd, info.st_uid, info.st_gid)
        os.fchmod(fd, stat.S_IMODE(info.st_mode))
        os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))

    return settle


def _copy_name(source: int, target: int, name: str, info: os.stat_result, aside: Aside) -> None:
    if stat.S_ISREG(info.st_mode):
        identity = (info.st_dev, info.st_ino)
        if aside.has(identity):
            aside.give(identity, target, name)
        else:
            _copy_file(source, target, name, info)
            aside.put(identity, target, name, info.st_nlink - 1)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISFIFO(info.st_mode) or is_whiteout(info):
        os.mknod(name, info.st_mode, 0, dir_fd=target)
    else:
        return
    os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str, info: os.stat_result) -> None:
    old = open_file(source, name)
    try:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            copy_content(old, new, info.st_size)
            _settling(info)(new)
        finally:
            os.close(new)
    finally:
        os.close(old)
