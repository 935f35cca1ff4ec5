"""Files that are there whole or not at all, also where the disk is full, and what to do then."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["append_line", "replace_file", "say_remedy", "whole_file"]

_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or have the quota raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "name another folder: this file system cannot be written to",
    errno.EACCES: "name another folder, or get the right to write there",
    errno.EPERM: "name another folder, or get the right to write there",
}

_LEFT = "and nothing half-written is left"


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Gives a name to write to, and renames what is written there to `path`; where something breaks, nothing is left.

    Args:
        path: of the file; one that is there stays until it is replaced, and a link leads to the one that is.

    Raises:
        OSError: it could not be written; the message says what to do.
    """
    real = path.resolve()
    part = real.with_name(f".{real.name}.{os.getpid()}.part")
    try:
        with say_remedy(path):
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(real)
    finally:
        with suppress(OSError):
            part.unlink()


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a whole file or, where something breaks, none of it; half a surrogate pair becomes its escape, as in JSON.

    Raises:
        OSError: it could not be written; the message says what to do.
    """
    with whole_file(path) as part:
        part.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file, or nothing.

    Raises:
        OSError: it could not be written; the message says what to do.
    """
    with say_remedy(path), path.open("ab", buffering=0) as file:
        before, data = file.tell(), memoryview(f"{line}\n".encode("utf-8", "backslashreplace"))
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


@contextmanager
def say_remedy(path: Path) -> Generator[None]:
    """Adds to what the operating system says what to do about it."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None or _LEFT in str(error):  # it is said already
            raise
        said = f"{os.strerror(error.errno or 0)}, {_LEFT}: {remedy}, then do it again"
        raise type(error)(error.errno, said, str(path)) from error
