"""Hidden cases: an expression to evaluate on the submission, and the value or the exception that it must give."""

import ast
import builtins
import math
from functools import cached_property
from typing import Any, cast

import pydantic

from .comparing import compare, sides_of
from .outcomes import Outcome
from .wire import decode, encode, sort_key

__all__ = ["Case", "matches", "parse_python"]


def parse_python(source: str | bytes, what: str) -> ast.Module:
    """Returns the tree of a source text.

    Raises:
        ValueError: it is no Python; the message says what it was meant to be.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        msg = f"{what} is no Python: {error}"
        raise ValueError(msg) from None


class Case(pydantic.BaseModel):
    """One call and what it must give.

    Attributes:
        call: Python source. Its last statement is the expression whose value counts; earlier ones prepare it. Of a
            comparison the sides count, which are compared outside.
        expected: the value as a Python literal, e.g. `(1, [2.5], {'a': None})`. The type counts: `1` is not `1.0`.
        raises: instead of a value, the name of the exception that it must raise; of a subclass will do. Names of
            exceptions that are not built in carry their module: `shop.errors.OutOfStock`. Of a class with several bases
            the first counts, and the first built-in one.
        tolerance: how far floats may be off, absolutely, or relatively to the expected value if that is larger.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    call: str = pydantic.Field(min_length=1)
    expected: str = ""
    raises: str = ""
    tolerance: float = pydantic.Field(default=0.0, ge=0.0)

    @pydantic.field_validator("call")
    @classmethod
    def _is_expression(cls, call: str) -> str:
        body = parse_python(call, "call").body
        if not body or not isinstance(body[-1], ast.Expr):
            msg = f"call must end in an expression, got {call!r}"
            raise ValueError(msg)
        return call

    @pydantic.model_validator(mode="after")
    def _has_outcome(self) -> "Case":
        if bool(self.expected) == bool(self.raises):
            msg = f"a case needs either 'expected' or 'raises', got {self.expected!r} and {self.raises!r}"
            raise ValueError(msg)
        if self.expected:
            _ = self.wire
        return self

    @cached_property
    def wire(self) -> Any:
        """The expected value as JSON that keeps types.

        Raises:
            ValueError: `expected` is no literal of plain values.
        """
        try:
            return encode(ast.literal_eval(self.expected))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            msg = f"expected must be a Python literal, got {self.expected!r:.200}: {error}"
            raise ValueError(msg) from None

    @cached_property
    def _comparison(self) -> ast.expr | None:
        """The last expression where that is a comparison which must be true, or false."""
        last = cast("ast.Expr", ast.parse(self.call).body[-1]).value
        return last if isinstance(self.wire if self.expected else None, bool) and sides_of(last) is not None else None

    @cached_property
    def asked(self) -> str:
        """The call, or what returns the sides that it compares."""
        if self._comparison is None:
            return self.call
        before = [ast.unparse(statement) for statement in ast.parse(self.call).body[:-1]]
        return "\n".join([*before, ast.unparse(cast("ast.expr", sides_of(self._comparison)))])

    def accepts(self, outcome: Outcome, reference: Outcome | None = None) -> bool:
        """Whether what became of `asked` is what the case wants.

        Args:
            outcome: of the submission.
            reference: of the task's own solution. It tells what `raises` derives from; without it, a subclass of an
                exception that is not built in is not accepted.
        """
        if self.raises:
            return outcome.kind == "raised" and self._is_raised(outcome.names, reference)
        if self._comparison is not None:
            return self._compared(outcome) is self.wire
        return self.accepts_value(outcome)

    def accepts_value(self, outcome: Outcome) -> bool:
        """Whether what `call` returned is what the case wants, as its own process compared it."""
        try:
            return outcome.kind == "returned" and matches(self.wire, outcome.value, self.tolerance)
        except RecursionError:
            return False

    def compares_objects(self, outcome: Outcome) -> bool:
        """Whether a side of the comparison is nothing plain, so that only its own process can compare it."""
        return self._comparison is not None and outcome.kind == "returned" and self._compared(outcome) is None

    def _compared(self, outcome: Outcome) -> Any:
        if outcome.kind != "returned" or self._comparison is None:
            return ""
        try:
            return compare(self._comparison, outcome.value)
        except Exception:  # noqa: BLE001  whatever is wrong with what a submission sent
            return ""

    def may_derive(self, outcome: Outcome) -> bool:
        """Whether it depends on what `raises` derives from if an outcome is what the case wants."""
        return outcome.kind == "raised" and "." in self.raises and self.raises in outcome.names[1:]

    def explain(self, outcome: Outcome) -> str:
        """Says what was wanted and what became of the call, for whoever wrote the task."""
        wanted = f"`{self.call}` raises {self.raises}" if self.raises else f"`{self.call}` == {self.expected}"
        if outcome.kind != "returned":
            return f"{wanted}: {outcome.reason}"
        return f"{wanted}: it returned {_shown(outcome.value)}"

    def _is_raised(self, names: tuple[str, ...], reference: Outcome | None) -> bool:
        wanted = self.raises
        if "." not in wanted:
            kind = getattr(builtins, wanted, None)
            return (kind.__name__ if isinstance(kind, type) else wanted) in names  # IOError is OSError
        if wanted not in names:
            return False
        above = names[names.index(wanted) :]
        if above == names:
            return True
        known = reference.names if reference is not None and wanted in reference.names else ()
        return bool(known) and above == known[known.index(wanted) :]


def _shown(value: Any) -> str:
    """Returns a value as it is written in Python; its encoding where that is none of a plain value."""
    try:
        return f"{decode(value)!r:.200}"
    except Exception:  # noqa: BLE001  whatever is wrong with what a submission made
        return f"{value!r:.200}"


def matches(expected: Any, found: Any, tolerance: float = 0.0) -> bool:
    """Whether two encoded values are equal in type and value; `nan` equals `nan`, as nothing else could be meant."""
    if type(expected) is not type(found):
        return False
    if isinstance(expected, list):
        left, right = cast("list[Any]", expected), cast("list[Any]", found)
        return len(left) == len(right) and all(matches(a, b, tolerance) for a, b in zip(left, right, strict=True))
    if not isinstance(expected, dict):
        return expected == found
    left, right = cast("dict[str, Any]", expected), cast("dict[str, Any]", found)
    if left.keys() != right.keys():
        return False
    if "f" in left:
        return _same_float(left["f"], right["f"], tolerance)
    for tag in ("d", "s", "z"):  # equal whatever their order
        if tag in left and isinstance(right[tag], list):
            return matches(sorted(left[tag], key=sort_key), sorted(right[tag], key=sort_key), tolerance)
    return "o" not in left and all(matches(left[key], right[key], tolerance) for key in left)


def _same_float(expected: str, found: Any, tolerance: float) -> bool:
    try:
        a, b = float.fromhex(expected), float.fromhex(found)
    except (ValueError, TypeError, OverflowError):
        return False
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    # of the expected value alone: what was answered must not say how far it may be off
    return math.isfinite(a) and abs(a - b) <= tolerance * max(1.0, abs(a))
