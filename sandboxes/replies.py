"""What a guest answers, checked. With `image=` any program may answer: it is no more to be trusted than a command."""

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

from agentenv.protocols import ExecResult

from .guest.content import TreeFault
from .guest.wire import Closed

__all__ = ["check_reply", "result_of", "sent_by_guest"]

_RESULT: Mapping[str, type] = {
    "exit_code": int,
    "duration_s": float,
    "timed_out": bool,
    "truncated": bool,
    "oom": bool,
    "killed": int,
    "split": int,
}
_FAULT: Mapping[str, type] = {"fault": str, "message": str}
_FIELDS: Mapping[str, Mapping[str, type]] = {
    "exec": _RESULT,
    "shell_run": {**_RESULT, "alive": bool},
    "stop": {"live": bool},
    "unpack": {"stale": bool},
    "hold": {"live": bool, "memory": int},
}


def check_reply(op: str, reply: dict[str, Any], content: bytes) -> None:
    """Checks the head of an answer to the request `op`.

    Raises:
        Closed: a field is missing or of another type.
    """
    fields = _FAULT if "fault" in reply else _FIELDS.get(op, {})
    for name, kind in fields.items():
        if type(reply.get(name)) is not kind:
            msg = f"its answer to {op!r} has {name} {reply.get(name)!r:.80}, which should be {kind.__name__}"
            raise Closed(msg)
    if "fault" in reply:
        reply["errno"] = reply["errno"] if type(reply.get("errno")) is int else None
    elif "split" in fields and not 0 <= reply["split"] <= len(content):
        msg = f"its answer to {op!r} has split {reply['split']}, and {len(content)} bytes"
        raise Closed(msg)


def result_of(reply: Mapping[str, Any], output: bytes) -> ExecResult:
    """Returns how a command ended, from an answer that was checked."""
    fields = {name: reply[name] for name in _RESULT if name != "split"}
    out, err = output[: reply["split"]], output[reply["split"] :]
    return ExecResult(stdout=out.decode(errors="replace"), stderr=err.decode(errors="replace"), **fields)


@contextlib.contextmanager
def sent_by_guest() -> Generator[None]:
    """Turns the error of what cannot be read into that of a guest that sends what is no message."""
    try:
        yield
    except (TreeFault, ValueError) as error:
        msg = f"it sent files that cannot be: {error}"
        raise Closed(msg) from error
