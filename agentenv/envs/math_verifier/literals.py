"""Literals: what nothing is left to compute in, such as numbers, digits to a base, dates."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

__all__ = ["Reading", "UnreadableError", "read_based", "read_code", "read_literal"]

Reading = list[Any]
"""JSON, as the table in `reading` says."""

_MAX_EXPONENT = 400
_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(rf"([-+]?)\s*({_INTEGER})\.?")
_DECIMAL = re.compile(rf"([-+]?)\s*((?:{_INTEGER})?\.\d+)")
_SCIENCE = re.compile(
    r"([-+]?\s*\d+(?:\.\d*)?|[-+]?\.\d+)\s*"
    r"(?:\*\s*10\s*\^\s*(?:\{\s*([-+]?\d+)\s*\}|\(([-+]?\d+)\)|([-+]?\d+))|[eE]([-+]?\d+))"
)
_FRACTION = re.compile(r"([-+]?)\s*(?:\\frac\{\s*(-?\d+)\s*\}\{\s*(-?\d+)\s*\}|(\d+)\s*/\s*(-?\d+))")
_MIXED = re.compile(r"([-+]?)\s*(\d+)\s*(?:\\frac\{\s*(\d+)\s*\}\{\s*(\d+)\s*\}|(?<=\d)\s+(\d+)/(\d+))")
_DATE = re.compile(r"\d{4}([-/])\d{1,2}\1\d{1,2}|\d{1,2}([-/])\d{1,2}\2\d{4}")
_CODE = re.compile(rf"(?:{_DATE.pattern})|(?:\d{{3}}-)+\d{{4}}|(?=0\d|.*-0\d)\d+(?:-\d+)+")
_BASED = re.compile(
    r"(?P<open>\()?\s*(?P<digits>[0-9A-F]*[0-9][0-9A-F]*(?:\.[0-9A-F]+)?)\s*(?(open)\))\s*"
    r"_\s*(?:\{\s*(?:\\text\s*\{)?\s*\(?(?P<base>\w+)\)?\s*\}{1,2}|(?P<digit>\d))"
)


class UnreadableError(ValueError):
    """A text does not say one thing that can be compared; the message says what is in the way."""


def read_code(text: str, depth: int) -> Reading | None:
    """Reads a date, or a number such as that of a telephone, whose hyphens or slashes are no operators: its parts."""
    del depth
    if not _CODE.fullmatch(text):
        return None
    mark = "-" if "-" in text else "/"
    parts: list[Reading] = [["number", part] for part in text.split(mark)]
    if _DATE.fullmatch(text):
        parts = [["number", str(int(part))] for _, part in parts]
    return ["tuple", mark, mark, parts]


def read_literal(text: str, depth: int) -> Reading | None:
    """Reads a number that nothing is left to compute in."""
    del depth
    readers: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Reading | None]], ...] = (
        (_NUMBER, lambda m: ["number", str(_signed(m[1], Fraction(m[2].replace(",", ""))))]),
        (_DECIMAL, lambda m: ["decimal", m[1].replace("+", "") + m[2].replace(",", "")]),
        (_SCIENCE, lambda m: _scientific("".join(m[1].split()), next(filter(None, m.groups()[1:])))),
        (_FRACTION, lambda m: _fraction_of(m[1], 0, m[2] or m[4], m[3] or m[5])),
        (_MIXED, lambda m: _fraction_of(m[1], int(m[2]), m[3] or m[5], m[4] or m[6])),
    )
    for pattern, make in readers:
        if match := pattern.fullmatch(text):
            return make(match)
    return None


def read_based(text: str, depth: int) -> Reading | None:
    """Reads digits with their base as a subscript; equal are digits to the same base."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    digits = read_literal(match["digits"], depth) or ["words", match["digits"].lower()]
    base = match["base"] or match["digit"]
    if digits[0] == "words" and not (base.isdecimal() and int(base) > 10):
        return None
    return digits if base in {"10", "ten"} else ["quantity", digits, f"base {base}"]


def _scientific(digits: str, exponent: str) -> Reading:
    if abs(int(exponent)) > _MAX_EXPONENT:
        msg = f"its exponent is beyond {_MAX_EXPONENT}"
        raise UnreadableError(msg)
    return ["decimal", f"{digits}e{int(exponent)}"]


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _fraction_of(sign: str, whole: int, above: str, below: str) -> Reading | None:
    return ["number", str(_signed(sign, whole + Fraction(int(above), int(below))))] if int(below) else None
