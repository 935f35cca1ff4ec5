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
import time
from collections.abc import Callable, Iterator
from typing import Any

from .entering import call_as_tests_do, enter, read_request, send
from .functions import hints_for, is_immutable
from .wire import Graph, UncarriedError, decode, encode

__all__ = ["Server", "StandIn", "names_of"]

_DRAWN = 16
_MOST_DRAWN = 4096
_HINTS_S = 2.0


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


def run_case(request: dict[str, Any], ask: Callable[[Any], Any]) -> dict[str, Any]:
    """Evaluates one call on the submission in the current folder; `ask` asks the program, which ends this process."""
    enter(request["contract"])
    names: dict[str, Any] = {"__name__": "test_visible"}
    try:
        exec(request["setup"], names)  # noqa: S102
    except BaseException as error:  # noqa: BLE001  whatever it raises is an outcome
        return {"died": f"its modules could not be imported: {names_of(error)[0]}"}
    if "script" in request:
        server = Server(names[request["function"]])
        return [call_as_tests_do(server.answer, call, ask, given) for call, given in request["script"]][-1]
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

    def answer(self, call: dict[str, Any], ask: Callable[[Any], Any], given: Any = None) -> dict[str, Any]:
        """Returns what a call gave, what it changed of its arguments, and which functions of the program it called.

        Args:
            call: the call.
            ask: has the program call one of its functions.
            given: what the program has answered before; see `Calls`.
        """
        calls = Calls([call["args"], call["kwargs"]], ask, given)
        graph = Graph(stay=self._keep, call=calls.call, under_test=self.function, trusts=True)
        calls.graph = graph
        args, kwargs = graph.decode(call["args"]), graph.decode(call["kwargs"])
        graph.settle()

        def run() -> Any:
            if call["draw"]:
                return self._draw(call["on"][1], call["draw"])
            return (self._kept[call["on"][1]] if call["on"] else self.function)(*args, **kwargs)

        outcome = outcome_of(graph, run, calls.raised)
        return outcome if "died" in outcome else {**outcome, "called": calls.events}

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


def outcome_of(graph: Graph, function: Callable[[], Any], raised: dict[int, Any] | None = None) -> dict[str, Any]:
    """Calls a function; returns what it returned or raised, and what it changed of the objects of a graph.

    Args:
        graph: what both sides have in common.
        function: the function.
        raised: exceptions that came from the other side, with what they were there, by `id`.
    """
    try:
        outcome = {"returned": graph.encode(function())}
    except UncarriedError as error:
        return {"died": str(error)}
    except _Stopped:
        raise
    except BaseException as error:  # noqa: BLE001
        _, names = (raised or {}).get(id(error), (error, names_of(error)))
        outcome = {"raised": names, "with": _told(error)}
    return {**outcome, "changed": graph.changes()}


class Calls:
    """Calls of functions that stayed with the program, by the function under test, while one call of it lasts.

    Calls of functions that only read are answered by value, in any order; all others are events, which the program has
    happen in their order.

    Args:
        arguments: of the call, encoded.
        ask: has the program answer the last event, or the call of a function that only reads.
        given: what it has answered: `"called"`, the first events with their answers; `"read"`, calls of functions that
            only read, each after how many events, of which function, with what, and the answer.

    Attributes:
        graph: what both sides have in common.
        events: each with the number of the function, what was changed since the last one, and the arguments.
        raised: exceptions that functions raised, by `id`, with their names.
    """

    graph: Graph

    def __init__(self, arguments: Any, ask: Callable[[Any], Any], given: Any) -> None:
        self.events: list[Any] = []
        self.raised: dict[int, Any] = {}
        self._arguments, self._ask = arguments, ask
        self._called: list[Any] = given["called"] if given else []
        self._read = {repr(what): answer for *what, answer in given["read"]} if given else {}

    def call(self, number: int, parameters: list[Any], reads: bool, args: Any, kwargs: Any) -> Any:
        """Returns what a function of the program returns, or raises what it raises."""
        plain = encode(args)
        if reads and not kwargs and is_immutable(plain):
            answer = self._reading(number, parameters, plain)
            if answer is not None:
                return self._give(answer, decode)
        event = [number, self.graph.changes(), self.graph.encode(args), self.graph.encode(kwargs)]
        self.events.append(event)
        self.graph.settle()
        at = len(self.events) - 1
        known = at < len(self._called) and self._called[at][0] == event
        answer = self._called[at][1] if known else self._ask({"called": self.events, "read": None})
        try:
            return self._give(answer, self.graph.decode)
        finally:
            self.graph.change(answer["changed"])
            self.graph.settle()

    def _reading(self, number: int, parameters: list[Any], plain: Any) -> Any:
        key = repr([len(self.events), number, plain])
        if key not in self._read:
            hints = [plain, *(hint for hint in hints_for(parameters, self._arguments) if hint != plain)]
            self._read[key] = self._ask({"called": self.events, "read": [number, hints]})
        return self._read[key]

    def _give(self, answer: Any, read: Callable[[Any], Any]) -> Any:
        if "returned" in answer:
            return read(answer["returned"])
        error = exception_of(answer, {})
        self.raised[id(error)] = (error, answer["raised"])
        raise error


