"""A guest on a machine that is reached by single commands: it goes on between them, and answers are fetched when ready.

`main` leaves a daemon behind, which starts the guest and listens on a Unix socket in its own folder. A command on the
machine connects, hands over one line of JSON and gets one back:

- `{"number", "data" or "path"}`: a request for the guest, in the line (base64) or in a file. Requests are numbered from
  1; one that comes again is not served again. `wait_s`: how long to wait for the answer.
- `{"number": 0}`: nothing; it shows that the owner lives.
- `{"end": true}`: end everything and remove the folder.

The answer is `{"state": "working"}`, `{"state": "gone"}` (the guest has ended) or `{"state": "done", "size"}` with
`data`; where it is large, without: then it is in the file `answer`. Nobody's line for `lease_s` means that the owner is
gone: then the daemon ends everything, too.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .place import remove_path
from .policy import Plain
from .process_init import serve
from .run import ReapedChildren
from .serve import close_on_exec
from .wire import Closed, Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MARK", "OWN", "main"]

MARK = "agentenv"
"""What the line begins with by which this program, and those that connect, tell something: services may add lines."""

OWN = "own"
"""The folder, in that of all files, with what no command may see: the socket, and requests and answers on their way."""

_INLINE = 64 << 10
_CHUNK = 1 << 18
_LONGEST_LINE = 1 << 20
_LINE_S, _END_S = 10.0, 15.0


class _Daemon:
    """Passes requests on to the guest, one at a time.

    Args:
        guest: the connection to the guest.
        home: the folder of all files.
    """

    def __init__(self, guest: socket.socket, home: str) -> None:
        self._guest = guest
        self._wire = Wire(guest.fileno(), guest.fileno())
        self._answer = f"{home}/{OWN}/answer"
        self._number = 0
        self._state = "done"
        self._changed = threading.Condition()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the answer to one line."""
        number = request.get("number", 0)
        if number == 0:
            return {"state": self._state}
        with self._changed:
            if number == self._number + 1 and self._state == "done":
                self._number = number
                self._state = "working"
                threading.Thread(target=self._serve, args=(request,), daemon=True).start()
            elif number != self._number and self._state != "gone":
                return {"state": "gone", "message": f"request {number} came after {self._number}"}
            self._changed.wait_for(lambda: self._state != "working", request.get("wait_s", 0))
            if self._state != "done":
                return {"state": self._state}
            return self._found()

    def _found(self) -> dict[str, Any]:
        size = os.path.getsize(self._answer)
        if size > _INLINE:
            return {"state": "done", "size": size}
        with open(self._answer, "rb") as file:
            return {"state": "done", "size": size, "data": base64.b64encode(file.read()).decode()}

    def _serve(self, request: Mapping[str, Any]) -> None:
        """Passes one request on, and its answer into a file."""
        try:
            if "path" in request:
                with open(request["path"], "rb") as file:
                    while part := file.read(_CHUNK):
                        self._guest.sendall(part)
                os.unlink(request["path"])
            else:
                self._guest.sendall(base64.b64decode(request["data"]))
            with open(self._answer, "wb") as file:
                self._wire.pass_on(file.write)
            state = "done"
        except (Closed, OSError, ValueError):
            state = "gone"
        with self._changed:
            self._state = state
            self._changed.notify_all()


def _listen(listener: socket.socket, daemon: _Daemon, lease_s: float) -> socket.socket | None:
    """Answers lines until one asks for the end, which is returned to be told, or nobody has come for too long."""
    listener.settimeout(lease_s)
    while True:
        try:
            link, _ = listener.accept()
        except OSError:
            return None
        link.settimeout(_LINE_S)
        try:
            request = _line_of(link)
        except (OSError, ValueError):
            link.close()
            continue
        if request.get("end"):
            return link
        threading.Thread(target=_reply, args=(link, daemon, request), daemon=True).start()


def _line_of(link: socket.socket) -> dict[str, Any]:
    with link.makefile("rb") as lines:
        return json.loads(lines.readline(_LONGEST_LINE))


def _reply(link: socket.socket, daemon: _Daemon, request: Mapping[str, Any]) -> None:
    try:
        answer = daemon.answer(request)
    except OSError as error:  # the disk is full, say
        answer = {"state": "gone", "message": reason_of(error)}
    _tell(link, answer)


def _tell(link: socket.socket, answer: Mapping[str, Any]) -> None:
    with link:
        try:
            link.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # whoever asked is gone


def main(settings: dict[str, Any]) -> None:
    """Starts a daemon with a guest and prints how the guest begins, as JSON; the daemon goes on when this ends.

    Args:
        settings: as for `ProcessPolicy`, and `home`, the folder to make, and `lease_s`.
    """
    os.mkdir(settings["home"], 0o700)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        try:
            _run(writer, settings)
        except BaseException as error:  # noqa: BLE001  whatever it is, whoever started this hears why
            os.write(writer, json.dumps({"fault": "guest", "message": reason_of(error)}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        sys.stdout.write(f"{MARK}{told.read()}\n")
        sys.stdout.flush()


def _run(told: int, settings: dict[str, Any]) -> None:
    """Is the daemon."""
    os.setsid()
    os.umask(0o022)
    os.environ.clear()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    home = settings["home"]
    os.mkdir(f"{home}/{OWN}", 0o700)
    for name in ("workspace", "tmp"):
        os.mkdir(settings[name])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{home}/{OWN}/socket")
    listener.listen(64)
    ours, theirs = socket.socketpair()
    keeper = Plain(settings)  # orphans of the guest come to this process
    guest = os.fork()
    if guest == 0:
        ours.close()
        listener.close()
        os.close(told)
        close_on_exec()
        serve(theirs.fileno(), settings)
        os._exit(0)
    theirs.close()
    ready, _ = Wire(ours.fileno(), ours.fileno()).receive()
    os.write(told, json.dumps({**ready, "python": sys.executable}).encode())
    os.close(told)
    asked = None if "fault" in ready else _listen(listener, _Daemon(ours, home), settings["lease_s"])
    listener.close()
    ours.shutdown(socket.SHUT_RDWR)
    _end(guest, keeper)
    remove_path(home)  # or else it goes with the machine
    if asked is not None:
        _tell(asked, {"state": "ended"})


def _end(guest: int, keeper: Plain) -> None:
    """Waits for the guest, which ends what it started, and then ends what is left."""
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline and os.waitpid(guest, os.WNOHANG)[0] == 0:
        time.sleep(0.005)
    keeper.kill_all(ReapedChildren(0))
