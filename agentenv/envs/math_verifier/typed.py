r"""LaTeX of arithmetic and algebra as typed text, which `parse_expression` reads: `\frac{1}{2}x^{2}`, `2\sqrt3`."""

import re
from typing import NoReturn

from .expressions import Call, Expression, ExpressionError, parse_expression

__all__ = ["AmbiguousError", "parse_typed", "to_typed"]

_MAX_LENGTH = 4_000
_MAX_OPERATIONS = 250
_FUNCTION = re.compile(
    r"Abs|LambertW|Max|Min|Mod|abs|a?(?:sin|cos|tan)h?|binomial|ceil|ceiling|conjugate|cot|csc|exp|factorial|floor|gamma"
    r"|gcd|im|lcm|ln|max|min|polygamma|re|sec|sign|sqrt"
)
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega"
_CONSTANTS = frozenset({"pi", *_GREEK.split()})
_LATEX_FUNCTIONS = {"exp": "exp", "ln": "ln", "arcsin": "asin", "arccos": "acos", "arctan": "atan"} | {
    name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "max", "min", "gcd")
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?|\.\d+)|\\(?P<command>[A-Za-z]+)|(?P<word>[A-Za-z]+)"
    r"|(?P<index>_(?:\{\s*[A-Za-z0-9]+\s*\}|[A-Za-z0-9]))|(?P<symbol>[-+*/^!(),{}|]))"
)
_DEGREE = re.compile(r"\s*\[\s*([1-9]\d?)\s*\]")
_ENDS = frozenset({"number", "name", "close"})


class AmbiguousError(ExpressionError):
    """An expression may mean two things."""


class _Converter:
    """Turns tokens into typed text; a sign of multiplication goes where two factors meet."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts: list[str] = []
        self._last = ""  # the kind of the last token
        self._divided = False  # a slash stands in the text

    def convert(self) -> str:
        position, end = 0, len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None:
                _refuse(self._text[position:])
            position = match.end()
            position = self._take(match, position)
        return "".join(self._parts)

    def _take(self, match: re.Match[str], position: int) -> int:
        match match.lastgroup:
            case "number":
                self._add("number", match["number"])
            case "word":
                self._word(match["word"], position)
            case "index":
                if self._last != "name":
                    _refuse(match[0])
                self._parts.append("_" + match["index"].strip("_{} "))
            case "command":
                return self._command(match["command"], position)
            case _:
                return self._symbol(match["symbol"], position)
        return position

    def _word(self, word: str, position: int) -> None:
        if _FUNCTION.fullmatch(word) and re.match(r"\s*\(", self._text[position:]):
            self._add("function", word)
        elif word in _CONSTANTS:
            self._add("name", word)
        elif (
            any(word.endswith(name) or word.startswith(name) for name in ("sin", "cos", "tan", "log", "ln", "exp"))
            or len(word) > 3
        ):
            _refuse(word)
        else:
            for letter in word:
                self._add("name", letter)

    def _symbol(self, symbol: str, position: int) -> int:
        if symbol in "({":
            self._add("open", "(")
        elif symbol in ")}":
            self._parts.append(")")
            self._last = "close"
        elif symbol == "|":
            return self._absolute(position)
        elif symbol == "!":
            self._parts.append("!")
        else:
            self._divided |= symbol == "/"
            if symbol in "+-":
                self._divided = False
            self._parts.append(symbol)
            self._last = "operator"
        return position

    def _absolute(self, position: int) -> int:
        end = self._text.find("|", position)
        if end < 0:
            _refuse("|")
        self._add("open", f"abs({to_typed(self._text[position:end])})")
        self._last = "close"
        return end + 1

    def _command(self, name: str, position: int) -> int:
        if name in _CONSTANTS:
            self._add("name", name)
            return position
        if name in {"frac", "binom", "sqrt"}:
            return self._structure(name, position)
        function = _LATEX_FUNCTIONS.get(name)
        if function is None or not re.match(r"\s*[({]", self._text[position:]):
            _refuse("\\" + name)
        self._add("function", function)
        return position

    def _structure(self, name: str, position: int) -> int:
        if name == "sqrt":
            text, position = _root(self._text, position)
        else:
            first, position = _group(self._text, position)
            second, position = _group(self._text, position)
            if name == "frac" and self._last == "number":
                if not (self._parts[-1] + first + second).isdigit():
                    _refuse("a mixed number")
                first, self._last = f"{self._parts.pop()}*({second})+{first}", ""
            text = f"(({first})/({second}))" if name == "frac" else f"binomial({first},{second})"
        self._add("open", text)
        self._last = "close"
        return position

    def _add(self, kind: str, text: str) -> None:
        if self._last in _ENDS:
            if self._divided:
                msg = "in a quotient such as 1/2x it is not clear what is divided; write \\frac or parentheses"
                raise AmbiguousError(msg)
            if kind == "number":
                _refuse(text)
            if self._last == "name" and kind == "open" and len(self._parts) and self._parts[-1] not in _CONSTANTS:
                _refuse("a function")
            self._parts.append("*")
        self._parts.append(text)
        self._last = kind


def _root(text: str, position: int) -> tuple[str, int]:
    r"""Returns a root as typed text, and where it ends; an odd root of a negative number is negative."""
    degree = _DEGREE.match(text, position)
    inside, position = _group(text, degree.end() if degree else position)
    if degree is None:
        return f"(sqrt({inside}))", position
    if int(degree[1]) % 2 and re.fullmatch(r"-\d+", inside):
        return f"(-({inside[1:]})^(1/{degree[1]}))", position
    return f"(({inside})^(1/{degree[1]}))", position


def _group(text: str, position: int) -> tuple[str, int]:
    """Returns the typed content of the braces at a position, and where they end."""
    while position < len(text) and text[position].isspace():
        position += 1
    if position == len(text) or text[position] != "{":
        _refuse(text[position:])
    depth, end = 0, position
    while end < len(text):
        depth += (text[end] == "{") - (text[end] == "}")
        end += 1
        if not depth:
            break
    if depth:
        _refuse(text[position:])
    return to_typed(text[position + 1 : end - 1]), end


def _refuse(what: str) -> NoReturn:
    msg = f"cannot read {what[:20]!r}"
    raise ExpressionError(msg)


def to_typed(text: str) -> str:
    """Returns LaTeX of arithmetic and algebra in the notation of `parse_expression`.

    Raises:
        ExpressionError: the text has something else in it, or something ambiguous such as `1/2x` or `a(b+c)`.
    """
    if text.count("{") > 60:
        _refuse(text)
    return _Converter(text).convert()


def parse_typed(text: str) -> Expression:
    """Reads typed arithmetic and algebra, or LaTeX of it; products may be implied.

    Raises:
        ExpressionError: the text is anything else.
    """
    tree = parse_expression(to_typed(text), max_length=_MAX_LENGTH, max_operations=_MAX_OPERATIONS)
    return _checked(tree)


def _checked(tree: Expression) -> Expression:
    """Returns the tree with `ln` as `log` and other names of functions as the worker knows them."""
    if not isinstance(tree, Call):
        return tree
    names = {"ln": "log", "Abs": "abs", "Max": "max", "Min": "min", "Mod": "%", "ceiling": "ceil"}
    return Call(names.get(tree.operator, tree.operator), tuple(map(_checked, tree.arguments)))
