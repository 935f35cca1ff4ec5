"""What runs inside grading sandboxes: one hidden case on a submission, or a trusted test program. Stdlib only.

This file is read as text and run with `python3 -I -B -c` (and `-S`, where nothing but the standard library is needed).
It gets one request on standard input and answers with one line of JSON that carries the request's nonce. The outside
trusts neither the line nor the values in it: it only compares them with what it knows, which is not in here.

`python3 ... case` evaluates one call on the submission in the current folder.
`python3 ... test` runs a test program in which the function under test is a stand-in: its answers are given, or it is
the reference itself, and every call is noted.
"""

import ast
import json
import os
import sys
from typing import Any, cast

__all__ = ["decode", "encode"]

_DEPTH = 60
_PLAIN_INT = 1 << 53


def encode(value: Any, depth: int = 0) -> Any:
    """Returns `value` as JSON that keeps the exact type of everything: `1`, `1.0`, `True`, `[1]` and `(1,)` differ.

    Only plain built-in values are kept; an instance of anything else (a subclass of `int` too) becomes its type's name
    under `"o"`, which equals nothing. Sets and dictionaries come out sorted.
    """
    kind = cast("type[Any]", type(value))
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -_PLAIN_INT < value < _PLAIN_INT else {"i": hex(value)}
    if kind is float:
        return {"f": value.hex()}
    if kind is complex:
        return {"c": [value.real.hex(), value.imag.hex()]}
    if kind is bytes or kind is bytearray:
        return {"b" if kind is bytes else "y": value.hex()}
    if depth < _DEPTH:
        if kind in (list, tuple):
            return {"l" if kind is list else "t": [encode(item, depth + 1) for item in value]}
        if kind in (set, frozenset):
            return {"s" if kind is set else "z": sorted((encode(item, depth + 1) for item in value), key=json.dumps)}
        if kind is dict:
            pairs = [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items()]
            return {"d": sorted(pairs, key=json.dumps)}
    return {"o": f"{kind.__module__}.{kind.__qualname__}"}


def decode(data: Any) -> Any:
    """Returns the value that `encode` turned into `data`.

    Raises:
        ValueError: it is the encoding of no plain value.
    """
    if data is None or isinstance(data, bool | str | int):
        return data
    ((tag, content),) = data.items()
    readers: dict[str, Any] = {
        "i": lambda: int(content, 16),
        "f": lambda: float.fromhex(content),
        "c": lambda: complex(float.fromhex(content[0]), float.fromhex(content[1])),
        "b": lambda: bytes.fromhex(content),
        "y": lambda: bytearray.fromhex(content),
        "l": lambda: [decode(item) for item in content],
        "t": lambda: tuple(decode(item) for item in content),
        "s": lambda: {decode(item) for item in content},
        "z": lambda: frozenset(decode(item) for item in content),
        "d": lambda: {decode(key): decode(item) for key, item in content},
    }
    if tag not in readers:
        msg = f"not the encoding of a plain value: {tag!r}"
        raise ValueError(msg)
    return readers[tag]()


def names_of(error: BaseException) -> list[str]:
    """Returns the names of the exception's class and its bases, with their modules where these are not built in."""
    kinds = type(error).__mro__[:-1]
    return [k.__qualname__ if k.__module__ == "builtins" else f"{k.__module__}.{k.__qualname__}" for k in kinds]


def run_case(request: dict[str, Any]) -> dict[str, Any]:
    """Evaluates one call on the submission in the current folder."""
    sys.path.append(os.getcwd())  # noqa: PTH109  last: a submission replaces no module of the standard library
    names: dict[str, Any] = {"__name__": "__case__"}
    try:
        exec(request["setup"], names)  # noqa: S102
    except BaseException as error:  # noqa: BLE001  whatever it raises is an outcome
        return {"broken": names_of(error)}
    try:
        if "call" in request:
            body: list[Any] = ast.parse(request["call"]).body
            *before, last = body
            exec(compile(ast.Module(before, []), "<case>", "exec"), names)  # noqa: S102
            value = eval(compile(ast.Expression(last.value), "<case>", "eval"), names)  # noqa: S307
        else:
            args, kwargs = decode(request["args"]), decode(request["kwargs"])
            value = names[request["function"]](*args, **kwargs)
        return {"value": encode(value)}
    except BaseException as error:  # noqa: BLE001
        return {"raised": names_of(error)}


class _NeedsAnswer(BaseException):
    """The test program made a call whose answer is not known yet."""


class StandIn:
    """Takes the place of the function under test; answers from a list, or with the reference, and notes the calls."""

    def __init__(self, reference: Any, answers: list[Any] | None) -> None:
        self.reference = reference
        self.answers = answers
        self.calls: list[Any] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answers one call."""
        position, call = len(self.calls), [encode(args), encode(kwargs)]
        if self.answers is None:
            self.calls.append([call, None])
            answer = self.reference(*args, **kwargs)
            self.calls[position][1] = encode(answer)
            return answer
        self.calls.append([call, None])
        if position >= len(self.answers) or self.answers[position][0] != call:
            raise _NeedsAnswer
        answer = self.answers[position][1]
        if "value" not in answer:
            msg = f"the submission raised {answer}"
            raise RuntimeError(msg)
        return decode(answer["value"])


def run_test(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a test program with a stand-in for the function under test."""
    names: dict[str, Any] = {"__name__": "__test__"}
    import random  # only here: cases shall start fast

    random.seed(0)  # noqa: TID251  the generator that test programs use
    exec(request["reference"], names)  # noqa: S102
    stand_in = names[request["function"]] = StandIn(names[request["function"]], request["answers"])
    try:
        exec(request["program"], names)  # noqa: S102
    except _NeedsAnswer:
        return {"status": "needs", "calls": stand_in.calls}
    except Exception as error:  # noqa: BLE001
        return {"status": "failed", "calls": stand_in.calls, "error": f"{type(error).__name__}: {error}"[:500]}
    return {"status": "passed", "calls": stand_in.calls}


def _main() -> None:
    request = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(2, 1)  # what the code under test prints is no answer
    answer = (run_case if sys.argv[1] == "case" else run_test)(request)
    data = (json.dumps({"nonce": request["nonce"], **answer}) + "\n").encode()
    while data:
        data = data[os.write(out, data) :]
    os._exit(0)  # no code of the submission runs after its answer


if __name__ == "__main__":
    _main()
