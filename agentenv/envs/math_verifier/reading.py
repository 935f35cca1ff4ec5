r"""What an answer says: a text is read into values, lists, intervals, relations and words before anything is compared.

A text is read as a whole or not at all: nothing is decided by the last number that stands in it. A reading is JSON:

| reading | of |
|---|---|
| `["number", "3/4"]`, `["value", "3/4"]` | a literal number; what a calculation with numbers comes to |
| `["decimal", "1.6e-19"]` | a decimal, digits as typed |
| `["percent", r]`, `["quantity", r, unit]` | `50\%`; `5 m/s`, `101_2` |
| `["tree", ...]`, `["latex", text]` | an expression, read by us; another, left to math-verify's parser |
| `["words", text]`, `["choice", letter, r]` | `east`; `(B)`, `\textbf{(B)}\ 7` |
| `["list", conjunction, [r]]`, `["set", [r]]` | `2, 3`, `2 or 3`; `\{2, 3\}` |
| `["tuple", open, close, [r]]`, `["union", [r]]` | `(2, 3)`, `[0, 1)`, `3:4`, `2023-05-01`; `[0,1) \cup \{2\}` |
| `["named", name, r]`, `["relation", [op], [r]]` | `x = 3`; `1 < x < 2`, `y = 2x + 1` with more than a name |
| `["dots"]` | an ellipsis in a list |
"""

import re

from .answers import last_boxed
from .exact import fold
from .expressions import Expression, ExpressionError, Fraction, show_number, to_lists
from .literals import Reading, UnreadableError, read_based, read_code, read_literal
from .numerals import makes_other, scales_or_signs
from .prose import KNOWN, is_prose, prose_candidates
from .spelling import spell
from .splitting import (
    close_of,
    join_thousands,
    split_colons,
    split_conjunctions,
    split_relations,
    split_semicolons,
    split_separators,
    split_union,
)
from .typed import AmbiguousError, parse_typed
from .units import canonical_unit, split_unit

__all__ = ["Reading", "UnreadableError", "read"]

