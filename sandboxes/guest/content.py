"""The content of a file as an archive stores it: the pages that are not all zeros, so that holes cost nothing.

Records follow each other: 12 bytes (little endian: offset as `uint64`, length as `uint32`), then so many bytes; a
length of 0 ends the file. A record is a longest run of pages that are not all zeros within an aligned chunk, so equal
contents are stored equally, however they came about.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TreeFault", "copy_content", "exactly", "expand", "read_content", "store", "take_stored", "write_content"]

_RECORD = struct.Struct("<QI")
_END = _RECORD.pack(0, 0)
_PAGE = 4096
_ZEROS = bytes(_PAGE)
_CHUNK = 1 << 20


class TreeFault(Exception):
    """A tree or an archive that cannot be handled; the message says why."""


def store(content: bytes) -> bytes:
    """Returns a content as an archive stores it."""
    chunks = (_records(start, content[start : start + _CHUNK]) for start in range(0, len(content), _CHUNK))
    return b"".join((*(part for records in chunks for part in records), _END))


def read_content(fd: int, size: int) -> Iterator[bytes]:
    """Yields the first `size` bytes of an open file as an archive stores them; what is missing counts as zeros."""
    start = 0
    while start < size:
        start = _next_data(fd, start, size) // _CHUNK * _CHUNK
        yield from _records(start, os.pread(fd, min(_CHUNK, size - start), start))
        start += _CHUNK
    yield _END


def _records(start: int, chunk: bytes) -> Iterator[bytes]:
    begin = -1
    for at in range(0, len(chunk), _PAGE):
        page = chunk[at : at + _PAGE]
        if page == _ZEROS or (len(page) < _PAGE and page == _ZEROS[: len(page)]):
            if begin >= 0:
                yield _RECORD.pack(start + begin, at - begin) + chunk[begin:at]
            begin = -1
        elif begin < 0:
            begin = at
    if begin >= 0:
        yield _RECORD.pack(start + begin, len(chunk) - begin) + chunk[begin:]


def _next_data(fd: int, start: int, size: int) -> int:
    """Returns where data begins at or after `start`; `size` where there is none."""
    try:
        return min(os.lseek(fd, start, os.SEEK_DATA), size)
    except OSError as error:
        return size if error.errno == errno.ENXIO else start  # a file system that does not tell


def exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """Reads exactly `size` bytes.

    Raises:
        TreeFault: there are fewer.
    """
    first = read(size)
    if len(first) == size:
        return first
    parts = bytearray(first)
    while len(parts) < size:
        part = read(size - len(parts))
        if not part:
            msg = "the archive is cut short"
            raise TreeFault(msg)
        parts += part
    return bytes(parts)


def _stored_records(read: Callable[[int], bytes], size: int) -> Iterator[tuple[int, bytes]]:
    """Yields offset and bytes of the records of one file of `size` bytes.

    Raises:
        TreeFault: they are cut short, out of order, or beyond the file's end.
    """
    end = 0
    while True:
        offset, length = _RECORD.unpack(exactly(read, _RECORD.size))
        if not length:
            return
        if offset < end or length > _CHUNK or offset + length > size:
            msg = f"not the content of a file of {size} bytes: {length} bytes at {offset}"
            raise TreeFault(msg)
        end = offset + length
        yield offset, exactly(read, length)


def take_stored(read: Callable[[int], bytes], size: int) -> bytes:
    """Returns the next stored content of an archive as it stands there."""
    records = (_RECORD.pack(offset, len(data)) + data for offset, data in _stored_records(read, size))
    return b"".join((*records, _END))


def expand(read: Callable[[int], bytes], size: int) -> bytes:
    """Returns the next stored content of an archive, its zeros included."""
    content = bytearray(size)
    for offset, data in _stored_records(read, size):
        content[offset : offset + len(data)] = data
    return bytes(content)


def write_content(read: Callable[[int], bytes], fd: int, size: int) -> None:
    """Writes the next stored content of an archive into an open empty file."""
    os.ftruncate(fd, size)
    for offset, data in _stored_records(read, size):
        done = 0
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done:], offset + done)


def copy_content(old: int, new: int, size: int) -> None:
    """Copies the first `size` bytes of an open file into an open empty one, holes as holes."""
    os.ftruncate(new, size)
    start = _next_data(old, 0, size)
    while start < size:
        end = _next_hole(old, start, size)
        os.lseek(new, start, os.SEEK_SET)
        while start < end:
            sent = os.sendfile(new, old, start, end - start)
            if not sent:
                return
            start += sent
        start = _next_data(old, start, size)


def _next_hole(fd: int, start: int, size: int) -> int:
    try:
        return min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError:
        return size
