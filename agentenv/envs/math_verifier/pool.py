"""`WorkerPool`: requests to worker processes, under hard limits of time and memory.

It may be used from any thread. It starts with the first request. A process forked from this one starts its own.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, Self

from agentenv.control import with_control
from agentenv.errors import AgentFault, VerifierError

__all__ = ["RequestError", "WorkerPool"]

_PROGRAM = Path(__file__).with_name("worker.py")
_START_S = 60.0
_GRACE_S = 3.0
_MOST_SENT = 8
"""How often a request is sent to the same socket, where workers die that had not noted it."""
_TOO_EXPENSIVE = {"SIGPROF": "processor time", "memory": "memory"}
_CONTROL = {"op": "verify", "gold": ["latex", "x+1"], "answer": ["latex", "1+x"]}
"""A request that every healthy worker answers."""
_started: "weakref.WeakSet[WorkerPool]" = weakref.WeakSet()
_fork_hook = threading.Event()


class RequestError(Exception):
    """A request needs more than the limits allow, or crashes sympy: the fault is in the request, not in the pool."""


class _FailedTwice(Exception):
    """A request failed in two workers; the message says how the last one ended."""


class WorkerPool:
    """Worker processes that run math-verify and sympy, one request at a time each.

    A worker that overruns a limit is killed by the kernel and replaced within milliseconds. Processor time, not time on
    the clock, decides whether a request is too expensive, so that a busy machine changes no verdict.

    Args:
        workers: how many; by default one per core, at most 4.
        cpu_limit_s: seconds of processor time for one request.
        wall_limit_s: seconds on the clock for one request; more means that the machine is stuck.
        memory_bytes: address space of a worker.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        cpu_limit_s: float = 5.0,
        wall_limit_s: float = 60.0,
        memory_bytes: int = 1 << 30,
    ) -> None:
        workers = min(4, os.cpu_count() or 1) if workers is None else workers
        for name, value in (
            ("workers", workers),
            ("cpu_limit_s", cpu_limit_s),
            ("wall_limit_s", wall_limit_s),
            ("memory_bytes", memory_bytes),
        ):
            if value <= 0:
                msg = f"{name} must be positive, got {value}"
                raise ValueError(msg)
        self.workers = workers
        self.cpu_limit_s = cpu_limit_s
        self.wall_limit_s = wall_limit_s
        self.memory_bytes = memory_bytes
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._channels: list[_Channel] = []
        self._idle: list[_Channel] = []
        self._finalizer: Any = None
        self._requests = 0

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one request to a worker and returns its answer; waits for a free worker.

        A request that fails twice for a reason that need not be its own is tried again after another that is known to
        be good, in fresh processes: who fails alone is to blame.

        Raises:
            RequestError: the request took more processor time or memory than allowed, or fails where another does not.
            VerifierError: the workers cannot be started, or fail with any request.
        """
        try:
            return with_control(lambda: self._call(request), self._check, errors=_FailedTwice)
        except AgentFault as fault:
            msg = f"it breaks the worker ({fault}), and another request does not"
            raise RequestError(msg) from None
        except _FailedTwice as error:
            msg = f"the verifier's worker failed twice, last by {error}; a known good request then failed, too"
            raise VerifierError(msg) from None

    def _check(self) -> None:
        """Sends a request that is known to be good to fresh processes."""
        self.close()
        try:
            self._call(_CONTROL)
        except RequestError as error:
            raise _FailedTwice(str(error)) from None

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request, and once more where the first worker fails."""
        cause = ""
        for _ in range(2):
            channel = self._take()
            try:
                reply = channel.ask(request, self.wall_limit_s)
            except (OSError, ValueError) as error:
                cause = str(error) or type(error).__name__
                self._discard(channel)
                continue
            except BaseException:
                self._discard(channel)  # interrupted: its answer must not reach the next request
                raise
            self._give_back(channel)
            if "fatal" in reply:
                self.close()
                msg = f"the verifier's processes cannot start: {reply['fatal']}"
                raise VerifierError(msg)
            if "died" not in reply:
                return reply
            cause = reply["died"]
            if cause in _TOO_EXPENSIVE:
                msg = f"more {_TOO_EXPENSIVE[cause]} than allowed"
                raise RequestError(msg)
        raise _FailedTwice(cause)

    def close(self) -> None:
        """Ends the processes. The next request starts new ones."""
        with self._changed:
            finalizer, self._finalizer = self._finalizer, None
            self._keeper, self._channels, self._idle = None, [], []
            self._changed.notify_all()
        if finalizer is not None:
            finalizer()

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_pool, (self.workers, self.cpu_limit_s, self.wall_limit_s, self.memory_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process_id(self) -> int | None:
        """Process id of the keeper, the workers' parent; `None` while nothing runs."""
        return None if self._keeper is None else self._keeper.pid

    def _take(self) -> "_Channel":
        with self._changed:
            while True:
                if self._keeper is None:
                    self._start()
                if self._idle:
                    return self._idle.pop()
                self._changed.wait()

    def _give_back(self, channel: "_Channel") -> None:
        with self._changed:
            if channel in self._channels:
                self._idle.append(channel)
                self._changed.notify()

    def _discard(self, channel: "_Channel") -> None:
        """Restarts everything, unless another thread did so since the channel was taken."""
        with self._changed:
            current = channel in self._channels
        if current:
            self.close()

    def _start(self) -> None:
        if not sys.executable:
            msg = "the verifier needs sys.executable to start its processes, and it is empty"
            raise VerifierError(msg)
        pairs = [socket.socketpair() for _ in range(self.workers)]
        theirs = [pair[1] for pair in pairs]
        numbers = [end.fileno() for end in theirs]
        settings = {
            "parent": os.getpid(),
            "sockets": numbers,
            "sys_path": [path for path in sys.path if path],
            "cpu_limit_s": self.cpu_limit_s,
            "wall_limit_s": self.wall_limit_s,
            "memory_bytes": self.memory_bytes,
        }
        try:
            self._keeper = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-P", str(_PROGRAM), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=numbers,
                start_new_session=True,
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
        except OSError as error:
            for pair in pairs:
                pair[0].close()
            msg = f"the verifier's processes cannot start: {error}"
            raise VerifierError(msg) from error
        finally:
            for end in theirs:
                end.close()
        self._channels = [_Channel(pair[0]) for pair in pairs]
        self._idle = list(self._channels)
        self._finalizer = weakref.finalize(self, _stop, self._keeper, [pair[0] for pair in pairs])
        _started.add(self)
        if not _fork_hook.is_set():
            _fork_hook.set()
            os.register_at_fork(after_in_child=_forget)

    def forget(self) -> None:
        """Drops, in a forked child, what belongs to the parent. Called by itself after a fork."""
        if self._finalizer is not None:
            self._finalizer.detach()
        for channel in self._channels:
            channel.close()
        if self._keeper is not None:
            self._keeper.returncode = 0  # not ours to wait for
        self._reset()


class _Channel:
    """One end of a worker's socket; used by one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = b""
        self._last = 0

    def ask(self, request: dict[str, Any], wall_limit_s: float) -> dict[str, Any]:
        """Sends a request and returns the answer to it, or what became of the worker.

        Raises:
            OSError: nobody is there, or nobody answers although the worker should have been killed by now.
        """
        self._end.settimeout(wall_limit_s + (_GRACE_S if self._last else _START_S))
        self._last += 1
        line = json.dumps({"id": self._last, **request}).encode() + b"\n"
        reply: dict[str, Any] = {}
        for _ in range(_MOST_SENT):
            self._end.sendall(line)
            reply = self._next()
            while reply.get("id", self._last) != self._last and "died" not in reply:
                reply = self._next()  # an answer to an earlier request
            if reply.get("id", self._last) == self._last:
                break
            # It died idle, over an earlier request, or with this one in its hands and not noted yet: asked once more,
            # and what is answered twice is skipped here later.
        return reply

    def _next(self) -> dict[str, Any]:
        return json.loads(self._line())

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            received = self._end.recv(65536)
            if not received:
                msg = "the verifier's processes are gone"
                raise ConnectionError(msg)
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def close(self) -> None:
        self._end.close()


def _make_pool(workers: int, cpu_limit_s: float, wall_limit_s: float, memory_bytes: int) -> WorkerPool:
    return WorkerPool(workers=workers, cpu_limit_s=cpu_limit_s, wall_limit_s=wall_limit_s, memory_bytes=memory_bytes)


def _stop(keeper: "subprocess.Popen[bytes]", ends: list[socket.socket]) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        end.close()
    keeper.terminate()
    try:
        keeper.wait(1.0)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


def _forget() -> None:
    for pool in list(_started):
        pool.forget()
