r"""One spelling for the many that people and models write: characters, LaTeX markup, marks of thousands, conjunctions.

`spell` returns text in which every operator is one character (`≤ ≥ ≠ ≈ ± ∓ ∪ ∩ ∖ ∅ … °`), products are `*`, powers
`^`, and a conjunction between values is `∧` or `∨`. What it does not know stays as it is.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from itertools import groupby

from .numerals import compute_words

__all__ = ["spell"]

_INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0x2061, 0x2062, 0x2063, 0x2064, 0xFEFF])
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑‒﹣－", "-"),
        **dict.fromkeys("·⋅∙•×✕✖∗∙", "*"),
        **dict.fromkeys("÷∕", "/"),
        **dict.fromkeys("。｡", "."),
        **dict.fromkeys("、，﹐､", ", "),
        **dict.fromkeys("；﹔", "; "),
        **dict.fromkeys("⩽≦", "≤"),
        **dict.fromkeys("⩾≧", "≥"),
        **dict.fromkeys("″“”„", '"'),
        **dict.fromkeys("′’‘", "'"),
        "π": r"\pi ",
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "λ": r"\lambda ",
        "∞": r"\infty ",
        "ℝ": r"\mathbb{R}",
        "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}",
        "ℂ": r"\mathbb{C}",
        "ⅈ": "i",
        "ⅇ": "e",
        "∠": "",
    }
)
_COMMAND = r"(?![A-Za-z])\s*"


def _commands(names: str, symbol: str) -> tuple[re.Pattern[str], str]:
    return re.compile(rf"\\(?:{names}){_COMMAND}"), symbol


def _repeating(match: re.Match[str]) -> str:
    """Returns the fraction of a repeating decimal: whole.fixed and then period, over and over."""
    whole, fixed, period = match[1], match[2], match[3] or match[4]
    shift, cycle = 10 ** len(fixed), 10 ** len(period) - 1
    value = Fraction(int(whole + fixed or "0"), shift) + Fraction(int(period), shift * cycle)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _join(match: re.Match[str]) -> str:
    return re.sub(r"\D", "", match[0])


_BOX = r"\\(?:text(?:rm|bf|it|sf|tt|normal)?|[mh]box|math(?:rm|bf|sf)|operatorname\*?)(?![A-Za-z])"
_AND = "and|as well as|along with|und|et|plus also|和|与|及|以及|и"
_OR = "or|oder|ou|或|或者|или"
_SPACE = r"(?:\\[,;:!> ]|~|\\(?:q?quad|thinspace|enspace|space|displaystyle|textstyle|limits|nobreak)(?![A-Za-z]))"
_MARKS = r"(?:,\\!\s*|(?<!\\)\\[,;:!> ]|\{,\}|\{\\[,;:!]\}|[ ~_'])"
_DELIMITER = r"\\(?:left|right|middle)(?![A-Za-z])\s*\.?|\\[bB]ig{1,2}[lrm]?(?![A-Za-z])"

_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_RULES: tuple[_Rule, ...] = (
    (re.compile(_DELIMITER), ""),
    (
        re.compile(r"[(\[]\s*\\begin\{array\}\s*(?:\{[^{}]*\})?(.*?)\\end\{array\}\s*[)\]]", re.DOTALL),
        r"\\begin{pmatrix}\1\\end{pmatrix}",
    ),
    (re.compile(rf"(?<![\d.,\\])\d{{1,3}}(?:{_MARKS}\d{{3}})+(?![\d])"), _join),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), "."),
    (re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\d.])"), _join),
    (re.compile(rf"(?<!\\){_SPACE}"), " "),
    (re.compile(r"\\(?:hspace|vspace|phantom|label|tag)\*?\s*\{[^{}]*\}"), " "),
    (re.compile(r"\\(?:mathbf|boldsymbol|bm|vec|mathit|mathsf|hat)\s*\{\s*([A-Za-z])\s*\}"), r"\1"),
    (re.compile(r"\\underline\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\{\\(?:rm|bf|it)\s+([A-Za-z])\s*\}"), r"\1"),
    (re.compile(rf"{_BOX}\s*\{{\s*([eid])\s*\}}"), r"\1"),
    (re.compile(r"\\+(?=%)"), ""),
    (re.compile(r"\\(?:imath|jmath)(?![A-Za-z])"), "i"),
    (re.compile(r"(?<=\d)j(?![A-Za-z0-9])"), "i"),
    (re.compile(r"\\operatorname\*?\s*\{\s*(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp)\s*\}"), r"\\\1 "),
    (re.compile(_BOX), r"\\text"),
    (re.compile(rf"[,;]?\s*\\text\s*\{{\s*,?\s*(?:{_AND})\s*,?\s*\}}\s*"), "∧"),
    (re.compile(rf"[,;]?\s*\\text\s*\{{\s*,?\s*(?:{_OR})\s*,?\s*\}}\s*"), "∨"),
    (re.compile(rf"[,;]?\s*(?<![\\A-Za-z])(?:{_AND})(?![A-Za-z])\s*"), "∧"),
    (re.compile(rf"[,;]?\s*(?<![\\A-Za-z])(?:{_OR})(?![A-Za-z])\s*"), "∨"),
    _commands("land|wedge", "∧"),
    _commands("lor|vee", "∨"),
    (re.compile(r"\s*(?<!&)&&(?!&)\s*"), "∧"),
    (re.compile(r"\s*\|\|\s*"), "∨"),
    _commands("[dtc]frac", r"\\frac "),
    (re.compile(r"\\frac\s+"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(?=[\d{\\A-Za-z])"), r"\\frac{\1}"),
    (re.compile(r"(\\frac\{[^{}]*\})\s*([\dA-Za-z])"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*\("), "sqrt("),
    (re.compile(r"√\s*(\d+|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\*\*"), "^"),
    _commands("cdot|times|ast|cdotp", "*"),
    _commands("div", "/"),
    _commands("degree|textdegree", "°"),
    (re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))"), "°"),
    (
        re.compile(r"(?<![A-Za-z])(\\?(?:sin|cos|tan|cot|sec|csc))\s*[({]?\s*(\d+(?:\.\d+)?)\s*°\s*[)}]?"),
        r"\1(\2*\\pi /180)",
    ),
    (re.compile(r"(?<![\w)\]}])\]\s*([^\[\](){};]*[,;][^\[\](){};]*)(?=[\[\]])"), r"(\1"),
    (re.compile(r"(?<=[\[(])([^\[\](){};]*[,;][^\[\](){};]*)\[(?![\w\[])"), r"\1)"),
    (re.compile(r"\\(?:[lc]?dots|dots[cbmio])(?![A-Za-z])|\.\.\.+"), "…"),
    _commands("leqslant|leqq|leq|le", "≤"),
    _commands("geqslant|geqq|geq|ge", "≥"),
    _commands("neq|ne", "≠"),
    _commands("lt", "<"),
    _commands("gt", ">"),
    _commands("approx|thickapprox|simeq|doteq", "≈"),
    _commands("pm", "±"),
    _commands("mp", "∓"),
    (re.compile(r"\+\s*/\s*-|\+-(?=[\d\\(A-Za-z])"), "±"),
    _commands("in", "∈"),
    _commands("cup", "∪"),
    (re.compile(r"(?<=[\])}])\s*U\s*(?=[\[({\\])"), "∪"),
    _commands("cap", "∩"),
    _commands("setminus|smallsetminus|backslash", "∖"),
    _commands("emptyset|varnothing", "∅"),
    _commands("lbrace", r"\\{"),
    _commands("rbrace", r"\\}"),
    _commands("lbrack", "["),
    _commands("rbrack", "]"),
    _commands("langle", "⟨"),
    _commands("rangle", "⟩"),
    _commands("lvert|rvert|vert|mid", "|"),
    _commands("angle|measuredangle", ""),
    _commands("lg", r"\\log_{10} "),
    _commands("tg", r"\\tan "),
    _commands("ctg", r"\\cot "),
    (
        re.compile(r"(?:(?<=:\d\d)\s*|(?<=\d)\s+|(?<=\d)(?=[AaPp]\.))([AaPp])(?:\.\s?)?[Mm](?![A-Za-z])\.?"),
        lambda match: f" {match[1].upper()}M",
    ),
    (re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)"), "*"),
    (re.compile("<=|=<"), "≤"),
    (re.compile(">="), "≥"),
    (re.compile("!=|<>"), "≠"),
    (
        re.compile(r"(\d{0,50})\.(\d{0,50})(?:\\(?:overline|dot)\s*\{?(\d{1,50})\}?|\((\d{1,50})\)(?![\d(]))"),
        _repeating,
    ),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
)


def spell(text: str) -> str:
    """Returns the text in the one spelling that `reading` understands."""
    text = text.translate(_INVISIBLE).translate(_CHARACTERS)
    if not text.isascii():
        text = "".join(_compatible(kind, "".join(run)) for kind, run in groupby(text, _kind))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return compute_words(text).rstrip("\\ \n").strip()


def _kind(character: str) -> str:
    """Returns `super`, `sub` or `fraction` for such characters, `""` for any other."""
    tag, _, _ = unicodedata.decomposition(character).partition(" ")
    return tag[1:-1] if tag in {"<super>", "<sub>", "<fraction>"} else ""


def _compatible(kind: str, run: str) -> str:
    """Returns a run of characters of one kind in plain ones: full width, superscripts, `½`, digits of any script."""
    if kind == "fraction":
        return "".join(
            rf"\frac{{{above}}}{{{below or 1}}}"
            for above, _, below in (unicodedata.normalize("NFKC", character).partition("⁄") for character in run)
        )
    text = "".join(map(_digit, unicodedata.normalize("NFKC", run).replace("−", "-")))
    return text if not kind else f"{'^' if kind == 'super' else '_'}{{{text}}}"


def _digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if not character.isascii() and character.isdecimal() else character
