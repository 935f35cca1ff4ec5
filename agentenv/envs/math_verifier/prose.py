"""Which text is prose, and the value that a sentence states: after its last verb, or its only number."""

import re
from collections.abc import Iterator

from .numerals import denies, makes_other

__all__ = ["KNOWN", "is_prose", "prose_candidates"]

KNOWN = re.compile(
    r"\\.*|a?(?:sin|cos|tan|cot|sec|csc)h?|arc(?:sin|cos|tan)|binom(?:ial)?|exp|frac|infty|ln|log|lim|max|min|pi|sqrt|abs"
    r"|floor|ceil|ceiling|factorial|gcd|lcm|det|sum|prod|int|mathbb|sign|conjugate|(?:poly)?gamma|LambertW|Mod|Abs|Max|Min"
    r"|Interval|FiniteSet|Union|Matrix|open|Lopen|Ropen"
)
"""Names that mathematics is written with."""
_WORD = re.compile(r"[A-Za-z]+")
_SHORT = re.compile(r"the|are|was|she|has|had|his|her|its|you|not|but|for|can|get|one|two|six|ten|all|any|who|how|why")
_MARKUP = re.compile(r"\\text\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_VERBS = re.compile(r"(?<![A-Za-z])(?:is|it|to|of|in|we|he|no|so|be|by|at|as|if|an|my|on)(?![A-Za-z])")

_ANCHOR = re.compile(
    r"(?:####|(?<![A-Za-z])(?:is|are|be|was|equals?|equal to|gives?|get|makes?|answer|solutions?|result|total)"
    r"(?![A-Za-z])\s*:?|[=:])\s*"
)
_LEAD = re.compile(
    r"(?:equal to|exactly|about|approximately|simply|just|given by|the (?:number|value|set|interval|point))\s+"
)
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\\?\$|[€£¥₹])?\s*(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?(?:\s*\\?%)?(?!\w)"
)
_MATHEMATICS = re.compile(r"\\(?!\$)|[\^*_{}()\[\]<>≤≥≠|+=]|(?<=\w)-|(?<=\S) -")
_CLAUSE = re.compile(r"[.!?;,]\s|\n")
_HEDGES = re.compile(r"∨|(?<![A-Za-z])(?:either|maybe|perhaps|possibly|not|or|nor|neither)(?![A-Za-z])")


def prose_candidates(text: str) -> Iterator[str]:
    """Yields the texts that may be what a sentence states, the likeliest first.

    None where it names alternatives, denies what it says, or makes another value of it (`at least 10`, `half of 10`).
    What follows the last `is`, `are`, `=`, `:` or the like, and then the only number in it.
    """
    text = text.strip().rstrip(".!?")
    numbers = {match[0].strip() for match in _NUMBER.finditer(text)}
    anchors = list(_ANCHOR.finditer(text))
    if anchors:
        rest = _LEAD.sub("", text[anchors[-1].end() :]).strip()
        lead = text[: anchors[-1].end()]
        hedged = (_HEDGES.search(lead) and len(numbers) > 1) or denies(_CLAUSE.split(lead)[-1])
        if hedged or makes_other(rest):
            return
        if rest:
            yield rest
            inside = {match[0].strip() for match in _NUMBER.finditer(rest)}
            if len(inside) == 1 and not _HEDGES.search(rest) and not _MATHEMATICS.search(rest):
                yield from _amount(rest)
    if len(numbers) == 1 and not _MATHEMATICS.search(text) and not makes_other(text):
        yield from _amount(text)


def _amount(text: str) -> Iterator[str]:
    """Yields the number in a text with what follows it in its clause, perhaps a unit, and alone."""
    for match in _NUMBER.finditer(text):
        yield _CLAUSE.split(text[match.start() :])[0].strip()
        yield match[0].strip()


def is_prose(text: str) -> bool:
    """Returns whether there are words in a text that mathematics is not written with."""
    bare = _MARKUP.sub(" ", text)
    words = (word for word in _WORD.findall(bare) if not KNOWN.fullmatch(word))
    return any(len(word) > 3 or _SHORT.fullmatch(word.lower()) for word in words) or bool(_VERBS.search(bare))
