"""Messages between a sandbox and its parent: a JSON head and a binary body over two file descriptors.

A message is 12 bytes (little endian: length of the head as `uint32`, length of the body as `uint64`), the head as UTF-8
JSON, the body as it is. A body whose length is `2**64 - 1` comes in pieces instead, each after its length as `uint32`;
0 ends it, and `2**32 - 1` says that the rest cannot be had, and is followed by one more piece with the reason. File
descriptors, where a head announces `fds`, follow on one extra byte of a Unix socket: `!` where they came along.

Whoever is on the other end may be hostile: whatever it sends ends in `Closed`, `Late` or `Failed`.
"""

from __future__ import annotations

import array
import errno
import json
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["ANY_SIZE", "Body", "Closed", "Failed", "Late", "Lost", "Wire", "reason_of"]

ANY_SIZE = 1 << 62
_LENGTHS = struct.Struct("<IQ")
_PIECE = struct.Struct("<I")
_STREAMED = (1 << 64) - 1
_FAILED = (1 << 32) - 1
_MAX_HEAD = 64 << 20
_MAX_FDS = 64
_CHUNK = 1 << 18
_LONGEST_S = 86_400  # `poll` takes milliseconds of 32 bits
_CROWDED_S = 5.0
_CROWDED = {errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM}  # other processes of this user have too much in flight


class Closed(Exception):
    """The other end is gone, or sends what is no message."""


class Late(Exception):
    """The other end did not answer before the deadline."""


class Lost(Exception):
    """A message came without the descriptors that belong to it; the connection is as good as before.

    Attributes:
        head: of the message.
    """

    def __init__(self, why: str, head: dict[str, Any]) -> None:
        super().__init__(why)
        self.head = head


class Failed(Exception):
    """The other end could not go on with a body that it had begun; the connection is as good as before."""


def reason_of(error: BaseException) -> str:
    """Returns what to tell the parent about an error of any type."""
    where = getattr(error, "filename", None) or type(error).__name__
    return f"{where}: {getattr(error, 'strerror', None) or error}"


