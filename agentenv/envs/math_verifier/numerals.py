"""Words that make another value of a number beside them: scale and sign are computed, others make it unreadable."""

import re
from fractions import Fraction

__all__ = ["compute_words", "denies", "makes_other", "scales_or_signs"]

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve"
    " thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SPELLED = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "crore": 7} | {
    "mil": 6, "mn": 6, "mln": 6, "bn": 9, "tn": 12,
}  # fmt: skip
_SCALE = rf"(?:{'|'.join(_SCALES)}|dozen)s?(?![A-Za-z])"
_AMOUNT = r"\\frac\{\d+\}\{\d+\}|(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?"
_SCALED = re.compile(
    rf"(?<![\w.,/}}])(?P<amount>{_AMOUNT})[\s-]*(?P<text>\\text\s*\{{\s*)?(?P<scales>{_SCALE}(?:[\s-]+{_SCALE})*)",
    re.IGNORECASE,
)
_NEXT = r"(?=\\?[$€£¥₹]?\s*(?:[\d.(]|\\(?:frac|sqrt|pi)))"
_SIGNED = re.compile(
    rf"(?<![A-Za-z\\])(?:\\text\s*\{{\s*(?P<text>WORD)\s*\}}\s*|(?P<word>WORD)\s+){_NEXT}".replace(
        "WORD", "negative|minus|positive|plus"
    ),
    re.IGNORECASE,
)
_WORDS = re.compile(rf"(?<![A-Za-z])(?:negative|minus|positive|plus|{_SCALE})(?![A-Za-z])", re.IGNORECASE)

_ORDINAL = (
    r"(?:thirds?|(?:four|fif|six|seven|eigh|nin|ten|[a-z]+teen|[a-z]+tie|hundred|thousand|[a-z]+illion)ths?|halves)"
)
_FUNCTION = (
    rf"(?:half|quarter|square|cube|root|power|factorial|reciprocal|inverse|opposite|negation|negative|logarithm|log"
    rf"|multiple|factor|divisor|fraction|part|complement|percent|percentage|double|triple|twice|{_ORDINAL})"
)
_COUNT = rf"(?:{'|'.join(_SPELLED)}|{_SCALE})"
_DENIED = re.compile(
    r"(?<![A-Za-z])(?:not|cannot|[a-z]+n't|never|neither|nor|hardly|doubt|wrong|incorrect|false"
    rf"|{_FUNCTION}\s+(?:of\s+)?(?:the\s+|my\s+|our\s+|this\s+)?(?:\w+\s+)?(?:answer|solution|result))(?![A-Za-z])"
    r"|(?:∨|at\s+(?:least|most))\s*equal",
    re.IGNORECASE,
)
_NUMBER = r"\\?[$€£¥₹]?\s*[-+]?\.?\d"
_OTHER = re.compile(
    r"(?<![A-Za-z])(?:"
    r"than(?![A-Za-z])|at\s+(?:least|most)(?![A-Za-z])|(?:anything|all)\s+but(?![A-Za-z])"
    rf"|(?:(?:up|close)\s+to|over|under|above|below|beyond|exceed\w*|nearly|almost|(?:divided|multiplied)\s+by|times|less|twice"
    rf"|thrice|double|triple|half|{_FUNCTION}\s+of)\s+(?:a\s+|an\s+|the\s+)?(?:number\s+)?{_NUMBER})"
    rf"|(?<![A-Za-z]){_COUNT}(?:\s+times\s+|\s+point\s+|\s*∧\s*|[\s-]+){_NUMBER}"
    rf"|\d(?:\s+times\s+|\s+point\s+|\s*∧\s*)(?:an?\s+)?(?:half|quarter|{_ORDINAL}|{_COUNT})(?![A-Za-z])"
    r"|[∧∨]\s*(?:more|less|fewer|so|up\w*|above|over|below|under|beyond)(?![A-Za-z])|∨\s*[a-z]{2,}er(?![A-Za-z])"
    r"|\d\s*(?:\\text\s*\{\s*)?"
    rf"(?:squared|cubed|factorial|plus|minus|minimum|maximum|max|tops|{_ORDINAL}|{_SCALE})(?![A-Za-z])",
    re.IGNORECASE,
)
_DIFFERENCE = re.compile(
    r"(?<=\d)(?!\s+(?:more|less|fewer)\s+than)(?:\s+(?!(?:is|are|was|were|be)\s)[a-z]+){1,5}\s+than(?=\s+(?:[ai]\s+)?[a-z]{2})"
    rf"(?![^.;\n]*(?:\d|(?<![A-Za-z])(?:{_COUNT}|answer|solution|result)(?![A-Za-z])))",
    re.IGNORECASE,
)
"""`25 years older than her sister`: by how much something differs. `25 less than the total` is another number."""
_REPEATED = re.compile(r"(?<![\w.,/])(?P<number>\d+)\s*\((?P<words>[A-Za-z∧ -]+)\)")


def compute_words(text: str) -> str:
    """Returns the text with what `3 dozen`, `1.5 million` and `negative 5` come to, and `12 (twelve)` said once."""
    text = _REPEATED.sub(lambda match: match[1] if match[1] == str(_spelled(match["words"])) else match[0], text)
    text = _SIGNED.sub(lambda match: "-" if (match["text"] or match["word"])[0] in "nNmM" else "+", text)
    return _SCALED.sub(_scaled, text)


def _spelled(words: str) -> int:
    """Returns a number below 1000 spelled in words, -1 for other words."""
    total = 0
    for word in re.findall(r"[a-z]+", words.lower()):
        if word != "hundred" and word not in _SPELLED:
            return -1
        total = total * 100 if word == "hundred" else total + _SPELLED[word]
    return total


def _scaled(match: re.Match[str]) -> str:
    above, _, below = re.sub(r"\\frac|[{,]", "", match["amount"]).replace("}", "/").strip("/").partition("/")
    if not int(below or 1):
        return match[0]
    value = Fraction(above) / int(below or 1)
    for word in re.split(r"[\s-]+", match["scales"].lower().strip()):
        value *= 12 if word.startswith("dozen") else 10 ** _SCALES[word.removesuffix("s")]
    return _show(value) + (match["text"] or "")


def _show(value: Fraction) -> str:
    """Returns a number as a decimal where it has an end within six places, otherwise as a fraction."""
    scaled = value * 10**6
    if value.denominator == 1 or scaled.denominator != 1:
        return str(value)
    return f"{int(value)}.{int(scaled) % 10**6:06}".rstrip("0")


def scales_or_signs(text: str) -> bool:
    """Returns whether there are words in a text that `compute_words` computes beside a number."""
    return bool(_WORDS.search(text))


def denies(text: str) -> bool:
    """Returns whether a text says that something is not so."""
    return bool(_DENIED.search(text))


def makes_other(text: str) -> bool:
    """Returns whether a number in a text is denied, a bound, or what something else is computed from."""
    return denies(text) or bool(_OTHER.search(_DIFFERENCE.sub("", text)))
