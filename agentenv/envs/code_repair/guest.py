"""What runs inside grading sandboxes: one hidden case on a submission, or a trusted test program. Stdlib only.

With `functions.py`, `wire.py` and `entering.py` it is one program, see `interpreter.guest_argv`. It gets one request on
standard input and answers with one line of JSON that carries the request's nonce. The outside trusts neither the line
nor the values in it: it only compares them with what it knows, which is not in here.

`case` evaluates one call on the submission in the current folder, or the last of several calls.
`test` runs a test program in which the function under test is a stand-in: its answers are given, or it is the reference
itself, and every call is noted. Reference and submission answer through the same path, `Server`.
"""

import ast
import builtins
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .entering import call_as_tests_do, enter, read_request, send
from .wire import Graph, UncarriedError, encode

__all__ = ["Server", "StandIn", "names_of"]

_DRAWN = 16
_MOST_DRAWN = 4096


def names_of(error: BaseException) -> list[str]:
    """Returns what an exception is called: its class, each with its module, down to the built-in one, and its bases.

    An exception is of one kind. Of several bases that are defined outside of `builtins` the first counts, and of the
    built-in ones the first in the order of resolution.
    """
    kind: Any = type(error)
    built_in = next(k for k in kind.__mro__ if getattr(builtins, k.__name__, None) is k)
    names: list[str] = []
    while kind is not None and getattr(builtins, kind.__name__, None) is not kind:
        names.append(f"{kind.__module__}.{kind.__qualname__}")
        bases = [b for b in kind.__bases__ if issubclass(b, BaseException)]
        kind = next((b for b in bases if getattr(builtins, b.__name__, None) is not b), None)
    return names + [k.__name__ for k in built_in.__mro__[:-1]]


def run_case(request: dict[str, Any]) -> dict[str, Any]:
    """Evaluates one call on the submission in the current folder."""
    enter(request["contract"])
    names: dict[str, Any] = {"__name__": "test_visible"}
    try:
        exec(request["setup"], names)  # noqa: S102
    except BaseException as error:  # noqa: BLE001  whatever it raises is an outcome
        return {"died": f"its modules could not be imported: {names_of(error)[0]}"}
    if "script" in request:
        server = Server(names[request["function"]])
        return [call_as_tests_do(server.answer, call) for call in request["script"]][-1]
    try:
        *before, last = ast.parse(request["call"]).body
        assert isinstance(last, ast.Expr)
        first = compile(ast.Module(list(before), []), "<case>", "exec")
        value = call_as_tests_do(_evaluate, first, compile(ast.Expression(last.value), "<case>", "eval"), names)
        return {"returned": encode(value)}
    except BaseException as error:  # noqa: BLE001
        return {"raised": names_of(error)}


def _evaluate(before: Any, last: Any, names: dict[str, Any]) -> Any:
    exec(before, names)  # noqa: S102
    return eval(last, names)  # noqa: S307


