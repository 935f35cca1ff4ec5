r"""What an agent's text says, and how it is handed to math-verify.

A plain number is a whole number or a fraction of two, spelled with ASCII digits: `72`, `-5`, `1,234`, `3/4`, also in
`$...$` or `\boxed{...}`. For a pair of plain numbers math-verify's verdict is equality of the values, so nobody needs
to ask it (`tests/envs/math_verifier/test_verifier.py` does, and compares).

Anything else goes to math-verify, which looks for expressions inside a text. That is right for prose and wrong for
bare LaTeX: in `2\sqrt{3}` without dollar signs it finds `2`. So `quote` puts what is not prose in a box.
"""

import re
from collections.abc import Callable
from fractions import Fraction

__all__ = ["canonical_answer", "last_boxed", "plain_value", "quote"]

_WHOLE = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,9}|[0-9]{1,30}(?:/0*[1-9][0-9]{0,29})?)"
_PLAIN = re.compile(rf"-?{_WHOLE}")
_WRAPPED = re.compile(r"\$([^$]*)\$|\\boxed\{([^{}]*)\}")
_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|(?P<open>\{)|(?P<close>\})|\\.", re.DOTALL)

_MARKED = re.compile(r"\$.*\$|\\boxed|\\fbox|\\\(|\\\[", re.DOTALL)
_ENCLOSED = re.compile(r"\$\$?([^$]+)\$?\$|\\\(([^$]+)\\\)|\\\[([^$]+)\\\]", re.DOTALL)
_COMMANDS = re.compile(r"\\(?:text|mbox|hbox|mathrm|textbf|mathbf|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_WORDS_ONLY = re.compile(r"[^\W\d_][^\W\d_]+(?:[ '-][^\W\d_]+)*\.?")
_EMPHASIS = re.compile(r"(\*{1,3}|`{1,3})(?P<inner>.+)\1|<(\w+)>(?P<content>.*)</\3>", re.DOTALL)
_NUMBER = r"[-−]?[\d.,]*\d"
_COUNTED = re.compile(
    rf"\s*(?:[$€£¥₹]|{_NUMBER}\s*[$€£¥₹]"  # money
    rf"|{_NUMBER}\s+(?!(?:pi|and|or|sqrt|sin|cos|tan|log|ln)\b)[^\W\d_]{{2,}}"  # 5 apples
    rf"|{_NUMBER}\s+[mshgL](?:\^?\{{?[23]\}}?|[²³])?\s*$)"  # 5 m^2
)
_SPOKEN = re.compile(r"(?<![^\W\d_])(?!(?:and|or|pi)\b)[^\W\d_]{2,}\s+(?!(?:and|or|pi)\b)[^\W\d_]{2,}(?![^\W\d_])")
_KNOWN = frozenset(
    {
        "and",
        "arccos",
        "arcsin",
        "arctan",
        "cos",
        "cot",
        "csc",
        "exp",
        "inf",
        "infinity",
        "ln",
        "log",
        "or",
        "pi",
        "sec",
        "sin",
        "sqrt",
        "tan",
    }
)


def _repeating(match: re.Match[str]) -> str:
    """Returns the fraction of a repeating decimal: whole.fixed and then period, over and over."""
    whole, fixed, period = match.groups()
    shift, cycle = 10 ** len(fixed), 10 ** len(period) - 1
    value = Fraction(int(whole + fixed or "0"), shift) + Fraction(int(period), shift * cycle)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _join(match: re.Match[str]) -> str:
    return match[1].replace(" ", "")


_MARKUP = (
    (re.compile(r"\\[mh]box(?=\s*\{)"), r"\\text"),
    (re.compile(r"\\(?:mathbf|boldsymbol|vec|mathit)\s*\{([A-Za-z])\}"), r"\1"),
    (re.compile(r"\\angle(?![A-Za-z])"), ""),
)
_SPELLINGS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(\d{0,50})\.(\d{0,50})\\overline\{?(\d{1,50})\}?"), _repeating),
    (re.compile(r"\s*\\(?:text|mathrm)\s*\{\s*(?:and|or)\s*\}\s*"), ", "),
    (re.compile(r"(?<![\d.,])(\d{1,3}(?: \d{3})+)(?![\d ])"), _join),
    (re.compile(r"(?<![\d.,/])(\d+) (\d+)/(\d+)(?![\d/])"), r"\1\\frac{\2}{\3}"),
    (re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?!\w)"), r"\1 \\cdot 10^{\2}"),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln|sqrt)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"\\sqrt \s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\s*(?<![\\A-Za-z])(?:and|or)(?![A-Za-z])\s*"), ", "),
    (re.compile("<="), r"\\le "),
    (re.compile(">="), r"\\ge "),
    (re.compile("√\\s*(\\d+|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile("½"), r"\\frac{1}{2}"),
    (re.compile("¼"), r"\\frac{1}{4}"),
    (re.compile("¾"), r"\\frac{3}{4}"),
    (re.compile("[−–]"), "-"),
    (re.compile(r"∞|(?<![\\A-Za-z])inf(?:inity)?(?![A-Za-z])"), r"\\infty "),
    (re.compile("∪"), r"\\cup "),
)


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


def quote(text: str) -> str:
    r"""Returns the text as math-verify reads it rightly.

    - Of a text with one `\boxed{...}`, or in dollar signs from end to end, the content is read in what follows. Other
      text with `$...$`, `\(`, `\[` or `\boxed` stays as it is, and so does prose: math-verify finds the expression.
    - Words alone (`east`, `no solution`) become `\boxed{\text{...}}`.
    - The rest is taken as one expression, in LaTeX or as people type it (`sqrt(2)`, `2**3`, `1 1/2`, `x <= 3`,
      `1 or 2`), and put in a box.
    """
    text = text.strip()
    if emphasis := _EMPHASIS.fullmatch(text):
        text = (emphasis["inner"] or emphasis["content"] or "").strip()
    if _MARKED.search(text):
        content = _only_content(text)
        return text if content is None else quote(content)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text).strip()
    if _WORDS_ONLY.fullmatch(text) and text.lower() not in _KNOWN:
        return rf"\boxed{{\text{{{text.rstrip('.')}}}}}"
    if _is_prose(_COMMANDS.sub(" ", text)):
        return text.replace("−", "-")
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return rf"\boxed{{{text.rstrip('.')}}}"


def _only_content(text: str) -> str | None:
    """Returns what stands in the only box of a text, or in the dollar signs around all of it."""
    if text.count(r"\boxed") + text.count(r"\fbox") == 1:
        return last_boxed(text)
    enclosed = _ENCLOSED.fullmatch(text)
    return None if enclosed is None else next(filter(None, enclosed.groups()), "")


def _is_prose(text: str) -> bool:
    """Returns whether a text, its LaTeX commands removed, is a quantity with a unit or has words in it."""
    if _COUNTED.match(text) or _SPOKEN.search(text):
        return True
    return any(len(word) > 2 and word.lower() not in _KNOWN for word in _WORD.findall(text))