def _unix(fd: int) -> socket.socket:
    """Returns a Unix socket by its descriptor, to be detached from it again: to duplicate it takes two calls more."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)


class Body:
    """The body of a message, as it comes in.

    Args:
        wire: where it comes from.
        size: bytes, or `2**64 - 1`.
        deadline: of `time.monotonic`.
        limit: bytes that it may have.

    Raises:
        Closed: it is longer than `limit`.
    """

    def __init__(self, wire: Wire, size: int, deadline: float | None, limit: int) -> None:
        self._wire = wire
        self._deadline = deadline
        self._streamed = size == _STREAMED
        self._left = 0 if self._streamed else size
        self._room = limit
        self._take_room(self._left)

    def _take_room(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            msg = "it sent more than was asked for"
            raise Closed(msg)

    def read(self, size: int) -> bytes:
        """Returns up to `size` bytes; none at the end."""
        if not self._left and self._streamed:
            self._left = self._next_piece()
        if not self._left or not size:
            return b""
        part = self._wire.read(min(size, self._left, _CHUNK), self._deadline)
        self._left -= len(part)
        return part

    def _next_piece(self) -> int:
        (size,) = _PIECE.unpack(self._wire.read(_PIECE.size, self._deadline))
        if size == _FAILED:
            self._streamed = False
            (size,) = _PIECE.unpack(self._wire.read(_PIECE.size, self._deadline))
            if size > _CHUNK:
                msg = f"a reason of {size} bytes is not ours"
                raise Closed(msg)
            raise Failed(self._wire.read(size, self._deadline).decode(errors="replace"))
        self._streamed = size > 0
        self._take_room(size)
        return size

    def all(self) -> bytes:
        """Returns all of it."""
        parts = bytearray()
        while part := self.read(_CHUNK):
            parts += part
        return bytes(parts)

    def skip(self) -> None:
        """Reads and drops what is left."""
        try:
            while self.read(_CHUNK):
                pass
        except Failed:
            pass


class Wire:
    """One end of a connection.

    Args:
        reader: file descriptor to read from.
        writer: file descriptor to write to; the same one for a socket.

    Attributes:
        patience_s: how long to try to send descriptors while this user has too many in flight.
    """

    takes_fds = True
    """Whether descriptors may come along."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self.patience_s = _CROWDED_S

    def send(self, head: dict[str, Any], body: bytes | Iterator[bytes] = b"", fds: Sequence[int] = ()) -> None:
        """Sends a message.

        Args:
            head: what it says.
            body: bytes, or pieces of which it is not known how many come.
            fds: descriptors to send along.

        Raises:
            Closed: nobody listens.
        """
        if fds:
            head = {**head, "fds": len(fds)}
        text = json.dumps(head).encode()
        try:
            size = len(body) if isinstance(body, bytes) else _STREAMED
            self.write(_LENGTHS.pack(len(text), size) + text)
            if not isinstance(body, bytes):
                self._send_pieces(body)
            elif body:
                self.write(body)
            if fds:
                self._send_fds(fds)
        except OSError as error:
            raise Closed(str(error)) from error

    def _send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Sends pieces; where making the next one fails, why."""
        source = iter(pieces)
        while True:
            try:
                piece = next(source, None)
            except Exception as error:  # noqa: BLE001  whatever it is, the other end hears why
                text = reason_of(error).encode(errors="replace")[:4096]
                self.write(_PIECE.pack(_FAILED) + _PIECE.pack(len(text)) + text)
                return
            if piece is None:
                self.write(_PIECE.pack(0))
                return
            if piece:
                self.write(_PIECE.pack(len(piece)))
                self.write(piece)

    def _send_fds(self, fds: Sequence[int]) -> None:
        """Sends descriptors; where too many of this user's are in flight for too long, a byte that says so."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        deadline = time.monotonic() + self.patience_s
        link = _unix(self.writer)
        try:
            while True:
                try:
                    link.sendmsg([b"!"], rights)
                except OSError as error:
                    if error.errno not in _CROWDED:
                        raise
                else:
                    return
                if time.monotonic() > deadline:
                    link.sendall(b"?")
                    return
                time.sleep(0.002)
        finally:
            link.detach()

    def receive(self, timeout_s: float | None = None, limit: int = ANY_SIZE) -> tuple[dict[str, Any], bytes]:
        """Waits for a message; descriptors that came with it are in its head under `fds`.

        Args:
            timeout_s: how long, for all of it.
            limit: bytes that its body may have.

        Raises:
            Closed: the other end is gone, or sent what is no message.
            Late: nothing complete came within `timeout_s`.
            Failed: the body cannot be had.
            Lost: its descriptors did not come.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        head, body = self.receive_head(deadline, limit)
        content = body.all()
        self.receive_fds(head, deadline)
        return head, content

    def receive_head(self, deadline: float | None = None, limit: int = ANY_SIZE) -> tuple[dict[str, Any], Body]:
        """Waits for the head of a message; its body and then its descriptors (`receive_fds`) have to be read next."""
        head_size, body_size = _LENGTHS.unpack(self.read(_LENGTHS.size, deadline))
        if head_size > _MAX_HEAD:
            msg = f"a head of {head_size} bytes is not ours"
            raise Closed(msg)
        try:
            head: dict[str, Any] = json.loads(self.read(head_size, deadline))
        except (ValueError, RecursionError) as error:
            msg = f"it sent what is no message: {error}"
            raise Closed(msg) from error
        count: object = head.get("fds", 0) if type(head) is dict else None
        if type(count) is not int or not 0 <= count <= (_MAX_FDS if self.takes_fds else 0):
            msg = f"it sent what is no message: {head!r:.200}"
            raise Closed(msg)
        return head, Body(self, body_size, deadline, limit)

    def pass_on(self, write: Callable[[bytes], object]) -> None:
        """Waits for a message and passes it on as it is, however long; one without descriptors.

        Raises:
            Closed: the other end is gone.
        """
        lengths = self._copy(_LENGTHS.size, write)
        head_size, body_size = _LENGTHS.unpack(lengths)
        self._copy(head_size, write)
        if body_size != _STREAMED:
            self._copy(body_size, write)
            return
        while size := _PIECE.unpack(self._copy(_PIECE.size, write))[0]:
            if size == _FAILED:
                self._copy(_PIECE.unpack(self._copy(_PIECE.size, write))[0], write)
                return
            self._copy(size, write)

    def _copy(self, size: int, write: Callable[[bytes], object]) -> bytes:
        """Passes on so many bytes; returns the last of them that were read at once."""
        part = b""
        while size:
            part = self.read(min(size, _CHUNK), None)
            write(part)
            size -= len(part)
        return part

    def receive_fds(self, head: dict[str, Any], deadline: float | None) -> None:
        """Puts the descriptors that a head announces into it."""
        if not head.get("fds"):
            return
        count = head["fds"]
        self.wait(deadline)
        room = socket.CMSG_SPACE(count * array.array("i").itemsize)
        link = _unix(self.reader)
        try:
            _, notes, _, _ = link.recvmsg(1, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        except OSError as error:
            raise Closed(str(error)) from error
        finally:
            link.detach()
        fds = array.array("i")
        for level, kind, data in notes:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) != count:
            for fd in fds:
                os.close(fd)
            msg = f"only {len(fds)} of {count} descriptors came: this user has too many in flight, or too many open"
            raise Lost(msg, head)
        head["fds"] = list(fds)

    def read(self, size: int, deadline: float | None) -> bytes:
        """Reads exactly `size` bytes before `deadline` (of `time.monotonic`)."""
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self.read_some(min(size - len(parts), _CHUNK), deadline)
            except OSError as error:
                raise Closed(str(error)) from error
            if not part:
                msg = "the other end is gone"
                raise Closed(msg)
            parts += part
        return bytes(parts)

    def read_some(self, size: int, deadline: float | None) -> bytes:
        """Reads at least one and at most `size` bytes before the deadline; none at the end."""
        self.wait(deadline)
        return os.read(self.reader, size)

    def write(self, data: bytes) -> None:
        """Writes all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.writer, view[:_CHUNK]) :]

    def close(self) -> None:
        """Hangs up."""
        os.close(self.reader)
        if self.writer != self.reader:
            os.close(self.writer)

    def wait(self, deadline: float | None) -> None:
        """Waits until there is something to read."""
        if deadline is None:
            return
        poller = select.poll()
        poller.register(self.reader, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poller.poll(min(left, _LONGEST_S) * 1000):
                return
        msg = "no answer in time"
        raise Late(msg)
