"""Exact arithmetic on expressions of numbers, within limits of size."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from .expressions import MAX_LENGTH, Call, Expression, ExpressionError, show_number

__all__ = ["FUNCTIONS", "MAX_BITS", "SYMBOLIC_FUNCTIONS", "evaluate", "fold", "is_symbolic"]

MAX_BITS = 2_048
"""Bits of a numerator or denominator, about 616 decimal digits."""


def is_symbolic(tree: Expression) -> bool:
    """Returns whether fractions do not suffice: a name, an irrational function, or a power with a broken exponent.

    Raises:
        ExpressionError: an unknown function.
    """
    if not isinstance(tree, Call):
        return isinstance(tree, str)
    name = tree.operator
    if name in SYMBOLIC_FUNCTIONS:
        return True
    if name[0].isalpha() and name not in FUNCTIONS and name != "neg":
        known = ", ".join(sorted([*FUNCTIONS, *SYMBOLIC_FUNCTIONS]))
        msg = f"unknown function {name!r}; there are {known}"
        raise ExpressionError(msg)
    if any(is_symbolic(argument) for argument in tree.arguments):
        return True
    if name != "^" or not isinstance(exponent := tree.arguments[1], Fraction | Call):
        return False
    return evaluate(exponent).denominator != 1


def fold(tree: Expression) -> Expression:
    """Returns the expression with every part that consists of numbers computed, within the limits of `evaluate`.

    Raises:
        ExpressionError: such a part cannot be computed.
    """
    if not is_symbolic(tree):
        return evaluate(tree)
    if not isinstance(tree, Call):
        return tree
    return Call(tree.operator, tuple(fold(argument) for argument in tree.arguments))


def evaluate(tree: Expression) -> Fraction:
    """Computes an expression of numbers exactly.

    No numerator or denominator exceeds `MAX_BITS` bits at any time: what would be larger is refused before it is made.

    Raises:
        ExpressionError: a name in it, a division by zero, an argument out of a function's range, or too large a number.
    """
    if isinstance(tree, Fraction):
        return _bounded(tree)
    if isinstance(tree, str):
        msg = f"{tree!r} has no value"
        raise ExpressionError(msg)
    arguments = [evaluate(argument) for argument in tree.arguments]
    operator = _OPERATORS.get(tree.operator)
    if operator is not None:
        return _bounded(operator(*arguments))
    entry = FUNCTIONS.get(tree.operator)
    if entry is None:
        msg = f"unknown function {tree.operator!r}"
        raise ExpressionError(msg)
    count, function = entry
    if len(arguments) not in count:
        counts = f"{count[0]}" if len(count) == 1 else f"{count[0]} or more"
        msg = f"{tree.operator} takes {counts} arguments, got {len(arguments)}"
        raise ExpressionError(msg)
    return _bounded(Fraction(function(*arguments)))


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise _too_large()
    return value


def _too_large() -> ExpressionError:
    return ExpressionError(f"number too large: at most {int(MAX_BITS * math.log10(2))} digits")


def _divide(a: Fraction, b: Fraction) -> Fraction:
    if not b:
        msg = "division by zero"
        raise ExpressionError(msg)
    return a / b


def _floor_divide(a: Fraction, b: Fraction) -> Fraction:
    return Fraction(math.floor(_divide(a, b)))


def _remainder(a: Fraction, b: Fraction) -> Fraction:
    return a - b * _floor_divide(a, b)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        msg = "a power of a number needs a whole exponent"
        raise ExpressionError(msg)
    n = exponent.numerator
    if base == 0 and n < 0:
        msg = "division by zero"
        raise ExpressionError(msg)
    size = max(abs(base.numerator), base.denominator)
    if size > 1 and (size.bit_length() - 1) * abs(n) > MAX_BITS:
        raise _too_large()
    return base ** (n if size > 1 else n % 2 + 2 * (n > 0))


def _factorial(a: Fraction) -> Fraction:
    n = _whole(a, "factorial")
    if n < 0:
        msg = f"factorial needs a whole number of at least 0, got {n}"
        raise ExpressionError(msg)
    if n > MAX_BITS:
        raise _too_large()
    return Fraction(math.factorial(n))


def _binomial(a: Fraction, b: Fraction) -> int:
    n, k = _whole(a, "binomial"), _whole(b, "binomial")
    if n < 0 or k < 0:
        msg = f"binomial needs whole numbers of at least 0, got {n} and {k}"
        raise ExpressionError(msg)
    if min(k, n - k) > 0 and (n.bit_length() > 64 or min(k, n - k) > MAX_BITS):
        raise _too_large()
    return math.comb(n, k)


def _whole(a: Fraction, name: str) -> int:
    if a.denominator != 1:
        msg = f"{name} needs whole numbers, got {show_number(a)}"
        raise ExpressionError(msg)
    return a.numerator


def _absolute(a: Fraction) -> Fraction:
    return abs(a)


def _ceiling(a: Fraction) -> int:
    return math.ceil(a)


def _floor(a: Fraction) -> int:
    return math.floor(a)


def _largest(*values: Fraction) -> Fraction:
    return max(values)


def _smallest(*values: Fraction) -> Fraction:
    return min(values)


def _gcd(*values: Fraction) -> int:
    return math.gcd(*(_whole(value, "gcd") for value in values))


def _lcm(*values: Fraction) -> int:
    return math.lcm(*(_whole(value, "lcm") for value in values))


_OPERATORS: Mapping[str, Callable[..., Fraction]] = {
    "+": Fraction.__add__,
    "-": Fraction.__sub__,
    "*": Fraction.__mul__,
    "/": _divide,
    "//": _floor_divide,
    "%": _remainder,
    "^": _power,
    "!": _factorial,
    "neg": Fraction.__neg__,
}

FUNCTIONS: Mapping[str, tuple[range, Callable[..., Fraction | int]]] = {
    "abs": (range(1, 2), _absolute),
    "binomial": (range(2, 3), _binomial),
    "ceil": (range(1, 2), _ceiling),
    "factorial": (range(1, 2), _factorial),
    "floor": (range(1, 2), _floor),
    "gcd": (range(2, MAX_LENGTH), _gcd),
    "lcm": (range(2, MAX_LENGTH), _lcm),
    "max": (range(2, MAX_LENGTH), _largest),
    "min": (range(2, MAX_LENGTH), _smallest),
}
"""Functions of numbers that stay exact: how many arguments each takes, and what computes it."""

SYMBOLIC_FUNCTIONS = frozenset(
    {"cos", "diff", "exp", "expand", "factor", "log", "simplify", "sin", "solve", "sqrt", "tan"}
)
"""Functions that a worker process computes."""
