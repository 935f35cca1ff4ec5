"""Whether two readings say the same. This file imports nothing of the package: the worker processes load it alone.

Exact values are equal when they are equal. A decimal equals what it is the correct rounding of, at six places or more
and with four significant digits or more, or with seven significant digits where the other value has no end.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

__all__ = ["NeedsSympy", "is_value", "leaves", "rounds_to", "same"]

Reading = list[Any]
Leaf = Callable[[Reading, Reading], bool]
_NUMBERS = frozenset({"number", "value", "decimal"})
_COLLECTIONS = frozenset({"list", "set", "tuple"})
_PLACES = Fraction(1, 10**6)
_ORDER = frozenset("<>≤≥≠")


class NeedsSympy(Exception):
    """Two readings cannot be compared without computer algebra."""


def same(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    """Returns whether an answer says what the reference says.

    Args:
        gold: the reference's reading.
        answer: the answer's.
        leaf: compares two expressions, or sets and relations.
    """
    kinds = {gold[0], answer[0]}
    for kind, compare in _RULES:
        if kind in kinds:
            return compare(gold, answer, leaf)
    if not _COLLECTIONS.isdisjoint(kinds):
        return _same_collection(gold, answer, leaf)
    return _same_number(gold, answer) if kinds <= _NUMBERS else leaf(gold, answer)


def _same_choice(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    if gold[0] == answer[0]:
        values = gold[2] is None or answer[2] is None or same(gold[2], answer[2], leaf)
        return gold[1] == answer[1] and values
    choice, other, gold_is_choice = (gold, answer, True) if gold[0] == "choice" else (answer, gold, False)
    if choice[2] is not None:
        return same(choice[2], other, leaf) if gold_is_choice else same(other, choice[2], leaf)
    if other[0] == "named":
        return gold_is_choice and same(choice, other[2], leaf)
    return other[0] in {"words", "tree"} and str(other[1]).casefold() == choice[1].casefold()


def _same_quantity(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    if gold[0] == answer[0] and not _same_unit(gold[2], answer[2]):
        return False
    if gold[0] != "quantity" and answer[2].startswith("base "):  # no base is base 10
        return False
    return same(gold[1] if gold[0] == "quantity" else gold, answer[1] if answer[0] == "quantity" else answer, leaf)


def _same_unit(gold: str, answer: str) -> bool:
    if "pound" in gold or "pound" in answer:
        gold, answer = (unit.replace("lb", "pound").replace("£", "pound") for unit in (gold, answer))
    return gold == answer


def _same_named(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    """Compares `x = 3` with `3`, `x = 3`, `y = 3`, or another equation."""
    if gold[0] == answer[0]:
        if gold[1].lower() == answer[1].lower():
            return same(gold[2], answer[2], leaf)
        return "tree" in {gold[2][0], answer[2][0]} and leaf(gold, answer)
    if "relation" in {gold[0], answer[0]}:
        return leaf(gold, answer)
    return same(gold[2], answer, leaf) if gold[0] == "named" else same(gold, answer[2], leaf)


def _same_percent(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    """Compares percentages: of `p%` and a number without a sign of percent, `p` and `p/100` are both meant."""
    if gold[0] == answer[0]:
        return same(gold[1], answer[1], leaf)
    percent, other = (gold, answer) if gold[0] == "percent" else (answer, gold)
    if same(percent[1], other, leaf):
        return True
    value = _exact(percent[1])
    return value is not None and other[0] in _NUMBERS and _same_number(["number", str(value / 100)], other)


def _same_words(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    if gold[0] == answer[0]:
        return gold[1] == answer[1] or _bare(gold[1]) == _bare(answer[1])
    words, other = (gold, answer) if gold[0] == "words" else (answer, gold)
    if other[0] not in {"tree", "latex"} or len(words[1]) > 3 or not words[1].isalpha():
        return False
    product: Reading = ["tree", words[1][0]]
    for letter in words[1][1:]:
        product[1] = ["*", product[1], letter]
    return leaf(product, other) if gold is words else leaf(other, product)


def _bare(words: str) -> str:
    return "".join(character for character in words.removeprefix("the ") if character.isalnum())


def _same_relation(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    """Compares equations and inequalities; a chain `a = b = c` says that each part is the value."""
    if gold[0] == "relation" and "≈" in gold[1]:
        return any(same(part, answer, leaf) for part in (gold[2][0], gold[2][-1]))
    if gold[0] == answer[0]:
        return leaf(gold, answer)
    if answer[0] == "relation" and set(answer[1]) <= {"=", "≈"}:
        exact = [part for mark, part in zip(["=", *answer[1]], answer[2], strict=True) if mark == "="]
        rounded = gold[0] == "decimal" and answer[1] == ["≈"] and same(gold, answer[2][1], leaf)
        return rounded or all(same(gold, part, leaf) for part in exact)
    if gold[0] == "relation" and set(gold[1]) == {"="}:
        return len(gold[1]) > 1 and same(gold[2][-1], answer, leaf)
    return leaf(gold, answer)


def _same_collection(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    kinds = gold[0], answer[0]
    if kinds == ("tuple", "tuple"):
        return _same_tuple(gold, answer, leaf)
    golds = gold[-1] if gold[0] in _COLLECTIONS else [gold]
    answers = answer[-1] if answer[0] in _COLLECTIONS else [answer]
    if any(item[0] == "relation" and not _ORDER.isdisjoint(item[1]) for item in (*golds, *answers)):
        return leaf(gold, answer)
    if gold[0] == "tuple":
        return _tuple_and_list(gold, answer, leaf, answer_first=False)
    if answer[0] == "tuple":
        if answer[1] == "[" and answer[2] == "]" and gold[0] in {"set", "list"}:  # a Python list of solutions
            return _cover(gold[-1], answer[-1], leaf)
        return _tuple_and_list(answer, gold, leaf, answer_first=True)
    if not (golds or answers):
        return True
    if _all_named(golds) and not any(item[0] == "named" for item in answers):
        return _pairwise(golds, answers, leaf)
    if _all_named(answers) and not any(item[0] == "named" for item in golds):
        return _pairwise(golds, [item[2] for item in sorted(answers, key=lambda item: item[1])], leaf)
    if "latex" in kinds:
        return leaf(gold, answer)
    return _cover(golds, answers, leaf)


def _same_tuple(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    if len(gold[3]) == 2 and [_round(mark) for mark in gold[1:3]] != [_round(mark) for mark in answer[1:3]]:
        return False
    return _pairwise(gold[3], answer[3], leaf)


def _round(mark: str) -> str:
    return {"⟨": "(", "⟩": ")"}.get(mark, mark)


def _tuple_and_list(pair: Reading, other: Reading, leaf: Leaf, *, answer_first: bool) -> bool:
    """Compares a tuple with a bare list, in order; named parts are taken in the order of their names."""
    if other[0] == "latex" or (other[0] == "tree" and other[1][0] == "matrix"):
        return leaf(other, pair) if answer_first else leaf(pair, other)
    round_brackets = _round(pair[1]) == "(" and _round(pair[2]) == ")"
    if other[0] != "list" or not (round_brackets or len(pair[3]) > 2):
        return False
    items = other[2]
    if _all_named(items):
        items = [item[2] for item in sorted(items, key=lambda item: item[1])]
    return _pairwise(items, pair[3], leaf) if answer_first else _pairwise(pair[3], items, leaf)


def _all_named(items: list[Reading]) -> bool:
    return (
        len(items) > 1 and {item[0] for item in items} == {"named"} and len({item[1] for item in items}) == len(items)
    )


def _pairwise(golds: list[Reading], answers: list[Reading], leaf: Leaf) -> bool:
    return len(golds) == len(answers) and all(same(*pair, leaf) for pair in zip(golds, answers, strict=True))


def _cover(golds: list[Reading], answers: list[Reading], leaf: Leaf) -> bool:
    """Returns whether every item has an equal on the other side; order and repetition make no difference."""
    if len(answers) > 4 * len(golds) + 16:
        return False
    left = [answer for answer in answers if answer not in golds]
    open_golds = [gold for gold in golds if gold not in answers]
    return all(any(same(gold, answer, leaf) for answer in answers) for gold in open_golds) and all(
        any(same(gold, answer, leaf) for gold in golds) for answer in left
    )


def _exact(reading: Reading) -> Fraction | None:
    return Fraction(reading[1]) if reading[0] in _NUMBERS else None


def _same_number(gold: Reading, answer: Reading) -> bool:
    one, two = Fraction(gold[1]), Fraction(answer[1])
    if one == two:
        return True
    return any(side[0] == "decimal" and rounds_to(side[1], other) for side, other in ((gold, two), (answer, one)))


def unit_in_last_place(decimal: str) -> Fraction:
    """Returns the unit in the last place of a decimal as typed: 1/100 for `3.14`."""
    digits, _, exponent = decimal.lower().partition("e")
    _, _, places = digits.partition(".")
    return Fraction(10) ** (int(exponent or 0) - len(places))


def rounds_to(decimal: str, value: Fraction, *, endless: bool | None = None) -> bool:
    """Returns whether a decimal is a value, rounded correctly to enough digits.

    Args:
        decimal: as typed.
        value: exact, or as exact as matters.
        endless: whether no decimal is exactly the value; by default that is found out.
    """
    unit, size = unit_in_last_place(decimal), abs(value)
    if abs(Fraction(decimal) - value) > unit / 2 or unit > size / 10**4:
        return False
    if unit <= _PLACES:
        return True
    if endless is None:
        rest = value.denominator
        for prime in (2, 5):
            while rest % prime == 0:
                rest //= prime
        endless = rest > 1
    return endless and unit < 1 and unit <= size / 10**6


def parts(reading: Reading) -> list[Reading]:
    """Returns the readings that a reading is made of, one level down."""
    match reading[0]:
        case "percent" | "quantity":
            return [reading[1]]
        case "named":
            return [reading[2]]
        case "choice":
            return [] if reading[2] is None else [reading[2]]
        case "list" | "set" | "tuple" | "union" | "relation":
            return list(reading[-1])
        case _:
            return []


def leaves(reading: Reading) -> Iterator[Reading]:
    """Yields the readings at the bottom of a reading."""
    inside = parts(reading)
    if not inside:
        yield reading
    for part in inside:
        yield from leaves(part)


def is_value(reading: Reading) -> bool:
    """Returns whether nothing is left to compute: a literal number, or a name, tuple, set or interval of such."""
    if reading[0] == "relation" or reading[0] in {"latex", "value"}:
        return False
    if reading[0] == "tree":
        return reading[1] in ("infty", ["neg", "infty"])
    return all(map(is_value, parts(reading)))


def _same_dots(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    del leaf
    return gold == answer


def _by_leaf(gold: Reading, answer: Reading, leaf: Leaf) -> bool:
    return leaf(gold, answer)


_RULES: tuple[tuple[str, Callable[[Reading, Reading, Leaf], bool]], ...] = (
    ("choice", _same_choice),
    ("named", _same_named),
    ("quantity", _same_quantity),
    ("percent", _same_percent),
    ("dots", _same_dots),
    ("words", _same_words),
    ("relation", _same_relation),
    ("union", _by_leaf),
)
"""How readings are compared of which one is of a kind; the first that applies decides."""
