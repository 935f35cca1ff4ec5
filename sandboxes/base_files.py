"""The files that a sandbox starts with, as an archive."""

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from agentenv.errors import SandboxError

from .guest.content import TreeFault, store
from .guest.trees import Entry, assemble, inside, pack, read_entries
from .layers import in_order

__all__ = ["archive_of_files", "archive_of_folder", "empty_archive"]

_FOLDERS = (Entry("tmp", "dir", 0o1777), Entry("workspace", "dir", 0o755))


def empty_archive() -> bytes:
    """Returns the archive of an empty workspace and an empty tmp."""
    return archive_of_files({})


def archive_of_files(files: Mapping[str, bytes | str]) -> bytes:
    """Returns the archive of a workspace with these files.

    Raises:
        ValueError: a path is absolute, leads outside, or is both a file and a folder.
    """
    entries = {entry.path: entry for entry in _FOLDERS}
    contents: dict[str, bytes] = {}
    for name, content in files.items():
        parts = name.split("/")
        if name.startswith("/") or any(part in {"", ".", ".."} for part in parts) or "\0" in name:
            msg = f"a path of the workspace must be relative and plain (no '.', '..'), got {name!r}"
            raise ValueError(msg)
        data = content.encode() if isinstance(content, str) else bytes(content)
        folder = "workspace"
        for depth, part in enumerate(parts[:-1], 1):
            folder = f"{inside(folder)}/{part}"
            if entries.setdefault(folder, Entry(folder, "dir", 0o755)).kind != "dir":
                _refuse_both("/".join(parts[:depth]))
        path = f"{inside(folder)}/{parts[-1]}"
        if path in entries:
            _refuse_both(name)
        entries[path] = Entry(path, "file", 0o644, 0, len(data))
        contents[path] = store(data)
    ordered = list(in_order(entries))
    return assemble(ordered, (contents[entry.path] for entry in ordered if entry.kind == "file"))


def _refuse_both(name: str) -> NoReturn:
    msg = f"{name!r} is both a file and a folder"
    raise ValueError(msg)


def archive_of_folder(path: str | os.PathLike[str]) -> bytes:
    """Returns the archive of a workspace with the content of a folder of the host.

    Raises:
        SandboxError: it is no folder, or cannot be read.
    """
    folder = Path(path)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        msg = f"SandboxSpec.base must be a folder that can be read, got {str(folder)!r}: {error.strerror}"
        raise SandboxError(msg) from error
    try:
        packed = b"".join(pack({"workspace": fd}))
    except (OSError, TreeFault) as error:
        msg = f"SandboxSpec.base {str(folder)!r} cannot be read: {error}"
        raise SandboxError(msg) from error
    finally:
        os.close(fd)
    return _with_tmp(packed)


def _with_tmp(packed: bytes) -> bytes:
    stream = io.BytesIO(packed)
    entries = read_entries(stream.read)
    entries[0] = entries[0]._replace(mode=entries[0].mode | stat.S_IRWXU)
    return assemble([_FOLDERS[0], *entries], [stream.read()])
