"""The connection to a guest on a remote machine: each request is one command there, or a few where it takes long."""

import base64
import contextlib
import io
import json
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from typing_extensions import override

from agentenv.errors import SandboxError, SandboxLost

from .guest.remote_init import MARK, OWN
from .guest.wire import ANY_SIZE, Closed, Late, Wire
from .remote_machines import Ran, RemoteMachine, blamed_on

__all__ = ["RemoteWire", "reply_of"]

T = TypeVar("T")

_CONNECT = f"""
import _socket, sys
home, line = sys.argv[1:]
link = _socket.socket(_socket.AF_UNIX)
answer = b""
try:
    link.connect(home + "/{OWN}/socket")
    link.sendall(line.encode() + b"\\n")
    while part := link.recv(65536):
        answer += part
except OSError:
    pass
if not answer and '"end"' in line:
    import shutil
    shutil.rmtree(home, ignore_errors=True)
print("{MARK}" + (answer.decode() or '{{"state": "gone"}}'))
"""
_INLINE = 32 << 10  # in base64 well below the 128 KiB that one argument may have, however it is quoted
_PAUSES = (0.5, 2.0)  # before it is tried again
_SLACK_S = 20.0  # for a service to pass on what took its time
_CLOSE_S = 25.0
_LONGEST_PAUSE_S = 0.25
_LONGEST_S = 86_400.0


class RemoteWire(Wire):
    """A wire over commands. What was written goes off when an answer is to be read.

    A request that failed on its way is sent again: it has a number, and the guest serves none twice.

    Args:
        machine: where the guest is.
        home: its folder there.
        most: bytes that an answer may have.

    Attributes:
        python: the interpreter there; its own path, once that is known, starts faster than a name that is looked up.
    """

    takes_fds = False

    def __init__(self, machine: RemoteMachine, home: str, most: int = ANY_SIZE) -> None:
        super().__init__(-1, -1)
        self._machine = machine
        self._service = type(machine).__name__
        self._home = home
        self._most = most
        self.python = "python3"
        self._request = bytearray()
        self._answer = io.BytesIO()
        self._number = 0

    @override
    def write(self, data: bytes) -> None:
        self._request += data

    @override
    def read_some(self, size: int, deadline: float | None) -> bytes:
        if self._request:
            request = bytes(self._request)
            self._request.clear()
            self._answer = io.BytesIO(self._exchange(request, deadline))
        return self._answer.read(size)

    def _exchange(self, request: bytes, deadline: float | None) -> bytes:
        """Has a request served; returns the answer."""
        deadline = time.monotonic() + _LONGEST_S if deadline is None else deadline
        self._number += 1
        line: dict[str, Any] = {"number": self._number}
        if len(request) <= _INLINE:
            line["data"] = base64.b64encode(request).decode()
        else:
            line["path"] = f"{self._home}/{OWN}/request"
            self._patiently(lambda left: self._machine.put(line["path"], request, left), deadline)
        pause = 0.01
        while True:
            reply = self._patiently(lambda left: self._poll(line, left), deadline)
            if reply.get("state") == "done":
                return self._content_of(reply, deadline)
            if reply.get("state") != "working":
                raise Closed(str(reply.get("message", "it has ended")))
            if time.monotonic() >= deadline:
                msg = "no answer in time"
                raise Late(msg)
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    def _poll(self, line: dict[str, Any], left_s: float) -> dict[str, Any]:
        """Hands a request over, or asks for its answer again, and waits a little for it."""
        wait_s = min(self._machine.patience_s, left_s)
        return self._tell({**line, "wait_s": wait_s}, wait_s + _SLACK_S)

    def _tell(self, line: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        argv = [self.python, "-I", "-S", "-c", _CONNECT, self._home, json.dumps(line)]
        return reply_of(self._machine.run(argv, timeout_s))

    def _content_of(self, reply: dict[str, Any], deadline: float) -> bytes:
        size = reply.get("size")
        if type(size) is not int or not 0 <= size <= self._most:
            msg = f"it sent {size!r:.80} bytes, of {self._most} that were asked for at most"
            raise Closed(msg)
        if "data" in reply:
            content = _decoded(reply["data"])
        else:
            content = self._patiently(lambda left: self._machine.get(f"{self._home}/{OWN}/answer", left), deadline)
        if len(content) != size:
            msg = f"of an answer of {size} bytes, {len(content)} came"
            raise SandboxError(msg)
        return content

    def _patiently(self, call: Callable[[float], T], deadline: float) -> T:
        """Calls the service, again where it fails, with the seconds that are left.

        Raises:
            Closed: the machine has ended.
            SandboxError: the service fails.
        """
        for pause in (*_PAUSES, None):
            try:
                with blamed_on(self._service):
                    return call(max(1.0, deadline - time.monotonic()))
            except SandboxLost as error:
                raise Closed(str(error)) from error
            except SandboxError:
                if pause is None or time.monotonic() >= deadline:
                    raise
                time.sleep(pause)
        raise AssertionError

    def renew(self, lease_s: float) -> None:
        """Has guest and machine live on."""
        with blamed_on(self._service):
            self._machine.renew(lease_s)
            self._tell({"number": 0}, _SLACK_S)

    @override
    def close(self) -> None:
        """Ends the guest and gives the machine back."""
        with contextlib.suppress(SandboxError), blamed_on(self._service):  # it ends when its lease does
            self._tell({"end": True}, _CLOSE_S)
        with contextlib.suppress(SandboxError), blamed_on(self._service):
            self._machine.delete()

    @override
    def wait(self, deadline: float | None) -> None:
        """Waits for nothing: reading does."""


def _decoded(data: object) -> bytes:
    try:
        return base64.b64decode(cast("str", data), validate=True)
    except (TypeError, ValueError) as error:
        msg = f"it sent what is no answer: {data!r:.80}"
        raise Closed(msg) from error


def reply_of(ran: Ran) -> dict[str, Any]:
    """Returns what our program told, among what else a service may have printed.

    Raises:
        SandboxError: it told nothing.
    """
    for line in reversed(ran.stdout.splitlines()):
        if line.startswith(MARK):
            try:
                reply: object = json.loads(line[len(MARK) :])
            except (ValueError, RecursionError):
                break
            if isinstance(reply, dict):
                return cast("dict[str, Any]", reply)
            break
    msg = f"the machine did not run our program, exit code {ran.exit_code}: {(ran.stderr or ran.stdout)!s:.500}"
    raise SandboxError(msg)