class Server:
    """Answers calls of a function, and of the functions and iterators that it returned, in one process.

    Args:
        function: the function under test, or its reference.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._kept: list[Any] = []
        self._pending: dict[int, BaseException] = {}

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        """Returns what a call gave, and what it changed of its arguments, by number."""
        graph = Graph(stay=self._keep, under_test=self.function, trusts=True)
        args, kwargs = graph.decode(call["args"]), graph.decode(call["kwargs"])
        held = list(graph.objects)
        before = [graph.content(value) for value in held]
        try:
            if call["draw"]:
                outcome = {"returned": graph.encode(self._draw(call["on"][1], call["draw"]))}
            else:
                function = self._kept[call["on"][1]] if call["on"] else self.function
                outcome = {"returned": graph.encode(function(*args, **kwargs))}
        except UncarriedError as error:
            return {"died": str(error)}
        except BaseException as error:  # noqa: BLE001
            outcome = {"raised": names_of(error), "with": _told(error)}
        after = [graph.content(value) for value in held]
        changed = {str(number): after[number] for number in range(len(held)) if after[number] != before[number]}
        return {**outcome, "changed": changed}

    def _keep(self, value: Any) -> int:
        for number, kept in enumerate(self._kept):
            if kept is value:
                return number
        self._kept.append(value)
        return len(self._kept) - 1

    def _draw(self, number: int, count: int) -> tuple[list[Any], bool]:
        """Returns the next items of an iterator, and whether it ended with them."""
        if (error := self._pending.pop(number, None)) is not None:
            raise error
        items: list[Any] = []
        try:
            items.extend(itertools.islice(self._kept[number], count))  # keeps those before an exception
        except BaseException as error:
            if not items:
                raise
            self._pending[number] = error
            return items, False
        return items, len(items) < count


def _told(error: BaseException) -> Any:
    """Returns the arguments of an exception, where they are plain."""
    try:
        return Graph().encode(error.args)
    except UncarriedError:
        return {"t": [str(error)]}


class _Stopped(BaseException):
    """A call of the test program has no answer: it is not known yet, or it does not count."""


class StandIn:
    """Takes the place of the function under test; answers from a list, or with the reference, and notes the calls.

    Args:
        reference: the right function; its name and signature are taken over.
        answers: pairs of a call and its answer; the reference answers without.
        scope: where classes of exceptions are looked up.

    Attributes:
        function: what the test program calls.
        calls: pairs of a call and its answer, where there was one.
        problem: why an answer does not count; the program fails then, whatever it makes of it.
        needs: the last call has no answer yet.
    """

    def __init__(self, reference: Callable[..., Any], answers: list[Any] | None, scope: dict[str, Any]) -> None:
        self.calls: list[Any] = []
        self.problem, self.needs = "", False
        self._reference = reference
        self._answers = answers
        self._scope = scope
        self._servers: list[Server] = []
        self.function = self._stand_for(reference, None)

    def _stand_for(self, reference: Any, on: list[int] | None) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            return self._ask(on, args, kwargs)

        return functools.wraps(reference)(function) if reference is not None else function

    def _ask(self, on: list[int] | None, args: Any, kwargs: Any, draw: int = 0) -> Any:
        """Answers one call."""
        if self.problem or self.needs:  # the program has caught what stopped it
            raise _Stopped
        position = len(self.calls)
        graph = Graph(
            fetch=lambda what, number: self._fetch(what, [position, number]), under_test=self.function, sends=True
        )
        try:
            call = {"on": on, "args": graph.encode(args), "kwargs": graph.encode(kwargs), "draw": draw}
        except UncarriedError as error:
            self.problem = str(error)
            raise _Stopped from None
        outcome = self._answer(position, call)
        try:
            value = graph.decode(outcome["returned"]) if "returned" in outcome else self._exception(outcome)
            for number, content in outcome["changed"].items():
                graph.change(int(number), content)
        except Exception as error:  # noqa: BLE001
            self.problem = str(error) or type(error).__name__
            raise _Stopped from None
        if "returned" not in outcome:
            raise value
        return value

    def _answer(self, position: int, call: dict[str, Any]) -> dict[str, Any]:
        if self._answers is None:
            server: Server = self._servers[int(call["on"][0])] if call["on"] else Server(self._reference)
            self._servers.append(server)
            outcome = apart(self._servers[position].answer, call)
        elif position >= len(self._answers) or self._answers[position][0] != call:
            self.calls.append([call, None])
            self.needs = True
            raise _Stopped
        else:
            outcome = self._answers[position][1]
        self.calls.append([call, outcome])
        if "died" in outcome:
            self.problem = outcome["died"] or "it gave no answer"
            raise _Stopped
        return outcome

    def _fetch(self, what: str, on: list[int]) -> Any:
        if what == "function":
            return self._stand_for(None, on)
        drawn = self._go_over(on)
        return drawn if what == "generator" else itertools.chain(drawn)

    def _go_over(self, on: list[int]) -> Iterator[Any]:
        """Yields the items of an iterator that stayed with the function, which are drawn some at a time."""
        count, ended = _DRAWN, False
        while not ended:
            items, ended = self._ask(on, (), {}, count)
            yield from items
            count = min(2 * count, _MOST_DRAWN)

    def _exception(self, outcome: dict[str, Any]) -> BaseException:
        """Returns the exception that was raised: of the program's own class where it has one of that name."""
        names = outcome["raised"]
        built_in = next(kind for name in names if isinstance(kind := getattr(builtins, name, None), type))
        own = self._scope.get(names[0].rpartition(".")[2]) if "." in names[0] else None
        kind: Any = own if isinstance(own, type) and issubclass(own, built_in) else built_in
        return kind(*Graph().decode(outcome["with"]))


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function without moving the program's random generator, as if it ran in another process."""
    import random  # only here: cases shall start fast

    state = random.getstate()
    try:
        return function(*args)
    finally:
        random.setstate(state)


def run_test(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a test program with a stand-in for the function under test."""
    import random

    names: dict[str, Any] = {"__name__": "__test__"}
    random.seed(0)  # noqa: TID251  the generator that test programs use
    exec(request["reference"], names)  # noqa: S102
    stand_in = StandIn(names[request["function"]], request["answers"], names)
    names[request["function"]] = stand_in.function
    problem = ""
    try:
        exec(request["program"], names)  # noqa: S102
    except BaseException as error:  # noqa: BLE001
        problem = f"{type(error).__name__}: {error}"
    problem = stand_in.problem or problem
    status = "needs" if stand_in.needs else "failed" if problem else "passed"
    return {"status": status, "calls": stand_in.calls, "error": problem[:500]}


def main() -> None:
    """Reads the request, does what it asks, and answers."""
    mode = sys.argv[1]
    request, out = read_request()
    send(out, {"nonce": request["nonce"], **(run_case if mode == "case" else run_test)(request)})


if __name__ == "__main__":
    main()
