"""Where a text comes apart: separators, conjunctions and relations outside of all brackets."""

import re
from dataclasses import dataclass

__all__ = [
    "Piece",
    "close_of",
    "join_thousands",
    "split_colons",
    "split_conjunctions",
    "split_relations",
    "split_semicolons",
    "split_separators",
    "split_union",
]

_TOKEN = re.compile(
    r"(?P<open>\\begin\s*\{[^{}]*\}|\\\{|[(\[{⟨])|(?P<close>\\end\s*\{[^{}]*\}|\\\}|[)\]}⟩])"
    r"|(?P<row>\\\\)|\\[A-Za-z]+|(?P<other>.)",
    re.DOTALL,
)
_ALTERNATIVES = re.compile(r"(?<=\))\s*\|\s*(?=\()")
_ZEROS = re.compile(r"(?<![\d.])([1-9]\d{0,2})((?:,0\d\d)+)(?!\d)")
_GROUPED = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, and the character that stands before it (empty for the first)."""

    text: str
    before: str


def _split(text: str, marks: str) -> list[Piece]:
    """Returns the parts of a text between the marks that stand outside of all brackets."""
    pieces: list[Piece] = []
    depth, start, before = 0, 0, ""
    for match in _TOKEN.finditer(text):
        mark = match["other"] or match["row"]
        if match["open"]:
            depth += 1
        elif match["close"]:
            depth -= 1
        elif mark and mark in marks and depth == 0:
            pieces.append(Piece(text[start : match.start()].strip(), before))
            start, before = match.end(), mark
    return [*pieces, Piece(text[start:].strip(), before)]


def split_separators(text: str) -> list[Piece]:
    """Splits at commas, semicolons and ends of lines."""
    if "\n" in text or "\\\\" in text:
        pieces = [piece for line in _split(text, "\\\\\n") for piece in _split(line.text, ",;") if line.text]
        return [piece for i, piece in enumerate(pieces) if piece.text or i + 1 < len(pieces)] or [Piece(text, "")]
    return _split(text, ",;")


def split_semicolons(text: str) -> list[Piece]:
    """Splits at semicolons, where commas stand inside of the items."""
    return _split(text, ";")


def split_conjunctions(text: str) -> list[Piece]:
    """Splits at `∧`, `∨`, a single `&`, and a `|` between parentheses."""
    return _split(_ALTERNATIVES.sub("∨", text), "∧∨&")


def split_relations(text: str) -> list[Piece]:
    """Splits at signs of equality and order."""
    return _split(text, "=<>≤≥≠≈∈")


def split_colons(text: str) -> list[Piece]:
    """Splits a ratio such as `3:4`."""
    return _split(text, ":")


def split_union(text: str) -> list[str]:
    """Splits at `∪`."""
    return [piece.text for piece in _split(text, "∪")]


def close_of(text: str) -> int:
    """Returns where the bracket that a text begins with is closed; -1 where it is not."""
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += bool(match["open"]) - bool(match["close"])
        if depth == 0:
            return match.end() - 1
    return -1


def join_thousands(text: str, *, top: bool) -> str:
    """Returns the text without the commas that group thousands, where they can be told from separators.

    `1,234` alone is a number, `(100,200)` a pair; where other separators stand apart (`1,234, 5,678`), a comma without
    a space groups. A group that begins with zero is no number of its own: `(1,000,2)` is a pair.
    """
    groups = [match.span() for match in _GROUPED.finditer(text)]
    if not groups:
        return _join_zeros(text)
    others = [i for i, character in enumerate(text) if character in ",;" and not any(a <= i < b for a, b in groups)]
    if (others and all(text[i + 1 : i + 2] in {" ", ""} for i in others)) or (not others and top):
        return _GROUPED.sub(lambda match: match[0].replace(",", ""), text)
    return _join_zeros(text)


def _join_zeros(text: str) -> str:
    return _ZEROS.sub(lambda match: match[0].replace(",", ""), text)
