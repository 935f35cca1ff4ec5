"""What helpers do all day: answer their parent's requests until it is gone."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any

from .wire import Closed, Lost, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["answer_parent"]


def answer_parent(
    wire: Wire, parent: int, answer: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes, list[int]]]
) -> None:
    """Answers requests until the parent is gone.

    Args:
        wire: to it.
        parent: the descriptor of its process.
        answer: given a request's head and body, returns those of the answer and the descriptors to send, which are
            closed afterwards; those that came are closed by it.
    """
    poller = select.poll()
    poller.register(wire.reader, select.POLLIN)
    poller.register(parent, select.POLLIN)
    while parent not in dict(poller.poll()):
        try:
            reply, body, fds = answer(*wire.receive())
        except Closed:
            return
        except Lost as error:
            reply, body, fds = {"fault": "lost", "message": str(error)}, b"", []
        try:
            wire.send(reply, body, fds)
        except Closed:
            return
        for fd in fds:
            os.close(fd)