_MAX_DEPTH = 16
_MAX_ITEMS = 200
_PERCENT = re.compile(
    r"(.*\S)\s*(?:\\?%|\\text\s*\{\s*(?:percent|pct|%|\\%)\s*\}|(?:percent|pct|percentage))", re.DOTALL
)
_NAME = re.compile(
    r"(?:\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|\w))?'*(?:\s*\([A-Za-z0-9, ]*\))?|\\text\s*\{[^{}]*\}|\|[A-Z]{1,3}\||[A-Z]{2,4}"
    r"|\\(?:overline|vec|hat|bar)\s*\{[A-Za-z]+\}|\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)|\\frac\{d[a-z]*\}\{d[a-z]\})"
)
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer|case)\s*:?\s*)?"
    r"(?:\(\s*(?P<a>[A-J])\s*\)|\[\s*(?P<b>[A-J])\s*\]|(?P<c>[A-J])\s*[).:]|(?P<d>[A-J])(?=\s*$))[.:]?\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_LABEL = re.compile(r"(?<![\w(])\(?([A-J])\)")
_PRIMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z])('+)")
_STATED = re.compile(
    r"(?:(?:so|thus|hence|therefore|then),?\s+)?(?:(?:the|my|our|this)\s+)?(?:final\s+|correct\s+|right\s+)?"
    r"(?:answer|option|choice|solution|result)\s*(?:is|are|:|=)\s*:?\s*([^\d]*)",
    re.IGNORECASE | re.DOTALL,
)
_WORDS = re.compile(r"[^\W\d_][^\W\d_]+(?:[ '-][^\W\d_]+)*")
_EMPHASIS = re.compile(  # neither 2**10 nor 2 *3* 4
    r"(?:^|(?<=[A-Za-z(\"][\s(\"])|(?<=[:.!?,]\s)|(?<=\n)|(?<=[\s(]))(?<![\d)\]}]\s)"
    r"(?P<mark>\*{1,3}|_{1,3}|`{1,3})(?=[^\s*_`])(?P<inner>[^\n]*?[^\s*_`])(?P=mark)(?=[\s.,;:!?)\"]|$)"
)
_MARKUP = re.compile(r"(\*{1,3}|`{1,3}|['\"])(?P<inner>.+)\1|<(\w+)>(?P<content>.*)</\3>", re.DOTALL)
_ENCLOSED = re.compile(  # no money: \$5, $5 and $6
    r"(?<!\\)\$\$?((?:\\.|[^$\\\n]|\n(?!\s*\n))+)\$?\$(?!\.?\d)|\\\(((?:(?!\\\)).)+)\\\)|\\\[((?:(?!\\\]).)+)\\\]",
    re.DOTALL,
)
_SENTENCE = re.compile(r"[.!?]\s|\n")
_NOTHING = re.compile(r"(?:there (?:is|are) )?no (?:real )?solutions?|(?:the )?empty set")
_OPENERS = {"(": ")", "[": "]", "⟨": "⟩"}


def read(text: str) -> Reading:
    """Reads an answer or a reference.

    Raises:
        UnreadableError: the text is empty, is not understood, or says several things.
    """
    return _read_marked(text, 0)


def _read_marked(text: str, depth: int) -> Reading:
    text = text.strip()
    if not text:
        msg = "it is empty"
        raise UnreadableError(msg)
    if depth > _MAX_DEPTH:
        msg = "it is nested too deeply"
        raise UnreadableError(msg)
    text = _EMPHASIS.sub(lambda match: match["inner"], text)
    if emphasis := _MARKUP.fullmatch(text):
        return _read_marked(emphasis["inner"] or emphasis["content"] or "", depth + 1)
    if r"\boxed" in text or r"\fbox" in text:
        return _read_boxed(text, depth)
    segments = [(match.start(), match.end(), next(filter(None, match.groups()))) for match in _ENCLOSED.finditer(text)]
    if segments:
        return _read_segments(text, segments, depth)
    return _read_text(spell(text), depth)


def _read_boxed(text: str, depth: int) -> Reading:
    r"""Reads the last box, together with those that a conjunction or separator alone joins to it."""
    segments: list[tuple[int, int, str]] = []
    rest = text
    while (content := last_boxed(rest)) is not None:
        start = max(
            rest.rfind(r"\boxed", 0, rest.rfind(content + "}") + 1),
            rest.rfind(r"\fbox", 0, rest.rfind(content + "}") + 1),
        )
        end = rest.find(content + "}", start) + len(content) + 1
        segments.insert(0, (start, end, content))
        rest = rest[:start]
    if not segments:
        msg = "its box is never closed"
        raise UnreadableError(msg)
    return _read_chain(text, segments, depth)


def _read_segments(text: str, segments: list[tuple[int, int, str]], depth: int) -> Reading:
    """Reads mathematics in dollar signs or brackets, with text around it."""
    start, end, content = segments[0]
    if len(segments) == 1 and not text[:start].strip() and not text[end:].strip(" .\n"):
        return _read_marked(content, depth + 1)
    if money := re.fullmatch(r"[^$]*\$[^$]*", text):  # one dollar sign is money
        return _read_text(spell(money[0]), depth)
    start = max((match.end() for match in _SENTENCE.finditer(text[: segments[-1][0]])), default=0)
    flat = text[start:]
    for begin, end, content in reversed([segment for segment in segments if segment[0] >= start]):
        flat = f"{flat[: begin - start]}{content}{flat[end - start :]}"
    outside = _ENCLOSED.sub(" 0 ", text[start:])
    if makes_other(spell(outside)) or scales_or_signs(outside):
        return _read_text(spell(flat), depth)
    before, after = text[: segments[0][0]].strip(), text[segments[-1][1] :].strip()
    if len(segments) == 1 and (before or after) and not re.search(r"\d", before + after):
        unit = spell(after).rstrip(".")
        if not before and unit and (canonical_unit(unit) or re.fullmatch(r"\s*\\?%", after)):
            return _read_text(f"{spell(content)} {unit}", depth)
    return _read_chain(text, segments, depth)


def _read_chain(text: str, segments: list[tuple[int, int, str]], depth: int) -> Reading:
    """Reads the last run of segments between which there is nothing but separators."""
    first = len(segments) - 1
    joints: list[str] = []
    while first and (joint := _joint(text[segments[first - 1][1] : segments[first][0]])) is not None:
        joints.insert(0, joint)
        first -= 1
    chain = [content for _, _, content in segments[first:]]
    if len(chain) == 1:
        return _read_marked(chain[0], depth + 1)
    if not any(joints) and len(set(chain)) == 1:
        return _read_marked(chain[0], depth + 1)
    conjunction = next((joint for joint in joints if joint in "∧∨"), ",")
    return ["list", conjunction, [item for content in chain for item in _items(_read_marked(content, depth + 1))]]


def _joint(text: str) -> str | None:
    """Returns what joins two segments: a separator or conjunction; `None` where other text stands between them."""
    return {"": ",", ",": ",", ";": ",", "∧": "∧", "∨": "∨"}.get(spell(f"{text}").strip())


def _read_text(text: str, depth: int) -> Reading:
    """Reads spelled text without marks of mathematics."""
    text = text.lstrip("=≈ ")
    text = text.strip().removesuffix(".").strip() if not text.endswith("..") else text.strip()
    if not text or depth > _MAX_DEPTH:
        msg = "it is empty" if not text else "it is nested too deeply"
        raise UnreadableError(msg)
    if stated := _STATED.fullmatch(text):
        return _read_text(stated[1], depth + 1)
    for reader in (_python, _choice, _words):
        if (reading := reader(text, depth)) is not None:
            return reading
    if not is_prose(text) and "##" not in text:
        return _read_math(text, depth)
    if split_unit(text) is not None:
        try:
            return _read_math(text, depth)
        except UnreadableError:
            pass
    return _read_prose(text, depth)


def _read_prose(text: str, depth: int) -> Reading:
    for candidate in prose_candidates(text):
        if (choice := _choice(candidate, depth + 1)) is not None:
            return choice
        try:
            return _read_math(candidate, depth + 1) if not is_prose(candidate) else _read_quantity(candidate, depth + 1)
        except UnreadableError:
            continue
    msg = "it is text from which no single value follows; write the answer alone"
    raise UnreadableError(msg)


def _read_quantity(text: str, depth: int) -> Reading:
    if split_unit(text) is None:
        msg = "it is text"
        raise UnreadableError(msg)
    return _read_math(text, depth)


def _choice(text: str, depth: int) -> Reading | None:
    flat = re.sub(r"\\text\s*\{\s*(?:\\text\s*\{)?\s*(\(?[A-J][).:]?)\s*\}?\s*\}", r"\1 ", text, count=1).strip()
    match = _CHOICE.fullmatch(flat)
    if match is None:
        return None
    letter = match["a"] or match["b"] or match["c"] or match["d"]
    rest = match["rest"].strip()
    if not letter.isupper():
        return None
    if not rest:
        return ["choice", letter, None]
    if any(other[1] != letter for other in _LABEL.finditer(rest)):
        return None
    if match["a"] and not (text.startswith("\\text") or re.match(r"\([A-J]\)\s", flat)):
        return None
    return ["choice", letter, _read_text(rest, depth + 1)]


def _words(text: str, depth: int) -> Reading | None:
    inner = re.fullmatch(r"\\text\s*\{([^{}]*)\}", text)
    plain = " ".join((inner[1].replace("\\", " ") if inner else text).split()).strip(" .")
    if inner and re.search(r"[\d∧∨]", plain):
        return _read_text(inner[1], depth + 1)
    if inner and plain and not _WORDS.fullmatch(plain):
        return ["words", plain.casefold()]
    if not _WORDS.fullmatch(plain) or any(KNOWN.fullmatch(word) for word in plain.split()):
        return None
    if _NOTHING.fullmatch(plain.casefold()):
        return ["set", []]
    if not inner and len(plain) < 4 and plain.islower() and plain not in {"yes", "no"}:  # `ab` is a product
        return None
    return ["words", plain.casefold()]


def _read_math(text: str, depth: int) -> Reading:
    """Reads one expression, or several with separators."""
    if depth > _MAX_DEPTH:
        msg = "it is nested too deeply"
        raise UnreadableError(msg)
    text = text.strip()
    for structure in (read_code, _conjunction, _signs, _relation, _separated, _union, _bracketed, _python, _ratio):
        if (reading := structure(text, depth + 1)) is not None:
            return reading
    return _leaf(text, depth + 1)


def _conjunction(text: str, depth: int) -> Reading | None:
    pieces = split_conjunctions(text)
    if len(pieces) < 2:
        return None
    items = [item for piece in pieces for item in _items(_read_math(piece.text, depth))]
    return ["list", next((piece.before for piece in pieces if piece.before), ","), items]


def _items(reading: Reading) -> list[Reading]:
    return reading[2] if reading[0] == "list" else [reading]


def _signs(text: str, depth: int) -> Reading | None:
    """Reads what holds `±`: the list of what the upper signs and the lower signs give."""
    if "±" not in text and "∓" not in text:
        return None
    if len(split_separators(text)) > 1:
        return None
    upper, lower = text.replace("±", "+").replace("∓", "-"), text.replace("±", "-").replace("∓", "+")
    first, second = (_read_math(part.removeprefix("+"), depth) for part in (upper, lower))
    if first[0] == second[0] == "named" and first[1] == second[1]:
        return ["named", first[1], ["list", "∨", [first[2], second[2]]]]
    return ["list", "∨", [first, second]]


def _relation(text: str, depth: int) -> Reading | None:
    pieces = split_relations(text)
    if len(pieces) < 2:
        return None
    if len(pieces) > 2 and len(split_separators(text)) > 1:  # x = 3, y = -2
        return None
    texts, operators = [piece.text for piece in pieces], [piece.before for piece in pieces[1:]]
    if any(not part.strip() for part in texts):
        msg = f"a side is missing in {text!r:.60}"
        raise UnreadableError(msg)
    named = (
        operators[0] in {"=", "≈", ":", "∈"}
        and _NAME.fullmatch(texts[0].strip())
        and not _is_constant(texts[0].strip())
    )
    if named and all(operator in "=≈" for operator in operators[1:]):
        name = "".join(
            re.sub(r"\\text|[{}\\ ]", "", texts[0].split("(")[0] if texts[0].strip()[0] != "(" else texts[0]).split()
        )
        return ["named", name, _chain(texts[1:], operators[1:], depth)]
    if len(split_separators(text)) > 1:
        return None
    if any(operator in ":∈" for operator in operators):
        msg = f"a relation in it is not understood: {text!r:.60}"
        raise UnreadableError(msg)
    return _chain(texts, operators, depth)


def _is_constant(name: str) -> bool:
    return name.lstrip("\\") in {"pi", "e", "i", "infty", "emptyset"}


def _chain(texts: list[str], operators: list[str], depth: int) -> Reading:
    if not operators:
        return _read_math(texts[0], depth)
    return ["relation", operators, [_read_math(part, depth) for part in texts]]


def _separated(text: str, depth: int) -> Reading | None:
    text = join_thousands(text, top=True)
    pieces = split_separators(text)
    if len(pieces) < 2:
        return None
    if {";", ","} <= {piece.before for piece in pieces}:  # 1, 2; 3, 4
        pieces = split_semicolons(text)
    if any(not piece.text.strip() for piece in pieces[:-1]):
        msg = f"an item is missing in {text!r:.60}"
        raise UnreadableError(msg)
    items = [_read_math(piece.text, depth) for piece in pieces if piece.text.strip()]
    return items[0] if len(items) == 1 else ["list", ",", _expanded(items)]


def _expanded(items: list[Reading]) -> list[Reading]:
    """Returns a list without its ellipsis, where that stands for the rest of a progression: `1, 2, ..., 10`."""
    if items.count(["dots"]) != 1 or any(item[0] != "number" for item in items if item != ["dots"]):
        return items
    at = items.index(["dots"])
    values = [Fraction(item[1]) for item in items if item != ["dots"]]
    if at < 2 or at == len(items) - 1:
        return items
    step = values[1] - values[0]
    known = [values[0] + step * i for i in range(at)]
    count = (values[at] - values[0]) / step if step else Fraction(-1)
    tail = [values[at] + step * i for i in range(len(values) - at)]
    if known != values[:at] or tail != values[at:] or count.denominator != 1 or not at <= count <= _MAX_ITEMS:
        return items
    return [["number", show_number(values[0] + step * i)] for i in range(int(count) + len(tail))]


def _ratio(text: str, depth: int) -> Reading | None:
    """Reads `3:4`, the order of whose parts matters."""
    pieces = split_colons(text)
    if len(pieces) < 2 or not all(piece.text for piece in pieces):
        return None
    return ["tuple", ":", ":", [_read_math(piece.text, depth) for piece in pieces]]


def _union(text: str, depth: int) -> Reading | None:
    parts = split_union(text)
    return ["union", [_read_math(part, depth) for part in parts]] if len(parts) > 1 else None


def _bracketed(text: str, depth: int) -> Reading | None:
    r"""Reads `\{...\}`, `{...}` with separators, `(...)`, `[...)` and the like, where they close at the end."""
    if text in {"∅", "{}", r"\{\}", r"\{ \}"}:
        return ["set", []]
    opener = text[:2] if text.startswith(r"\{") else text[:1]
    if opener in {r"\{", "{"}:
        return _set(text, opener, depth)
    if opener not in _OPENERS or close_of(text) != len(text) - 1:
        return None
    inner, closer = text[1:-1], text[-1]
    pieces = split_separators(join_thousands(inner, top=False))
    if len(pieces) < 2:
        if opener == "(" and closer == ")":
            return _read_math(inner, depth)
        return ["tuple", opener, closer, [_read_math(inner, depth)]] if opener == "[" and closer == "]" else None
    return ["tuple", opener, closer, [_read_math(piece.text, depth) for piece in pieces]]


def _set(text: str, opener: str, depth: int) -> Reading | None:
    end = close_of(text)
    if end != len(text) - 1:
        return None
    inner = text[len(opener) : -len(opener)]
    pieces = split_separators(join_thousands(inner, top=False))
    if opener == "{" and len(pieces) < 2:
        return _read_math(inner, depth) if inner.strip() else None
    items = [_read_math(piece.text, depth) for piece in pieces]
    if items and all(item[0] == "tuple" and item[1] == ":" for item in items):  # a dict
        return ["list", ",", [["named", str(item[3][0][1]), item[3][1]] for item in items]]
    return ["set", _expanded(items)]


_SPECIAL = re.compile(
    r"(Interval(?:\.\w+)?|FiniteSet|Union|Matrix|EmptySet|Reals|Fraction|Rational|Eq|And|Or)\s*(\(.*\))?", re.DOTALL
)
_JOINTS = {"Fraction": "/", "Rational": "/", "Eq": "=", "And": "∧", "Or": "∨"}
_OPEN = {"Interval": "[]", "Interval.open": "()", "Interval.Lopen": "(]", "Interval.Ropen": "[)"}


def _python(text: str, depth: int) -> Reading | None:
    """Reads sets, matrices, fractions and relations as Python and sympy print them."""
    match = _SPECIAL.fullmatch(text)
    if match is None:
        return None
    name, arguments = match[1], [piece.text for piece in split_separators(match[2][1:-1])] if match[2] else []
    if name in _JOINTS and arguments:
        return _read_math(_JOINTS[name].join(arguments), depth)
    items = [_read_math(argument, depth) for argument in arguments]
    if name in _OPEN and len(items) == 2:
        return ["tuple", *_OPEN[name], items]
    if name == "Matrix" and len(items) == 1:
        return items[0]
    named: dict[str, Reading] = {
        "EmptySet": ["set", []],
        "Reals": ["latex", r"\mathbb{R}"],
        "FiniteSet": ["set", items],
        "Union": ["union", items],
    }
    return named.get(name)


def _leaf(text: str, depth: int) -> Reading:
    if text == "…":
        return ["dots"]
    for reader in (read_literal, read_based, _percent, _quantity, _tree, _latex):
        if (reading := reader(text, depth)) is not None:
            return reading
    msg = f"{text!r:.60} is not understood"
    raise UnreadableError(msg)


def _percent(text: str, depth: int) -> Reading | None:
    match = _PERCENT.fullmatch(text)
    return ["percent", _read_math(match[1], depth)] if match else None


def _quantity(text: str, depth: int) -> Reading | None:
    parts = split_unit(text)
    if parts is None:
        return None
    value, unit = _read_math(parts[0], depth), canonical_unit(parts[1])
    return value if unit is None else ["quantity", value, unit]


def _tree(text: str, depth: int) -> Reading | None:
    del depth
    try:
        tree = parse_typed(text)
    except AmbiguousError as error:
        raise UnreadableError(str(error)) from None
    except ExpressionError:
        return None
    try:
        tree: Expression = fold(tree)
    except ExpressionError as error:
        if "division" in str(error):
            raise UnreadableError(str(error)) from None
    if isinstance(tree, Fraction):
        return ["value", show_number(tree)]
    return ["tree", to_lists(tree)]


def _latex(text: str, depth: int) -> Reading | None:
    del depth
    if re.search(r"[^\x20-\x7e∩∖∪∅]|__|\d\s*_|#|\\text\s*\{[^{}]*\d", text) or is_prose(text):
        return None
    names = {"∩": r"\cap ", "∖": r"\setminus ", "∪": r"\cup ", "∅": r"\emptyset "}
    text = re.sub("[∩∖∪∅]", lambda match: names[match[0]], text)
    text = _PRIMED.sub(lambda match: rf"\text{{{match[1]}{'prime' * len(match[2])}}}", text)  # the parser drops primes
    if "'" in text:
        return None
    return ["latex", re.sub(r"\^\s*(-?\d{2,})", r"^{\1}", text)]
