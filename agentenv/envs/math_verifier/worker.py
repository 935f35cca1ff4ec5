"""The program that math-verify and sympy run in: a keeper process, and workers that it forks.

`WorkerPool` starts it as `python worker.py SETTINGS`. The keeper imports math-verify once, forks one worker per
socket, and forks another as soon as one dies, which takes milliseconds instead of the import's third of a second. A
worker reads one JSON request per line from its socket and answers with one line. Before each request it sets two timers
of the kernel's, of processor time (`SIGPROF`) and of wall-clock time (`SIGALRM`), both with the default action: nothing
that sympy does can delay them. What a worker died of, and over which request, the keeper writes to the socket in its
place.

Nobody survives the caller: the keeper watches its parent and takes the workers with it, and a worker dies with the
keeper. This file imports nothing of the package, so that the keeper stays small.
"""

import ctypes
import gc
import importlib.util
import json
import logging
import mmap
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]

_EXIT_MEMORY = 3
_EXIT_RETIRED = 4
_POLL_S = 0.5
_MAX_RESULT = 2_000
_NONE_YET = 1 << 63  # the id of no request
_PR_SET_PDEATHSIG = 1

_Handler = Callable[[dict[str, Any]], dict[str, Any]]


def main(arguments: str) -> None:
    """Runs the keeper until its parent is gone or it is terminated.

    Args:
        arguments: JSON of `parent` (process id), `sockets` (file descriptors), `sys_path`, `cpu_limit_s`,
            `wall_limit_s` and `memory_bytes`.
    """
    settings = json.loads(arguments)
    channels = [socket.socket(fileno=number) for number in settings["sockets"]]
    sys.path += [path for path in settings["sys_path"] if path not in sys.path]
    try:
        handlers = _load()
    except Exception as error:  # noqa: BLE001  whatever it is, the parent must read it
        for channel in channels:
            _send(channel, {"fatal": f"{type(error).__name__}: {error}"})
        return
    _Keeper(channels, settings, handlers).run()


class _Keeper:
    """Keeps one worker alive per socket."""

    def __init__(self, channels: list[socket.socket], settings: dict[str, Any], handlers: dict[str, _Handler]) -> None:
        self._settings = settings
        self._handlers = handlers
        self._channels = channels
        self._workers: dict[int, int] = {}  # process id -> index of its channel
        self._current = _Current(len(channels))
        self._process_id = os.getpid()
        self._terminated = False
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._wake_up)
        signal.signal(signal.SIGTERM, self._terminate)

    def run(self) -> None:
        for index in range(len(self._channels)):
            self._fork(index)
        while self._workers and not self._terminated and os.getppid() == self._settings["parent"]:
            if select.select([self._wake], [], [], _POLL_S)[0]:
                os.read(self._wake, 4096)
            self._reap()
        for worker in self._workers:
            os.kill(worker, signal.SIGKILL)

    def _wake_up(self, *_: object) -> None:
        """Does nothing: the wake-up file descriptor does."""

    def _terminate(self, *_: object) -> None:
        self._terminated = True

    def _fork(self, index: int) -> None:
        self._current[index] = 0
        worker = os.fork()
        if worker:
            self._workers[worker] = index
            return
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            for other, channel in enumerate(self._channels):
                if other != index:
                    channel.close()
            self._work(index)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while self._workers:
            worker, status = os.waitpid(-1, os.WNOHANG)
            if not worker:
                return
            index = self._workers.pop(worker)
            code = os.waitstatus_to_exitcode(status)
            if code == 0:  # the parent closed the socket
                continue
            if code == 1 and not self._current[index]:  # it never got to work, and nor would the next one
                _send(self._channels[index], {"fatal": "a worker cannot start within the limits"})
                continue
            if code != _EXIT_RETIRED:
                cause = signal.Signals(-code).name if code < 0 else "memory" if code == _EXIT_MEMORY else f"exit {code}"
                try:
                    _send(self._channels[index], {"died": cause, "id": self._current[index]})
                except OSError:
                    continue
            self._fork(index)

    def _work(self, index: int) -> None:
        """Answers requests until the other side closes the socket; never returns."""
        settings, channel = self._settings, self._channels[index]
        _limit(settings["memory_bytes"], self._process_id)
        retire_at = _address_space() + settings["memory_bytes"] // 4
        self._current[index] = _NONE_YET
        with channel.makefile("rb") as lines:
            for line in lines:
                try:
                    request = json.loads(line)
                    self._current[index] = request["id"]
                    signal.setitimer(signal.ITIMER_PROF, settings["cpu_limit_s"])
                    signal.setitimer(signal.ITIMER_REAL, settings["wall_limit_s"])
                    reply = self._handlers[request["op"]](request)
                except MemoryError:
                    os._exit(_EXIT_MEMORY)
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
                _send(channel, {"id": request["id"], **reply})
                if _address_space() > retire_at:  # what a hostile answer left behind must not starve an honest one
                    os._exit(_EXIT_RETIRED)
        os._exit(0)


