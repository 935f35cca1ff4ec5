"""What needs computer algebra: expressions built, computed, printed and compared by sympy.

This file imports nothing of the package: the worker processes load it alone, next to `comparison`.
"""

import importlib
import operator
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise
from typing import Any

__all__ = ["Algebra", "compute", "parse_latex", "show_result"]

Reading = list[Any]
_MAX_RESULT = 2_000
_DIGITS = 30
_MAX_SYMBOLS = 8
_POINTS = 5
_sympy: Any = importlib.import_module("sympy")


class Algebra:
    """Compares readings with sympy.

    Args:
        comparison: the module of that name.
    """

    def __init__(self, comparison: Any) -> None:
        self._rounds_to: Callable[..., bool] = comparison.rounds_to
        self._leaves: Callable[[Reading], Iterable[Reading]] = comparison.leaves

    def equal(self, gold: Reading, answer: Reading) -> bool:
        """Returns whether two expressions, relations or sets are equal; `False` where one of them means nothing."""
        kinds = {gold[0], answer[0]}
        if "relation" in kinds or "named" in kinds or "union" in kinds or not kinds.isdisjoint({"set", "list"}):
            return self._related(gold, answer)
        one, two = build(gold), build(answer)
        if isinstance(one, _sympy.Set) or isinstance(two, _sympy.Set):
            return _sets_equal(_as_set(gold), _as_set(answer))
        if isinstance(one, _sympy.MatrixBase) or isinstance(two, _sympy.MatrixBase):
            return _matrices_equal(one, two)
        for side, other in ((gold, two), (answer, one)):
            if side[0] == "decimal":
                return self._is_decimal_of(side[1], other)
        return _expressions_equal(one, two)

    def _is_decimal_of(self, decimal: str, expression: Any) -> bool:
        value = expression.doit()
        if value.free_symbols or not value.is_number:
            return False
        if value.is_Rational:
            exact = Fraction(int(value.p), int(value.q))
            return exact == Fraction(decimal) or self._rounds_to(decimal, exact)
        real, imaginary = value.evalf(_DIGITS).as_real_imag()
        if not _is_zero(imaginary) or not real.is_Float:
            return False
        return self._rounds_to(decimal, Fraction(str(real)), endless=True)

    def _related(self, gold: Reading, answer: Reading) -> bool:
        if self._is_solved(gold) and not self._is_solved(answer):  # the question, perhaps
            return False
        if _is_equation(gold) and _is_equation(answer):
            return _equations_equal(_sides(gold), _sides(answer))
        if gold[0] == "tuple" and not _surely_interval(gold):
            return _orders(answer) and _as_set(gold).is_empty is False and _sets_equal(_as_set(gold), _as_set(answer))
        if "relation" in {gold[0], answer[0]} and len(_names(gold, self._leaves) | _names(answer, self._leaves)) > 1:
            return _inequalities_equal(gold, answer)
        return _sets_equal(_as_set(gold), _as_set(answer))

    def _is_solved(self, reading: Reading) -> bool:
        """Returns whether nothing is left to solve: every relation compares one unknown, alone, with values."""
        if reading[0] in {"list", "set", "union"}:
            return all(map(self._is_solved, reading[-1]))
        if reading[0] == "named":
            return not _names(reading[2], self._leaves)
        if reading[0] == "latex":
            return not build(reading).has(_sympy.ConditionSet, _sympy.core.relational.Relational)
        if reading[0] != "relation":
            return True
        others = [part for part in reading[2] if not _is_unknown(part)]
        return len(others) == len(reading[2]) - 1 and not any(_names(part, self._leaves) for part in others)


def build(reading: Reading) -> Any:
    """Returns a reading as a sympy object.

    Raises:
        ValueError: it is none.
    """
    match reading[0]:
        case "number" | "value" | "decimal":
            value = Fraction(reading[1])
            return _sympy.Rational(value.numerator, value.denominator)
        case "percent":
            return build(reading[1]) / 100
        case "quantity":
            return build(reading[1])
        case "tree":
            return build_tree(reading[1])
        case "latex":
            return parse_latex(reading[1])
        case "tuple":
            return _build_tuple(reading)
        case "set" | "list":
            return _sympy.FiniteSet(*map(build, reading[-1]))
        case "union":
            return _sympy.Union(*map(_as_set, reading[1]))
        case kind:
            msg = f"no value in {kind}"
            raise ValueError(msg)


