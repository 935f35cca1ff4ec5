r"""What an agent's text says, and how it is handed to math-verify.

A plain number is a whole number or a fraction of two, spelled with ASCII digits: `72`, `-5`, `1,234`, `3/4`, also in
`$...$` or `\boxed{...}`. For a pair of plain numbers math-verify's verdict is equality of the values, so nobody needs
to ask it (`tests/envs/math_verifier/test_verifier.py` does, and compares).

Anything else goes to math-verify, which looks for expressions inside a text. That is right for prose and wrong for
bare LaTeX: in `2\sqrt{3}` without dollar signs it finds `2`. So `quote` puts what is not prose in a box.
"""

import re
from fractions import Fraction

__all__ = ["canonical_answer", "last_boxed", "plain_value"]

_WHOLE = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,9}|[0-9]{1,30}(?:/0*[1-9][0-9]{0,29})?)"
_PLAIN = re.compile(rf"-?{_WHOLE}")
_WRAPPED = re.compile(r"\$([^$]*)\$|\\boxed\{([^{}]*)\}")
_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|(?P<open>\{)|(?P<close>\})|\\.", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""Returns the content of the last complete `\boxed{...}` (or `\fbox{...}`) of a text, `None` where there is none.

    Braces inside nest; `\{` and `\}` do not count. Takes time in proportion to the length.
    """
    stack: list[int | None] = []  # where the content of each open brace begins; None where it is no box
    found: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        match match.lastgroup:
            case "box":
                stack.append(match.end())
            case "open":
                stack.append(None)
            case "close" if stack:
                start = stack.pop()
                if start is not None and (found is None or start > found[0]):
                    found = start, match.start()
            case _:
                pass
    return None if found is None else text[found[0] : found[1]]


def plain_value(text: str) -> Fraction | None:
    r"""Returns the value of a plain number, `None` for anything else."""
    text = text.strip()
    if wrapped := _WRAPPED.fullmatch(text):
        text = (wrapped[1] or wrapped[2] or "").strip()
    return Fraction(text.replace(",", "")) if _PLAIN.fullmatch(text) else None


def canonical_answer(text: str) -> str:
    """Returns a spelling of the answer that is the same for every spelling of a plain number."""
    value = plain_value(text)
    return " ".join(text.split()) if value is None else str(value)