class _Current:
    """The id of the request that each worker is at, or was at last; in memory shared by the keeper and its workers."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 8 * count)

    def __getitem__(self, index: int) -> int:
        return int.from_bytes(self._memory[8 * index : 8 * index + 8], "little")

    def __setitem__(self, index: int, value: int) -> None:
        self._memory[8 * index : 8 * index + 8] = value.to_bytes(8, "little")


def _limit(memory_bytes: int, keeper: int) -> None:
    """Bounds a worker's memory, forbids it to write files, and ties its life to the keeper's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        memory = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if os.getppid() != keeper:
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


def _address_space() -> int:
    """Returns the bytes of this process's address space; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  pathlib costs more than the rest
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


class _Algebra:
    """Answers requests with sympy; what sympy raises is an answer too, but for a lack of memory."""

    def __init__(self) -> None:
        self._comparison = _sibling("comparison")
        self._symbolic = _sibling("symbolic")
        self._equal = self._symbolic.Algebra(self._comparison).equal

    def parse(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns under `parsed` whether sympy can make everything in a reading."""
        try:
            for leaf in self._comparison.leaves(request["reading"]):
                if leaf[0] in {"tree", "latex"}:
                    self._symbolic.build(leaf)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  the parser and sympy raise anything
            return {"parsed": False, "reason": type(error).__name__}
        return {"parsed": True}

    def verify(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns under `right` whether the reading `answer` says the same as the reading `gold`."""
        try:
            return {"right": bool(self._comparison.same(request["gold"], request["answer"], self._equal))}
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  an answer that sympy cannot make
            return {"right": False}

    def evaluate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns under `value` the text of an expression computed by sympy, or under `error` why there is none."""
        try:
            text = self._symbolic.show_result(self._symbolic.compute(request["tree"]))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  sympy raises anything
            return {"error": f"cannot compute this: {type(error).__name__}"}
        if text is None:
            return {"error": "division by zero"}
        if len(text) > _MAX_RESULT:
            return {"error": f"result too long: {len(text)} characters, at most {_MAX_RESULT}"}
        return {"value": text}


def _load() -> dict[str, _Handler]:
    """Imports sympy and math-verify's parser, warms them up, and returns what answers each request."""
    importlib.import_module("latex2sympy2_extended.latex2sympy2")
    logging.disable(logging.CRITICAL)
    algebra = _Algebra()
    for gold, answer in ((r"\sqrt{2}", "2^{1/2}"), ("x+1", r"\frac{1}{2}"), (r"\{1, 2\}", "[0,1)")):
        algebra.verify({"gold": ["latex", gold], "answer": ["latex", answer]})
    gc.collect()
    gc.freeze()
    return {"parse": algebra.parse, "verify": algebra.verify, "evaluate": algebra.evaluate}


def _sibling(name: str) -> Any:
    """Loads a file beside this one, without the package around it."""
    spec = importlib.util.spec_from_file_location(f"_worker_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1])