def _build_tuple(reading: Reading) -> Any:
    _, left, right, items = reading
    if items and all(item[0] == "tuple" for item in items):
        return _sympy.Matrix([[build(entry) for entry in row[3]] for row in items])
    if len(items) != 2 or left not in {"(", "["}:
        return _sympy.Tuple(*map(build, items))
    start, end = map(build, items)
    return _sympy.Interval(start, end, left_open=left != "[", right_open=right != "]")


def parse_latex(text: str) -> Any:
    """Returns what math-verify's parser reads in LaTeX, decimals as fractions, `i` as the imaginary unit.

    Raises:
        Exception: it cannot read it, or sympy cannot make it.
    """
    parser: Any = importlib.import_module("latex2sympy2_extended.latex2sympy2")
    config = parser.NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    normal = parser.normalize_latex(text, config=config)
    parsed = parser.latex2sympy(normal, is_real=True, convert_degrees=False, normalization_config=None)
    if isinstance(parsed, bool):
        msg = "it is a statement, not a value"
        raise ValueError(msg)
    names = {symbol: _symbol(symbol.name) for symbol in parsed.free_symbols}
    floats = {number: _sympy.Rational(str(number)) for number in parsed.atoms(_sympy.Float)}
    return parsed.xreplace(names | floats)


def _symbol(name: str) -> Any:
    return _sympy.I if name == "i" else _sympy.Symbol(name.lower(), real=True)


_CONSTANTS = {"pi": _sympy.pi, "e": _sympy.E, "i": _sympy.I, "I": _sympy.I, "infty": _sympy.oo, "oo": _sympy.oo}


def build_tree(tree: Any, symbol: Callable[[str], Any] = _symbol) -> Any:
    """Returns an expression tree (`to_lists`) as a sympy expression.

    Raises:
        Exception: sympy cannot make it.
    """
    if isinstance(tree, str):
        return _CONSTANTS[tree] if tree in _CONSTANTS else symbol(tree)
    name, *arguments = tree
    return _FUNCTIONS[name](*arguments if name == "number" else (build_tree(each, symbol) for each in arguments))


def compute(tree: Any) -> Any:
    """Returns an expression tree computed, its names complex numbers.

    Raises:
        Exception: sympy cannot compute it.
    """
    return build_tree(tree, _sympy.Symbol)


def show_result(value: Any) -> str | None:
    """Returns a result as an agent can submit it; `None` where it holds an undefined value."""
    if isinstance(value, _sympy.Basic) and value.has(_sympy.zoo, _sympy.nan):
        return None
    return _Printer().doprint(value).replace("**", "^")


_PRINTED: dict[str, Callable[[Any, Any], str]] = {
    "_print_list": lambda self, items: "{" + ", ".join(map(self._print, items)) + "}",
    "_print_dict": lambda self, items: ", ".join(f"{self._print(key)} = {self._print(items[key])}" for key in items),
    "_print_exp": lambda self, power: f"e^({self._print(power.args[0])})",
    "_print_Exp1": lambda _self, _: "e",
    "_print_ImaginaryUnit": lambda _self, _: "i",
    "_print_log": lambda self, log: f"ln({self._print(log.args[0])})",
    "_print_Abs": lambda self, absolute: f"abs({self._print(absolute.args[0])})",
    "_print_ceiling": lambda self, ceiling: f"ceil({self._print(ceiling.args[0])})",
    "_print_EmptySet": lambda _self, _: "{}",
}
_Printer: Any = type("_Printer", (importlib.import_module("sympy.printing.str").StrPrinter,), _PRINTED)
"""Prints what `reading` reads as the same value: `{-2, 3}` for solutions, `e^(x)`, `2*i`, `ln(x)`."""


def _is_zero(number: Any) -> bool:
    """Returns whether a number is zero, or cannot be told from it at over a hundred digits."""
    if number.is_Rational:
        return bool(number == 0)
    value = number.evalf(_DIGITS)
    return all(part == 0 or (part.is_Float and part._prec <= 1) for part in value.as_real_imag())


