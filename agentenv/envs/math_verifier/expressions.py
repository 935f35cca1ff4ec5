"""Expressions that an agent writes, read into trees by a parser of our own, within limits of size. No `eval`.

expression -> term (("+" | "-") term)*
term       -> unary (("*" | "/" | "//" | "%") unary)*
unary      -> ("-" | "+") unary | power
power      -> postfix (("^" | "**") unary)?
postfix    -> atom "!"*
atom       -> number | name | name "(" expression ("," expression)* ")" | "(" expression ")"
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

__all__ = [
    "MAX_DEPTH",
    "MAX_LENGTH",
    "MAX_OPERATIONS",
    "Call",
    "Expression",
    "ExpressionError",
    "count_operations",
    "parse_expression",
    "show",
    "show_number",
    "to_lists",
]

MAX_LENGTH = 500
"""Characters of an expression."""
MAX_DEPTH = 40
"""Levels of nesting of an expression."""
MAX_OPERATIONS = 100
"""Operations in an expression."""


class ExpressionError(ValueError):
    """An expression cannot be read or computed; the message is for the agent."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or function applied to arguments. `operator` is `+ - * / // % ^ ! neg` or a function's name."""

    operator: str
    arguments: tuple["Expression", ...]


Expression = Fraction | str | Call
"""A number, a name (`x`, `pi`), or an operation."""

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|([A-Za-z][A-Za-z0-9_]*)|(\*\*|//|[-+*/%^!(),]))")
_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/"})
_LEVELS: tuple[frozenset[str], ...] = (frozenset("+-"), frozenset({"*", "/", "//", "%"}))


def parse_expression(text: str, *, max_length: int = MAX_LENGTH, max_operations: int = MAX_OPERATIONS) -> Expression:
    """Reads an expression.

    Args:
        text: `^` and `**` are powers, `//` and `%` the quotient and remainder of a
            floor division; `−`, `×` and `÷` are understood. A minus sign before a number makes a negative number.
        max_length: characters that it may have.
        max_operations: operations that it may have.

    Raises:
        ExpressionError: the text is not an expression, or is too long, too deep or has too many operations.
    """
    if len(text) > max_length:
        msg = f"expression too long: {len(text)} characters, at most {max_length}"
        raise ExpressionError(msg)
    tokens = _tokens(text.translate(_SPELLINGS))
    if sum(isinstance(part, str) and part not in "(,)" for part in tokens) > max_operations:
        msg = f"too many operations: at most {max_operations}"
        raise ExpressionError(msg)
    return _Parser(tokens).parse()


def _tokens(text: str) -> list[str | Fraction]:
    tokens: list[str | Fraction] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            msg = f"cannot read {text[position:].strip()[:1]!r} in an expression"
            raise ExpressionError(msg)
        number, name, symbol = match.groups()
        tokens.append(_number(number) if number else name or symbol)
        position = match.end()
    return tokens


def _number(text: str) -> Fraction:
    return Fraction(int(text)) if text.isdecimal() else Fraction(text.rstrip("."))


class _Parser:
    """Recursive descent over tokens; `_depth` bounds the recursion."""

    def __init__(self, tokens: list[str | Fraction]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        if not self._tokens:
            msg = "empty expression"
            raise ExpressionError(msg)
        tree = self._binary(0)
        if self._next < len(self._tokens):
            raise self._unexpected()
        return tree

    def _peek(self) -> str | Fraction | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _unexpected(self) -> ExpressionError:
        token = self._peek()
        if token is None:
            return ExpressionError("the expression ends too early")
        shown = show_number(token) if isinstance(token, Fraction) else token
        return ExpressionError(f"unexpected {shown!r}")

    def _binary(self, level: int) -> Expression:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while (operator := self._peek()) in _LEVELS[level] and isinstance(operator, str):
            self._next += 1
            left = Call(operator, (left, self._binary(level + 1)))
        return left

    def _unary(self) -> Expression:
        sign = self._peek()
        if sign not in {"-", "+"}:
            return self._power()
        self._next += 1
        self._enter()
        operand = self._unary()
        self._depth -= 1
        if sign == "+":
            return operand
        return -operand if isinstance(operand, Fraction) else Call("neg", (operand,))

    def _power(self) -> Expression:
        base = self._postfix()
        if self._peek() not in {"^", "**"}:
            return base
        self._next += 1
        self._enter()
        exponent = self._unary()
        self._depth -= 1
        return Call("^", (base, exponent))

    def _postfix(self) -> Expression:
        operand = self._atom()
        while self._peek() == "!":
            self._next += 1
            operand = Call("!", (operand,))
        return operand

    def _atom(self) -> Expression:
        token = self._peek()
        if isinstance(token, Fraction):
            self._next += 1
            return token
        if token == "(":  # noqa: S105
            self._next += 1
            return self._inside()
        if token is None or not token[0].isalpha():
            raise self._unexpected()
        self._next += 1
        if self._peek() != "(":
            return token
        self._next += 1
        arguments = [self._inside(",)")]
        while self._tokens[self._next - 1] == ",":
            arguments.append(self._inside(",)"))
        return Call(token, tuple(arguments))

    def _inside(self, closing: str = ")") -> Expression:
        self._enter()
        tree = self._binary(0)
        self._depth -= 1
        token = self._peek()
        if not isinstance(token, str) or token not in closing:
            raise self._unexpected()
        self._next += 1
        return tree

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            msg = f"expression too deep: at most {MAX_DEPTH} levels"
            raise ExpressionError(msg)


def count_operations(tree: Expression) -> int:
    """Returns how many operations the expression applies; a negative number counts none."""
    total, stack = 0, [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Call):
            total += 1
            stack += node.arguments
    return total


def show_number(value: Fraction) -> str:
    """Returns the number as the agent reads it: `7`, `-3/4`."""
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def show(tree: Expression) -> str:
    """Returns an expression in canonical spelling, without spaces and with no parentheses but the necessary ones."""
    return _show(tree, 0)


_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "neg": 3, "^": 4, "!": 5}


def _show(tree: Expression, outer: int) -> str:
    if isinstance(tree, str):
        return tree
    if isinstance(tree, Fraction):
        text = show_number(tree)
        strength = 2 if "/" in text else 3 if tree < 0 else 9
        return f"({text})" if strength < outer or (strength == 3 and outer > 3) else text
    arguments, strength = tree.arguments, _STRENGTH.get(tree.operator, 9)
    match tree.operator:
        case "neg":
            text = "-" + _show(arguments[0], 4)
        case "!":
            text = _show(arguments[0], 6) + "!"
        case "^":
            text = f"{_show(arguments[0], 5)}^{_show(arguments[1], 4)}"
        case "+" | "-" | "*" | "/" | "//" | "%":
            text = f"{_show(arguments[0], strength)}{tree.operator}{_show(arguments[1], strength + 1)}"
        case name:
            return f"{name}({','.join(_show(argument, 0) for argument in arguments)})"
    return f"({text})" if strength < outer else text


def to_lists(tree: Expression) -> Any:
    """Returns the expression as JSON values: `["number", numerator, denominator]`, a name, or `[operator, ...]`."""
    if isinstance(tree, Fraction):
        return ["number", str(tree.numerator), str(tree.denominator)]
    if isinstance(tree, str):
        return tree
    return [tree.operator, *(to_lists(argument) for argument in tree.arguments)]
