"""Messages between a sandbox and its parent: a JSON head and a binary body over two file descriptors.

A message is 12 bytes (little endian: length of the head as `uint32`, length of the body as `uint64`), the head as UTF-8
JSON, the body as it is. File descriptors, where a head announces `fds`, follow on one extra byte of a Unix socket.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Closed", "Late", "Wire", "reason_of"]

_LENGTHS = struct.Struct("<IQ")
_MAX_HEAD = 64 << 20
_CHUNK = 1 << 18
_LONGEST_S = 86_400  # `poll` takes milliseconds of 32 bits


class Closed(Exception):
    """The other end is gone."""


class Late(Exception):
    """The other end did not answer before the deadline."""


def reason_of(error: BaseException) -> str:
    """Returns what to tell the parent about an error of any type."""
    where = getattr(error, "filename", None) or type(error).__name__
    return f"{where}: {getattr(error, 'strerror', None) or error}"


class Wire:
    """One end of a connection.

    Args:
        reader: file descriptor to read from.
        writer: file descriptor to write to; the same one for a socket.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, head: dict[str, Any], body: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Sends a message.

        Raises:
            Closed: nobody listens.
        """
        if fds:
            head = {**head, "fds": len(fds)}
        text = json.dumps(head).encode()
        try:
            self.write(_LENGTHS.pack(len(text), len(body)) + text)
            if body:
                self.write(body)
            if fds:
                with socket.socket(fileno=os.dup(self.writer)) as link:
                    rights = array.array("i", fds)
                    link.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> tuple[dict[str, Any], bytes]:
        """Waits for a message; descriptors that came with it are in its head under `fds`.

        Raises:
            Closed: the other end is gone.
            Late: nothing complete came within `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        head_size, body_size = _LENGTHS.unpack(self.read(_LENGTHS.size, deadline))
        if head_size > _MAX_HEAD:
            msg = f"a head of {head_size} bytes is not ours"
            raise Closed(msg)
        head = json.loads(self.read(head_size, deadline))
        body = self.read(body_size, deadline) if body_size else b""
        if head.get("fds"):
            head["fds"] = self._receive_fds(head["fds"], deadline)
        return head, body

    def _receive_fds(self, count: int, deadline: float | None) -> list[int]:
        self.wait(deadline)
        with socket.socket(fileno=os.dup(self.reader)) as link:
            room = socket.CMSG_SPACE(count * array.array("i").itemsize)
            _, notes, _, _ = link.recvmsg(1, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        fds = array.array("i")
        for level, kind, data in notes:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) != count:
            msg = f"expected {count} descriptors, got {len(fds)}"
            raise Closed(msg)
        return list(fds)

    def read(self, size: int, deadline: float | None) -> bytes:
        """Reads exactly `size` bytes before `deadline` (of `time.monotonic`)."""
        parts = bytearray()
        while len(parts) < size:
            self.wait(deadline)
            try:
                part = self.read_some(min(size - len(parts), _CHUNK))
            except OSError as error:
                raise Closed(str(error)) from error
            if not part:
                msg = "the other end is gone"
                raise Closed(msg)
            parts += part
        return bytes(parts)

    def read_some(self, size: int) -> bytes:
        """Reads at least one and at most `size` bytes; none at the end."""
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
