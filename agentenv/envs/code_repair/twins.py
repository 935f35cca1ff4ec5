"""Twins of hidden tests: the same test with one assertion made wrong, so that no right solution passes it.

A submission that shares the interpreter with its tests can make them pass without being right: it can replace what
reports them, or take the expected value from its caller. It then passes the twin too, and gives itself away. So that it
cannot tell which is which, a twin stands in the test's place, under the same name, in some of the runs.

What is made wrong, and what each finds:

- an expected literal, also by way of a local name or of a parameter: `f(2) == 4` becomes `f(2) == 7`, and so do equal
  ones of the same test. A submission that takes the expected value from the caller, or whose values equal everything,
  passes it. In the same way `"name" in s` becomes `"nzme" in s`.
- any other expected value: `f(2) == g(3)` becomes `f(2) == (g(3), 7)`. Values that equal everything pass it.
- any other assertion is turned round: `a in b` becomes `a not in b`, `x` becomes `not (x)`; `pytest.raises` expects an
  exception that nothing raises. A replaced assertion or report passes it.
- a test without assertions gets one at its end, which fails.
"""

import ast
import builtins
import cmath
import collections
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Edit", "Site", "apply_edits", "find_sites"]

Function = ast.FunctionDef | ast.AsyncFunctionDef
_OPPOSITE: dict[type[ast.cmpop], str] = {
    ast.Lt: ">=",
    ast.GtE: "<",
    ast.Gt: "<=",
    ast.LtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
_OPERATOR = re.compile(rb"==|!=|<=|>=|<|>|\bnot\s+in\b|\bin\b|\bis\s+not\b|\bis\b")
_PAIRS = (
    ("assertTrue", "assertFalse"),
    ("assertIn", "assertNotIn"),
    ("assertIs", "assertIsNot"),
    ("assertIsNone", "assertIsNotNone"),
    ("assertIsInstance", "assertNotIsInstance"),
    ("assertEqual", "assertNotEqual"),
    ("assertAlmostEqual", "assertNotAlmostEqual"),
    ("assertRegex", "assertNotRegex"),
    ("assertLess", "assertGreaterEqual"),
    ("assertGreater", "assertLessEqual"),
)
_TURNED = {**dict(_PAIRS), **{right: left for left, right in _PAIRS}}
_RAISES = frozenset({"raises", "assertRaises", "assertRaisesRegex", "expectedException"})
_LOOSE = re.compile("almost|approx|close|near", re.IGNORECASE)
_TOLERANT = {"approx": 1, "assertAlmostEqual": 2, "assert_allclose": 2, "assert_almost_equal": 2}
_COMMON = ("ValueError", "TypeError", "KeyError", "IndexError", "RuntimeError", "AttributeError", "ZeroDivisionError")
_RARE = ("BufferError", "EOFError", "ReferenceError", "FloatingPointError")


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of a source that is replaced: bytes `start` to `end` by `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Site:
    """A place in a test that can be made wrong.

    Attributes:
        kind: `"value"`, `"pair"`, `"turned"`, `"raises"` or `"added"`, as in the head of the module.
        sure: it is reached whenever the test passes, so that a right solution fails the twin for certain.
        make: returns the edits, given a generator; they differ from draw to draw where there is a choice.
    """

    kind: str
    sure: bool
    make: Callable[[np.random.Generator], tuple[Edit, ...]]


def apply_edits(source: str, edits: Sequence[Edit]) -> str:
    """Returns the source with the edits made."""
    data = source.encode()
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data.decode()


def find_sites(source: str) -> dict[tuple[str, ...], tuple[Site, ...]]:
    """Returns the places in every function of a module, by the names of its classes and its own.

    Raises:
        SyntaxError: the source is no Python.
    """
    tree = ast.parse(source)
    text = _Text(source)
    return {names: tuple(_sites(function, text)) for names, function in _functions(tree.body, ())}


def _functions(body: Sequence[ast.stmt], names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Function]]:
    for statement in body:
        if isinstance(statement, Function):
            yield (*names, statement.name), statement
        elif isinstance(statement, ast.ClassDef):
            yield from _functions(statement.body, (*names, statement.name))


class _Text:
    """Where nodes are in a source, in bytes."""

    def __init__(self, source: str) -> None:
        self.data = source.encode()
        self.starts = [0]
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end_line, end_column = node.end_lineno, node.end_col_offset
        assert end_line is not None
        assert end_column is not None
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[end_line - 1] + end_column

    def of(self, node: ast.expr) -> str:
        start, end = self.span(node)
        return self.data[start:end].decode()

    def replace(self, node: ast.expr, text: str) -> Edit:
        return Edit(*self.span(node), text)


# ------------------------------------------------------------------ finding


def _sites(function: Function, text: _Text) -> Iterator[Site]:
    """Yields the places of one function; without any, the one at its end."""
    values = _Values(function)
    found = 0
    for statement, sure in _statements(function.body, sure=True):
        for site in _sites_of(statement, sure, values, text):
            found += 1
            yield site
    if not found:
        returns = any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in ast.walk(function))
        yield Site("added", not returns, functools.partial(_added, function, text))


def _statements(body: Sequence[ast.stmt], *, sure: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Yields the statements that run whenever the test passes, with whether that is certain.

    It is not in loops, which may have nothing to go over. What depends on a condition or on an exception is left out,
    for one right solution may come to it and another not.
    """
    for statement in body:
        if isinstance(statement, Function | ast.ClassDef):
            continue
        yield statement, sure
        match statement:
            case ast.With() | ast.AsyncWith():
                yield from _statements(statement.body, sure=sure and not _may_swallow(statement))
            case ast.For() | ast.AsyncFor():
                yield from _statements(statement.body, sure=False)
            case ast.Try(handlers=[], orelse=[]):
                yield from _statements(statement.body, sure=sure)
            case _:
                pass
        if any(isinstance(node, ast.Return) for node in ast.walk(statement)):
            return


def _may_swallow(statement: ast.With | ast.AsyncWith) -> bool:
    names = {_name_of(item.context_expr) for item in statement.items}
    return bool(names & (_RAISES | {"suppress", "subTest", "assertWarns", "assertLogs"}))


def _name_of(node: ast.expr) -> str:
    """The last name of what is called, or named: `raises` of `pytest.raises(E)`."""
    called = node.func if isinstance(node, ast.Call) else node
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _sites_of(statement: ast.stmt, sure: bool, values: "_Values", text: _Text) -> Iterator[Site]:
    match statement:
        case ast.Assert(test=test):
            yield from _of_condition(test, sure, values, text)
        case ast.Expr(value=ast.Call() as call) | ast.Expr(value=ast.Await(value=ast.Call() as call)):
            yield from _of_call(call, sure, values, text)
        case ast.With() | ast.AsyncWith():
            for item in statement.items:
                if isinstance(item.context_expr, ast.Call) and _name_of(item.context_expr) in _RAISES:
                    yield from _of_call(item.context_expr, sure, values, text)
        case _:
            pass


def _of_condition(test: ast.expr, sure: bool, values: "_Values", text: _Text) -> Iterator[Site]:
    match test:
        case ast.BoolOp(op=ast.And()):
            for operand in test.values:
                yield from _of_condition(operand, sure, values, text)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _fixed("turned", sure, text.replace(test, f"({text.of(operand)})"))
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() as operator], comparators=[right]):
            if leaves := values.leaves(right) or values.leaves(left):
                certain = sure and not (_is_loose(left) or _is_loose(right))
                yield Site("value", certain, functools.partial(_perturbed, leaves, values, text))
            elif isinstance(operator, ast.Eq):
                yield Site("pair", sure, functools.partial(_paired, right, text))
            else:
                yield _turned_comparison(test, sure, text)
        case ast.Compare(ops=[operator]):
            yield from _of_word(test.left if isinstance(operator, ast.In) else None, values, text)
            yield _turned_comparison(test, sure, text)
        case _:
            yield from _of_word(test.args[0] if isinstance(test, ast.Call) and test.args else None, values, text)
            yield _fixed("turned", sure, text.replace(test, f"not ({text.of(test)})"))


def _of_word(node: ast.expr | None, values: "_Values", text: _Text) -> Iterator[Site]:
    """Yields the place of a word that is looked for; misspelled it is hardly found, but that is not certain."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 2:
        yield Site("value", False, functools.partial(_perturbed, ((node,),), values, text))


def _of_call(call: ast.Call, sure: bool, values: "_Values", text: _Text) -> Iterator[Site]:
    name = _name_of(call)
    if name in _RAISES:
        if call.args:
            yield Site("raises", sure, functools.partial(_other_exception, call.args[0], text))
        return
    if not name.lower().startswith("assert"):
        return
    compared = call.args[:2] if "equal" in name.lower() or "same" in name.lower() else call.args
    leaves = next((found for node in reversed(compared) if (found := values.leaves(node))), ())
    if leaves and "Not" not in name and not _is_condition(name):
        yield Site("value", sure and not _is_loose(call), functools.partial(_perturbed, leaves, values, text))
    elif name == "assertEqual" and len(call.args) > 1:
        yield Site("pair", sure, functools.partial(_paired, call.args[1], text))
    elif name in _TURNED:
        _, end = text.span(call.func)
        yield _fixed("turned", sure, Edit(end - len(name), end, _TURNED[name]))


def _is_loose(node: ast.expr) -> bool:
    """Whether something compares with a tolerance that may be large, so that a near value may pass."""
    if not isinstance(node, ast.Call) or not _LOOSE.search(name := _name_of(node)):
        return False
    usual = _TOLERANT.get(name, -1)
    return len(node.args) > usual or bool(node.keywords)


def _is_condition(name: str) -> bool:
    """Whether a wrong argument need not make the assertion fail: `assertIn(3, [1, 3])`, `assertLess(1, 5)`."""
    return name in _TURNED and not name.endswith("Equal")


class _Values:
    """The literals that a test expects, directly, by a local name, or by a parameter.

    Args:
        function: the test.

    Attributes:
        seen: all that were found so far.
        named: by the name of a variable or a parameter, a group of literals for each value it takes.
    """

    def __init__(self, function: Function) -> None:
        self.seen: list[ast.expr] = []
        self.named: dict[str, tuple[tuple[ast.expr, ...], ...]] = {}
        assigned: dict[str, list[ast.expr | None]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                assigned.setdefault(node.targets[0].id, []).append(node.value)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                assigned.setdefault(node.id, []).append(None)
        for name, found in assigned.items():  # each assignment was seen twice: as a statement, and as a name
            if len(found) == 2 and found[0] is not None and (leaves := _leaves(found[0])):
                self.named[name] = (leaves,)
        for decorator in function.decorator_list:
            self._add_parameters(decorator)
        loads = collections.Counter(
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        )
        # one that is used elsewhere too may be an input: a wrong one would not make the test fail
        self.named = {name: groups for name, groups in self.named.items() if loads[name] == 1}

    def _add_parameters(self, decorator: ast.expr) -> None:
        match decorator:
            case ast.Call(args=[names, ast.List() | ast.Tuple() as rows, *_]) if _name_of(decorator) == "parametrize":
                columns = _columns(names)
                for position, name in enumerate(columns):
                    found = [_leaves(_cell(row, position, len(columns))) for row in rows.elts]
                    if found and all(found):
                        self.named[name] = tuple(found)
            case _:
                pass

    def leaves(self, node: ast.expr) -> tuple[tuple[ast.expr, ...], ...]:
        """Returns the literals of which any one, made wrong, makes the value wrong; a group for each value it takes.

        Those asked for are noted in `seen`.
        """
        if isinstance(node, ast.Name):
            found = self.named.get(node.id, ())
        elif isinstance(node, ast.Call) and _name_of(node) == "approx" and node.args:
            return self.leaves(node.args[0])
        else:
            found = (leaves,) if (leaves := _leaves(node)) else ()
        self.seen += [leaf for leaves in found for leaf in leaves]
        return found


def _columns(names: ast.expr) -> list[str]:
    """Returns the names that `parametrize` is given, as one text or as a sequence."""
    parts = names.elts if isinstance(names, ast.List | ast.Tuple) else [names]
    words = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return [name.strip() for word in words for name in word.split(",") if name.strip()]


def _cell(row: ast.expr, position: int, width: int) -> ast.expr:
    if isinstance(row, ast.Call) and _name_of(row) == "param":
        return row.args[position] if len(row.args) > position else row
    if width == 1:
        return row
    cells = row.elts if isinstance(row, ast.Tuple | ast.List) else []
    return cells[position] if len(cells) > position else row


def _leaves(node: ast.expr) -> tuple[ast.expr, ...]:
    """Returns the constants, and the empty containers, that a literal consists of; none where it is no literal."""
    match node:
        case ast.Constant(value=value):
            return () if value is ... else (node,)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant() as inner):
            return (inner,)
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            pass
        case ast.Dict(keys=keys, values=values) if None not in keys:
            parts = [*(key for key in keys if key is not None), *values]
            if not all(_leaves(key) for key in keys if key is not None):
                return ()
        case _:
            return ()
    if not parts:
        return (node,)
    found = [_leaves(part) for part in parts]
    return tuple(leaf for leaves in found for leaf in leaves) if all(found) else ()


# ------------------------------------------------------------------ making


def _fixed(kind: str, sure: bool, edit: Edit) -> Site:
    return Site(kind, sure, lambda _: (edit,))


def _perturbed(
    groups: Sequence[Sequence[ast.expr]], values: "_Values", text: _Text, generator: np.random.Generator
) -> tuple[Edit, ...]:
    """Makes one literal of each group wrong, and equal ones that the test expects elsewhere in the same way."""
    changed = dict.fromkeys((leaves[int(generator.integers(len(leaves)))] for leaves in groups), "")
    written: dict[str, str] = {}
    for leaf in changed:
        changed[leaf] = written.setdefault(ast.dump(leaf), _wrong(leaf, text.of(leaf), generator))
    for leaf in values.seen:
        if (wrong := written.get(ast.dump(leaf))) is not None:
            changed[leaf] = wrong
    return tuple(text.replace(leaf, wrong) for leaf, wrong in changed.items())


def _wrong(leaf: ast.expr, written: str, generator: np.random.Generator) -> str:
    """Returns another literal of the same kind, written out as this one is.

    A number stays near enough to be plausible, and far enough from the right one for the usual tolerances.
    """
    shift = int(generator.integers(1, 9))
    match leaf:
        case ast.List():
            return f"[{shift}]"
        case ast.Tuple():
            return f"({shift},)"
        case ast.Dict():
            return f"{{{shift}: {shift}}}"
        case ast.Constant(value=bool() as value):
            return repr(not value)
        case ast.Constant(value=int() as value):
            return repr(_beside(value, 1 + value // 10_000, max(8, value // 5), generator))
        case ast.Constant(value=float() as value):
            return _near(value, written, generator)
        case ast.Constant(value=complex() as value):
            other = value * (1 + shift) + shift
            return repr(other) if other != value and cmath.isfinite(other) else "0.5"
        case ast.Constant(value=str() as value):
            return repr(_misspelled(value, generator))
        case ast.Constant(value=bytes() as value):
            return repr(_misspelled(value.decode("latin-1"), generator).encode("latin-1"))
        case _:  # None
            return "False"


def _beside(value: int, least: int, most: int, generator: np.random.Generator) -> int:
    """Returns a number that is `least` to `most` above or below another, and not negative."""
    distance = least + ((most - least + 1) * int(generator.integers(1 << 30)) >> 30)
    return value - distance if distance <= value and generator.integers(2) else value + distance


def _near(value: float, written: str, generator: np.random.Generator) -> str:
    """Returns a float with as many decimals, 2 to 40 percent away and at least three units of the last decimal."""
    mantissa, mark, exponent = written.replace("_", "").lower().partition("e")
    whole, point, decimals = mantissa.partition(".")
    units = int(whole + decimals or "0")
    other = _beside(units, max(3, -(-units // 50)), max(8, 2 * units // 5), generator)
    digits = str(other or 3).rjust(len(decimals) + 1, "0")
    split = len(digits) - len(decimals)
    text = f"{digits[:split]}{point}{digits[split:]}{mark}{exponent}"
    apart = abs(float(text) - value)
    return text if max(1e-2 * value, 1e-5) < apart < math.inf else "0.5"


def _misspelled(word: str, generator: np.random.Generator) -> str:
    """Returns the word with one letter or digit replaced by another."""
    places = [place for place, letter in enumerate(word) if letter.isascii() and letter.isalnum()]
    if not places:
        return word + "aeinrst"[int(generator.integers(7))]
    place = places[int(generator.integers(len(places)))]
    letter = word[place]
    kind = "0123456789" if letter.isdigit() else "abcdefghijklmnopqrstuvwxyz"
    others = [other for other in kind if other != letter.lower()]
    other = others[int(generator.integers(len(others)))]
    return word[:place] + (other.upper() if letter.isupper() else other) + word[place + 1 :]


def _paired(node: ast.expr, text: _Text, generator: np.random.Generator) -> tuple[Edit, ...]:
    return (text.replace(node, f"({text.of(node)}, {int(generator.integers(2, 99))})"),)


def _turned_comparison(test: ast.Compare, sure: bool, text: _Text) -> Site:
    start, end = text.span(test.left)[1], text.span(test.comparators[0])[0]
    between = text.data[start:end]
    found = _OPERATOR.search(between)
    if found is None or b"#" in between:
        return _fixed("turned", sure, text.replace(test, f"not ({text.of(test)})"))
    place = Edit(start + found.start(), start + found.end(), _OPPOSITE[type(test.ops[0])])
    return _fixed("turned", sure, place)


def _other_exception(expected: ast.expr, text: _Text, generator: np.random.Generator) -> tuple[Edit, ...]:
    kind = getattr(builtins, expected.id, None) if isinstance(expected, ast.Name) else None
    names = _RARE
    if isinstance(kind, type):
        names = tuple(n for n in _COMMON if not _are_related(getattr(builtins, n), kind)) or _RARE
    return (text.replace(expected, names[int(generator.integers(len(names)))]),)


def _are_related(left: type, right: type) -> bool:
    return issubclass(left, right) or issubclass(right, left)


def _added(function: Function, text: _Text, generator: np.random.Generator) -> tuple[Edit, ...]:
    last = function.body[-1]
    start, end = text.span(last)
    line = text.data.rfind(b"\n", 0, start) + 1
    indent = text.data[line:start].decode()
    failing = f"assert {int(generator.integers(2, 50))} == {int(generator.integers(50, 99))}"
    return (Edit(end, end, f"\n{indent}{failing}" if not indent.strip() else f"; {failing}"),)
