r"""What an agent's text says: the content of `\boxed{}`, and the value of a plain number.

A plain number is a whole number or a fraction of two, spelled with ASCII digits: `72`, `-5`, `1,234`, `3/4`, also in
`$...$` or `\boxed{...}`. For a pair of plain numbers math-verify's verdict is equality of the values, so nobody needs
to ask it (`tests/envs/math_verifier/test_verifier.py` does, and compares).
"""

import re
from fractions import Fraction

__all__ = ["canonical_answer", "last_boxed", "plain_value"]

_WHOLE = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]{1,30})"
_PLAIN = re.compile(rf"(?P<sign>-?)(?P<whole>{_WHOLE})(?:/(?P<below>[0-9]{{1,30}}))?")
_WRAPPED = re.compile(r"\$([^$]*)\$|\\boxed\{([^{}]*)\}")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def last_boxed(text: str) -> str | None:
    r"""Returns the content of the last complete `\boxed{...}` of a text, `None` where there is none.

    Braces inside nest; `\{` and `\}` do not count.
    """
    for match in reversed(list(_BOX.finditer(text))):
        depth, position = 1, match.end()
        while position < len(text):
            character = text[position]
            if character == "\\":
                position += 1
            elif character == "{":
                depth += 1
            elif character == "}":
                depth -= 1
                if not depth:
                    return text[match.end() : position]
            position += 1
    return None


def plain_value(text: str) -> Fraction | None:
    r"""Returns the value of a plain number, `None` for anything else."""
    text = text.strip()
    if wrapped := _WRAPPED.fullmatch(text):
        text = (wrapped[1] or wrapped[2] or "").strip()
    match = _PLAIN.fullmatch(text)
    if match is None or (match["below"] is not None and not int(match["below"])):
        return None
    value = Fraction(int(match["whole"].replace(",", "")), int(match["below"] or 1))
    return -value if match["sign"] else value


def canonical_answer(text: str) -> str:
    """Returns a spelling of the answer that is the same for every spelling of a plain number."""
    value = plain_value(text)
    return " ".join(text.split()) if value is None else str(value)