def _expressions_equal(one: Any, two: Any) -> bool:
    if one == two:
        return True
    if not isinstance(one, _sympy.Expr) or not isinstance(two, _sympy.Expr):
        return False
    one, two = one.doit(), two.doit()
    if one == two:
        return True
    if not (one.is_finite is not False and two.is_finite is not False):
        return False
    difference = one - two
    symbols = sorted(difference.free_symbols, key=str)
    if not symbols:
        return bool(difference.is_number) and _is_zero(difference)
    if len(symbols) > _MAX_SYMBOLS:
        return False
    return _vanishes(difference, symbols)


def _vanishes(expression: Any, symbols: list[Any]) -> bool:
    """Returns whether an expression is zero at rational points of either sign, wherever it is defined there."""
    defined = 0
    for point in _points(symbols):
        value = expression.subs(point).doit()
        if value.has(_sympy.nan, _sympy.zoo, _sympy.oo):
            continue
        if not value.is_number or not value.evalf(2).is_number or not _numeric(value):
            return bool(_sympy.simplify(expression) == 0)
        if not _is_zero(value):
            return False
        defined += 1
    return defined > 1


def _numeric(value: Any) -> bool:
    return all(part.is_number and (part.is_Rational or part.is_Float) for part in value.evalf(2).as_real_imag())


def _points(symbols: list[Any]) -> Iterable[dict[Any, Any]]:
    for i in range(_POINTS):
        yield {
            symbol: _sympy.Rational((-1) ** ((i >> j % 3) & 1) * (17 + 12 * i + 7 * j), 13 + 5 * j + 3 * i)
            for j, symbol in enumerate(symbols)
        }


def _matrices_equal(one: Any, two: Any) -> bool:
    if not (isinstance(one, _sympy.MatrixBase) and isinstance(two, _sympy.MatrixBase)):
        return False
    one, two = one.doit(), two.doit()
    return one.shape == two.shape and all(map(_expressions_equal, one.flat(), two.flat()))


def _is_equation(reading: Reading) -> bool:
    if reading[0] == "named":
        return reading[2][0] in {"tree", "latex", "number", "value", "decimal"}
    return reading[0] == "relation" and set(reading[1]) == {"="}


def _sides(reading: Reading) -> list[Any]:
    if reading[0] == "named":
        return [_symbol(reading[1]), build(reading[2])]
    return [build(part) for part in reading[2]]


def _equations_equal(one: list[Any], two: list[Any]) -> bool:
    """Compares equations: of two sides by the ratio of what must vanish, others side by side."""
    if len(one) != 2 or len(two) != 2:
        return len(one) == len(two) and all(map(_expressions_equal, one, two))
    return _proportional(one[0] - one[1], two[0] - two[1]) is not None


def _proportional(one: Any, two: Any) -> int | None:
    """Returns the sign of the constant ratio of two expressions, 0 where it is not real, `None` where there is none."""
    one, two = one.doit(), two.doit()
    symbols = sorted(one.free_symbols | two.free_symbols, key=str)
    if not symbols or one.free_symbols != two.free_symbols or len(symbols) > _MAX_SYMBOLS:
        return None
    ratios = [(one.subs(point), two.subs(point)) for point in _points(symbols)]
    first = next((pair for pair in ratios if not (_is_zero(pair[0]) or _is_zero(pair[1]))), None)
    if first is None or not all(_is_zero(a * first[1] - b * first[0]) for a, b in ratios):
        return None
    ratio = (first[0] / first[1]).evalf(_DIGITS)
    return 0 if not ratio.is_real else 1 if ratio > 0 else -1


def _names(reading: Reading, leaves: Callable[[Reading], Iterable[Reading]]) -> set[str]:
    """Returns the names of the unknowns in a reading."""
    expressions = (leaf for leaf in leaves(reading) if leaf[0] in {"tree", "latex"})
    return {symbol.name for leaf in expressions for symbol in build(leaf).free_symbols}


def _is_unknown(reading: Reading) -> bool:
    """Returns whether a reading is the name of an unknown as it stands, nothing left to simplify."""
    return (reading[0] == "latex" or isinstance(reading[1], str)) and bool(getattr(build(reading), "is_Symbol", False))


def _orders(reading: Reading) -> bool:
    """Returns whether a reading says which values are meant by inequalities."""
    return reading[0] == "relation" or (reading[0] in {"list", "set"} and any(map(_orders, reading[-1])))


_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": _sympy.StrictLessThan, ">": _sympy.StrictGreaterThan, "≤": _sympy.LessThan, "≥": _sympy.GreaterThan,
    "≠": _sympy.Ne, "=": _sympy.Eq,
}  # fmt: skip
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "≠": "≠", "=": "="}


