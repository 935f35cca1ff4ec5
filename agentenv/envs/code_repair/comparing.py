"""Cases that compare: what a submission returned is compared outside of its process, which could bend `==` itself.

`f(2) == 4` as a call that must give `True` would be right for any object that equals everything. So the submission is
asked for what stands on both sides, and the comparison is made here, of plain values.
"""

import ast
import operator
from collections.abc import Callable
from itertools import count
from typing import Any, cast

from .wire import decode, has_object

__all__ = ["compare", "sides_of"]

_OPERATORS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_SINGLE = (None, True, False)


def sides_of(expression: ast.expr) -> ast.expr | None:
    """Returns an expression for what is compared in another, nested as that is; None where it is no comparison.

    Its parts are evaluated in the same order, and as far: the second part of `a and b` only where the first holds.
    """
    if not _is_comparison(expression):
        return None
    sides, _ = _split(expression, count())
    return ast.fix_missing_locations(sides)


def _is_comparison(node: ast.expr) -> bool:
    match node:
        case ast.Compare(ops=ops, comparators=others):
            identities = [o for op, o in zip(ops, others, strict=True) if isinstance(op, ast.Is | ast.IsNot)]
            return all(isinstance(o, ast.Constant) and o.value in _SINGLE for o in identities)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return _is_comparison(inner)
        case ast.BoolOp(values=values):
            return all(map(_is_comparison, values))
        case _:
            return False


def _split(node: ast.expr, numbers: "count[int]") -> tuple[ast.expr, ast.expr]:
    """Returns what is compared, kept under names, and the comparison of these."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            names = [f"_side{next(numbers)}" for _ in (left, *others)]
            kept = [
                ast.NamedExpr(ast.Name(name, ast.Store()), side)
                for name, side in zip(names, (left, *others), strict=True)
            ]
            first, *rest = [ast.Name(name, ast.Load()) for name in names]
            return ast.Tuple(list[ast.expr](kept), ast.Load()), ast.Compare(first, ops, list[ast.expr](rest))
        case ast.UnaryOp(operand=inner):
            sides, holds = _split(inner, numbers)
            return sides, ast.UnaryOp(ast.Not(), holds)
        case _:
            parts = [_split(value, numbers) for value in cast("ast.BoolOp", node).values]
            return _joined(parts, is_and=isinstance(cast("ast.BoolOp", node).op, ast.And)), ast.BoolOp(
                cast("ast.BoolOp", node).op, [holds for _, holds in parts]
            )


def _joined(parts: list[tuple[ast.expr, ast.expr]], *, is_and: bool) -> ast.expr:
    """Returns the sides of all parts up to the one that decides."""
    (sides, holds), *rest = parts
    here = ast.Tuple([sides], ast.Load())
    if not rest:
        return here
    more, none = _joined(rest, is_and=is_and), ast.Tuple([], ast.Load())
    others = ast.IfExp(holds, more, none) if is_and else ast.IfExp(holds, none, more)
    return ast.BinOp(here, ast.Add(), others)


def compare(expression: ast.expr, sides: Any) -> bool | None:
    """Returns what a comparison gives of the encoded sides that `sides_of` asked for; None where one is not plain.

    Raises:
        Exception: they are not what was asked for, or cannot be compared.
    """
    match expression:
        case ast.Compare(ops=ops):
            left, *others = _items(sides)
            if has_object([left, *others]):
                return None
            value = decode(left)
            for op, side in zip(ops, others, strict=True):
                other = decode(side)
                if not _OPERATORS[type(op)](value, other):
                    return False
                value = other
            return True
        case ast.UnaryOp(operand=inner):
            found = compare(inner, sides)
            return None if found is None else not found
        case _:
            node = cast("ast.BoolOp", expression)
            return _decided(node.values, _items(sides), is_and=isinstance(node.op, ast.And))


def _decided(values: list[ast.expr], parts: list[Any], *, is_and: bool) -> bool | None:
    for value, part in zip(values, parts, strict=False):
        found = compare(value, part)
        if found is None or found is not is_and:
            return found
    if len(parts) != len(values):
        msg = f"{len(parts)} of {len(values)} parts of a comparison"
        raise ValueError(msg)
    return is_and


def _items(sides: Any) -> list[Any]:
    (items,) = (content for tag, content in sides.items() if tag == "t")
    return list(items)