def exception_of(outcome: dict[str, Any], scope: dict[str, Any]) -> BaseException:
    """Returns the exception that was raised: of a class of `scope` where that has one of its name."""
    names = outcome["raised"]
    built_in = next(kind for name in names if isinstance(kind := getattr(builtins, name, None), type))
    own = scope.get(names[0].rpartition(".")[2]) if "." in names[0] else None
    kind: Any = own if isinstance(own, type) and issubclass(own, built_in) else built_in
    return kind(*Graph().decode(outcome["with"]))


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
        given: what functions of the program answered in the call that has none yet, where that was asked for.
    """

    def __init__(
        self, reference: Callable[..., Any], answers: list[Any] | None, scope: dict[str, Any], asked: Any = None
    ) -> None:
        self.calls: list[Any] = []
        self.problem, self.needs = "", False
        self.given: Any = None
        self._reference = reference
        self._answers, self._asked = answers, asked
        self._is_calling = False
        self._scope = scope
        self._servers: list[Server] = []
        self.function = self._stand_for(reference, None)

    def _stand_for(self, reference: Any, on: list[int] | None) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            return self._ask(on, args, kwargs)

        return functools.wraps(reference)(function) if reference is not None else function

    def _ask(self, on: list[int] | None, args: Any, kwargs: Any, draw: int = 0) -> Any:
        """Answers one call."""
        if self._is_calling:
            self.problem = "a function of the program, called by the function under test, cannot call that in turn"
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
        graph.settle()
        outcome = self._answer(position, call, graph)
        try:
            if self._answers is not None:
                apart(self._repeat, graph, outcome["called"])
            value = graph.decode(outcome["returned"]) if "returned" in outcome else exception_of(outcome, self._scope)
            graph.change(outcome["changed"])
        except Exception as error:  # noqa: BLE001
            self.problem = str(error) or type(error).__name__
            raise _Stopped from None
        if "returned" not in outcome:
            raise value
        return value

    def _answer(self, position: int, call: dict[str, Any], graph: Graph) -> dict[str, Any]:
        if self._answers is None:
            server: Server = self._servers[int(call["on"][0])] if call["on"] else Server(self._reference)
            self._servers.append(server)
            outcome = apart(server.answer, call, functools.partial(self._called, graph))
        elif position >= len(self._answers) or self._answers[position][0] != call:
            self.calls.append([call, None])
            self.needs = True
            if self._asked is not None:
                self.given = self._answer_asked(graph, **self._asked)
            raise _Stopped
        else:
            outcome = self._answers[position][1]
        self.calls.append([call, outcome])
        if "died" in outcome:
            self.problem = outcome["died"] or "it gave no answer"
        if self.problem:
            raise _Stopped
        return outcome

    def _called(self, graph: Graph, asked: Any) -> Any:
        """Answers the reference, which asks while it runs."""
        if asked["read"]:
            (answer,) = self._read(graph, asked["read"][0], asked["read"][1][:1])
            return answer
        (answer,) = self._repeat(graph, asked["called"][-1:])
        if "died" in answer:
            self.problem = answer["died"]
            raise _Stopped
        return answer

    def _answer_asked(self, graph: Graph, called: Any, read: Any) -> Any:
        """Returns what the functions answer that a submission has called, in the form of `Calls`."""
        try:
            answers = self._repeat(graph, called)
            if any("died" in answer for answer in answers):
                return None
            found = list(zip(called, answers, strict=True))
            if not read:
                return {"called": found, "read": []}
            number, hints = read
            results = zip(hints, self._read(graph, number, hints), strict=False)
            return {"called": found, "read": [[len(called), number, hint, answer] for hint, answer in results]}
        except Exception:  # noqa: BLE001  it asks what cannot be answered
            return None

    def _repeat(self, graph: Graph, called: Any) -> list[Any]:
        """Has functions of the program called, as the function under test did; returns their answers."""
        answers: list[Any] = []
        for number, changed, args, kwargs in called:
            graph.change(changed)
            words, named = graph.decode(args), graph.decode(kwargs)
            if type(words) is not tuple or type(named) is not dict:
                msg = f"no arguments of a call: {args!r:.80}, {kwargs!r:.80}"
                raise ValueError(msg)
            graph.settle()
            answers.append(self._guarded(graph, graph.function(number), words, named))
        return answers

    def _read(self, graph: Graph, number: int, hints: list[Any]) -> list[Any]:
        """Returns what a function that only reads answers to encoded arguments; None where that can change later."""
        answers: list[Any] = []
        began = time.monotonic()
        for hint in hints:
            if answers and time.monotonic() - began > _HINTS_S:
                break
            plain = Graph(as_tree=True)
            answer = self._guarded(plain, graph.function(number), decode(hint), {}) if graph.reads(number) else {}
            answers.append(answer if is_immutable(answer.get("returned", {"o": ""})) or "raised" in answer else None)
        return answers

    def _guarded(self, graph: Graph, function: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        """Calls a function of the program, which cannot call the function under test."""
        self._is_calling = True
        try:
            return outcome_of(graph, lambda: function(*args, **kwargs))
        finally:
            self._is_calling = False

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
    stand_in = StandIn(names[request["function"]], request["answers"], names, request.get("asked"))
    names[request["function"]] = stand_in.function
    problem = ""
    try:
        exec(request["program"], names)  # noqa: S102
    except BaseException as error:  # noqa: BLE001
        problem = f"{type(error).__name__}: {error}"
    problem = stand_in.problem or problem
    status = "needs" if stand_in.needs else "failed" if problem else "passed"
    return {"status": status, "calls": stand_in.calls, "given": stand_in.given, "error": problem[:500]}


def main() -> None:
    """Reads the request, does what it asks, and answers."""
    mode = sys.argv[1]
    request, out = read_request()
    nonce = request["nonce"]

    def ask(asked: Any) -> None:
        send(out, {"nonce": nonce, "asks": asked})

    send(out, {"nonce": nonce, **(run_case(request, ask) if mode == "case" else run_test(request))})


if __name__ == "__main__":
    main()
