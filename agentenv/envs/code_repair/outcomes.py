"""What became of a call on a submission: exactly one of returned, raised, timed out, died.

The line that a grading process prints is the submission's as much as the grader's, so it is read as hostile: one JSON
object on one line, with the nonce of the request, with one outcome and nothing else in it. Whatever is not that is
`died`, which no case accepts.
"""

import builtins
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from agentenv.protocols import ExecResult

__all__ = ["Outcome", "read_outcome", "read_record"]

_MOST_NAMES, _LONGEST_NAME = 40, 300
_NUMBER = re.compile(r"0|[1-9][0-9]{0,6}", re.ASCII)
_SHAPES: Mapping[str, frozenset[str]] = {
    "returned": frozenset({"returned", "changed", "called"}),
    "raised": frozenset({"raised", "with", "changed", "called"}),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call.

    Attributes:
        kind: `"returned"`, `"raised"`, `"timed out"` or `"died"`.
        value: what it returned, as `wire.encode` writes it.
        names: what it raised: the class and those that it derives from, the built-in ones last.
        why: why there is neither.
        record: for a test program: the outcome with what the call changed, and what it called.
        asks: for a test program: what its functions are asked first; without an answer to that, it died.
    """

    kind: Literal["returned", "raised", "timed out", "died"]
    value: Any = None
    names: tuple[str, ...] = ()
    why: str = ""
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    asks: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def reason(self) -> str:
        """What is wrong with it, in words that give nothing hidden away."""
        if self.kind == "raised":
            return f"it raised: {self.names[0]:.80}"
        return "wrong value" if self.kind == "returned" else self.why


def read_outcome(result: ExecResult, nonce: str, *, of_program: bool = False) -> Outcome:
    """Returns what a grading process printed; never raises, whatever it printed.

    Args:
        result: of the process.
        nonce: that of its request.
        of_program: it answered a call of a test program, and says what the call changed.
    """
    if result.timed_out:
        return Outcome("timed out", why="timed out")
    record = read_record(result, nonce)
    if isinstance(record, str):
        return Outcome("died", why=record)
    if record.keys() == {"died"} and isinstance(record["died"], str):
        return Outcome("died", why=record["died"][:200])
    if of_program and record.keys() == {"asks"} and _is_asked(record["asks"]):
        return Outcome("died", why="its calls of functions of the program did not end", asks=record["asks"])
    if len(kinds := record.keys() & {"returned", "raised"}) != 1:
        return Outcome("died", why="its answer was not exactly one outcome")
    (kind,) = kinds
    if record.keys() != (_SHAPES[kind] if of_program else kinds) or (of_program and not _is_change(record["changed"])):
        return Outcome("died", why="its answer was not exactly one outcome")
    if kind == "returned":
        return Outcome("returned", value=record["returned"], record=record)
    if (names := _read_names(record["raised"])) is None:
        return Outcome("died", why="what it raised was not one exception")
    return Outcome("raised", names=names, record=record)


def read_record(result: ExecResult, nonce: str) -> dict[str, Any] | str:
    """Returns the one record that a guest printed, without its nonce; why there is none where it is not exactly that.

    Text that is no JSON as a guest writes it is none: keys that occur twice, numbers that are no integers.
    """
    for ended, why in (
        (result.timed_out, "timed out"),
        (result.oom, "ran out of memory"),
        (result.truncated, "its output was too long"),
    ):
        if ended:
            return why
    if result.exit_code != 0 or not result.stdout.endswith("\n") or result.stdout.count("\n") != 1:
        return f"it ended with exit code {result.exit_code} and without exactly one answer"
    try:
        answer: object = json.loads(
            result.stdout, object_pairs_hook=_once_each, parse_float=_refused, parse_constant=_refused
        )
    except (ValueError, RecursionError):
        return "its answer was not readable"
    if not isinstance(answer, dict):
        return "its answer was not readable"
    record = cast("dict[str, Any]", answer)
    if record.pop("nonce", None) != nonce:
        return "its answer was not authentic"
    return record


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        msg = "a key occurs twice"
        raise ValueError(msg)
    return found


def _refused(text: str) -> Any:
    msg = f"{text} is no integer"
    raise ValueError(msg)


def _is_change(changed: Any) -> bool:
    return isinstance(changed, dict) and all(map(_NUMBER.fullmatch, cast("dict[str, Any]", changed)))


def _is_asked(asked: Any) -> bool:
    return isinstance(asked, dict) and cast("dict[str, Any]", asked).keys() == {"called", "read"}


def _read_names(raised: Any) -> tuple[str, ...] | None:
    """Returns the names of one real exception: classes with a module, then one built-in one with its true bases."""
    if not isinstance(raised, list) or not 0 < len(cast("list[Any]", raised)) <= _MOST_NAMES:
        return None
    names = cast("list[Any]", raised)
    if not all(isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME for name in names):
        return None
    own = [name for name in names if "." in name]
    rest = names[len(own) :]
    kind = getattr(builtins, rest[0], None) if rest else None
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return None
    real = [base.__name__ for base in kind.__mro__[:-1]]
    return tuple(names) if names == [*own, *real] and len({*own}) == len(own) else None