def _inequalities_equal(gold: Reading, answer: Reading) -> bool:
    """Compares one inequality in several unknowns with another, by the ratio of their sides' differences."""
    if gold[0] != answer[0] or gold[0] != "relation" or len(gold[1]) != 1 or len(answer[1]) != 1:
        return False
    one, two = (build(side[2][0]) - build(side[2][1]) for side in (gold, answer))
    sign = _proportional(one, two)
    mark = {1: gold[1][0], -1: _FLIPPED.get(gold[1][0])}.get(sign or 0)
    return mark is not None and mark == answer[1][0]


def _surely_interval(reading: Reading) -> bool:
    ends = [part[1] for part in reading[3]]
    return "[" in reading[1:3] or "]" in reading[1:3] or any("infty" in str(end) or "oo" in str(end) for end in ends)


def _as_set(reading: Reading) -> Any:
    """Returns the set that a reading describes; the solutions, for inequalities.

    Raises:
        ValueError: it describes none.
    """
    if reading[0] == "relation":
        return _solutions(reading)
    if reading[0] == "named":
        return _as_set(reading[2])
    if reading[0] in {"list", "set"} and any(item[0] == "relation" for item in reading[-1]):
        parts = [_as_set(item) for item in reading[-1]]
        both = _sympy.Intersection(*parts)
        joined = reading[1] == "∨" or (reading[1] == "," and both is _sympy.EmptySet)
        return _sympy.Union(*parts) if joined else both
    value = build(reading)
    return value if isinstance(value, _sympy.Set) else _sympy.FiniteSet(value)


def _solutions(reading: Reading) -> Any:
    parts = [build(part) for part in reading[2]]
    relations = [_RELATIONS[mark](*pair) for mark, pair in zip(reading[1], pairwise(parts), strict=True)]
    return _sympy.Intersection(*(relation.as_set() for relation in relations))


def _sets_equal(one: Any, two: Any) -> bool:
    if one == two:
        return True
    if isinstance(one, _sympy.Interval) and isinstance(two, _sympy.Interval):
        ends = _expressions_equal(one.start, two.start) and _expressions_equal(one.end, two.end)
        return ends and one.left_open == two.left_open and one.right_open == two.right_open
    if isinstance(one, _sympy.FiniteSet) and isinstance(two, _sympy.FiniteSet):
        return _cover(one.args, two.args, _expressions_equal)
    if isinstance(one, _sympy.Union) and isinstance(two, _sympy.Union) and _cover(one.args, two.args, _sets_equal):
        return True
    if not isinstance(one, _sympy.Set) or not isinstance(two, _sympy.Set):
        return False
    return one.symmetric_difference(two).is_empty is True


def _cover(one: Any, two: Any, equal: Callable[[Any, Any], bool]) -> bool:
    return all(any(equal(a, b) for b in two) for a in one) and all(any(equal(a, b) for a in one) for b in two)


def _divide(a: Any, b: Any) -> Any:
    return a / b


def _divide_down(a: Any, b: Any) -> Any:
    return _sympy.floor(a / b)


def _power(a: Any, b: Any) -> Any:
    return a**b


def _of_reals(function: Callable[..., Any], *values: Any) -> Any:
    """The largest or the least of values, which complex numbers do not have."""
    if any(value.has(_sympy.I) for value in values):
        msg = "max and min need real numbers"
        raise ValueError(msg)
    return function(*values)


def _largest(*values: Any) -> Any:
    return _of_reals(_sympy.Max, *values)


def _least(*values: Any) -> Any:
    return _of_reals(_sympy.Min, *values)


def _number(numerator: str, denominator: str) -> Any:
    return _sympy.Rational(int(numerator), int(denominator))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide, "//": _divide_down, "%": _sympy.Mod,
    "^": _power, "!": _sympy.factorial, "neg": operator.neg, "number": _number, "abs": _sympy.Abs,
    "ceil": _sympy.ceiling, "max": _largest, "min": _least,
}  # fmt: skip
for _name in re.findall(
    r"\w+",
    "binomial cos diff exp expand factor factorial floor gcd lcm log simplify sin solve sqrt tan"
    " acos asin atan cosh sinh tanh sign conjugate im re gamma polygamma LambertW cot sec csc",
):
    _FUNCTIONS[_name] = getattr(_sympy, _name)
