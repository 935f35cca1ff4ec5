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
import importlib
import json
import logging
import mmap
import operator
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["main"]

_EXIT_MEMORY = 3
_EXIT_RETIRED = 4
_POLL_S = 0.5
_MAX_RESULT = 2_000
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
        with channel.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self._current[index] = request["id"]
                signal.setitimer(signal.ITIMER_PROF, settings["cpu_limit_s"])
                signal.setitimer(signal.ITIMER_REAL, settings["wall_limit_s"])
                try:
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


def _load() -> dict[str, _Handler]:
    """Imports math-verify, warms it up, and returns what answers each request."""
    math_verify: Any = importlib.import_module("math_verify")

    logging.disable(logging.CRITICAL)
    handlers = {"parse": _parse, "verify": _verify, "evaluate": _evaluate}
    for gold, answer in (("72", "\\boxed{1,234}"), ("$\\frac{1}{2}$", "0.5"), ("$x=\\sqrt{2}$", "$\\{1,2\\}$")):
        math_verify.verify(math_verify.parse(gold), math_verify.parse(answer))
    gc.collect()
    gc.freeze()
    return handlers


def _parse(request: dict[str, Any]) -> dict[str, Any]:
    """Returns under `parsed` whether the text holds an expression that sympy understands."""
    return {"parsed": any(not isinstance(part, str) for part in _read(request["text"], request.get("options", {})))}


def _verify(request: dict[str, Any]) -> dict[str, Any]:
    """Returns under `right` math-verify's verdict on `answer` against `gold`.

    math-verify asks whether any of the gold's readings equals any of the answer's; comparing the texts among them
    first changes no verdict and saves most of the time.
    """
    math_verify: Any = importlib.import_module("math_verify")

    options = request.get("options", {})
    gold, answer = _read(request["gold"], options), _read(request["answer"], options)
    if request.get("value_only") and not all(_is_value(part) for part in answer if not isinstance(part, str)):
        return {"right": False}
    texts = [part.strip() for part in answer if isinstance(part, str)]
    if any(isinstance(part, str) and part.strip() and part.strip() in texts for part in gold):
        return {"right": True}
    right = math_verify.verify(
        gold,
        answer,
        float_rounding=options.get("float_rounding", 6),
        strict=options.get("strict", True),
        allow_set_relation_comp=options.get("allow_set_relation_comp", False),
        timeout_seconds=None,
    )
    return {"right": bool(right)}


def _is_value(expression: Any) -> bool:
    """Returns whether nothing is left to compute: a number, or an assignment, tuple, set or interval of numbers."""
    sympy: Any = importlib.import_module("sympy")
    if isinstance(expression, sympy.Number):
        return True
    if isinstance(expression, sympy.Eq):
        return isinstance(expression.lhs, sympy.Symbol) and _is_value(expression.rhs)
    if isinstance(expression, sympy.Interval):
        return _is_value(expression.start) and _is_value(expression.end)
    if isinstance(expression, sympy.Mul):  # a minus sign, or a percentage
        number, factor = expression.args[0], expression.args[-1]
        percent = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
        return (
            len(expression.args) == 2
            and (number == -1 or factor == percent)
            and _is_value((number, factor)[number == -1])
        )
    parts = getattr(expression, "args", ())
    return isinstance(expression, sympy.Tuple | sympy.FiniteSet | sympy.And) and all(map(_is_value, parts))


def _read(text: str, options: dict[str, Any]) -> list[Any]:
    math_verify: Any = importlib.import_module("math_verify")

    kinds = {
        "latex": math_verify.LatexExtractionConfig(boxed_match_priority=options.get("boxed_match_priority", 50)),
        "expr": math_verify.ExprExtractionConfig(),
        "string": math_verify.StringExtractionConfig(),
    }
    extraction = [kinds[kind] for kind in options.get("extraction", ("latex", "expr"))]
    return math_verify.parse(text, extraction, parsing_timeout=None)


def _evaluate(request: dict[str, Any]) -> dict[str, Any]:
    """Returns under `value` the text of an expression computed by sympy, or under `error` why there is none.

    Only listed functions and the names of constants mean anything; every other name is a symbol.
    """
    sympy: Any = importlib.import_module("sympy")
    functions = _functions(sympy)
    constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}

    def build(tree: Any) -> Any:
        if isinstance(tree, str):
            return constants.get(tree, sympy.Symbol(tree))
        name, *arguments = tree
        return functions[name](*arguments if name == "number" else map(build, arguments))

    try:
        value = build(request["tree"])
        text = str(value).replace("**", "^")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  sympy raises anything
        return {"error": f"cannot compute this: {type(error).__name__}"}
    if isinstance(value, sympy.Basic) and value.has(sympy.zoo, sympy.nan):
        return {"error": "division by zero"}
    if len(text) > _MAX_RESULT:
        return {"error": f"result too long: {len(text)} characters, at most {_MAX_RESULT}"}
    return {"value": text}


def _functions(sympy: Any) -> dict[str, Any]:
    def divide(a: Any, b: Any) -> Any:
        return a / b

    def divide_down(a: Any, b: Any) -> Any:
        return sympy.floor(a / b)

    def power(a: Any, b: Any) -> Any:
        return a**b

    def number(numerator: str, denominator: str) -> Any:
        return sympy.Rational(int(numerator), int(denominator))

    functions: dict[str, Any] = {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": divide,
        "//": divide_down,
        "%": sympy.Mod,
        "^": power,
        "!": sympy.factorial,
        "neg": operator.neg,
        "number": number,
        "abs": sympy.Abs,
        "ceil": sympy.ceiling,
        "max": sympy.Max,
        "min": sympy.Min,
    }
    plain = "binomial cos diff exp expand factor factorial floor gcd lcm log simplify sin solve sqrt tan"
    return functions | {name: getattr(sympy, name) for name in plain.split()}


if __name__ == "__main__":
    main(sys.argv[1])
