"""Expressions whose value depends on the order of the operations."""

from collections.abc import Sequence

import numpy as np

from .generator import Generator

__all__ = ["arithmetic", "read_left_to_right"]

_BLOCK = 64
_OPERATORS = "+-*"
_PARENTHESES = 0.3


def _draw(rng: np.random.Generator, difficulty: int) -> tuple[str, str, tuple[int, ...]]:
    count = difficulty + 2
    while True:
        numbers = rng.integers(1, 10, (_BLOCK, count)).tolist()
        # Rarer products as expressions grow: otherwise nearly all of them leave [0, 99].
        share = 1 / 3 if count <= 4 else 1.2 / count
        choices = rng.choice(3, (_BLOCK, count - 1), p=[(1 - share) / 2, (1 - share) / 2, share]).tolist()
        pairs = (rng.integers(0, count - 1, _BLOCK) + count * (rng.random(_BLOCK) > _PARENTHESES)).tolist()
        for values, operators, pair in zip(numbers, choices, pairs, strict=True):
            signs = [_OPERATORS[i] for i in operators]
            value = _value(values, signs, pair)
            if value is None or value == read_left_to_right(values, signs):
                continue
            if pair < count and value == _value(values, signs, count, bounded=False):
                continue
            return f"Compute {_spell(values, signs, pair)}.", str(value), ()


arithmetic = Generator("arithmetic", 8, _draw)
"""Expressions of `difficulty + 2` numbers from 1 to 9.

Operators are `+`, `-` and `*`, with one pair of parentheses in some expressions. Every intermediate result is a whole
number in [0, 99], and reading from left to right gives another answer: precedence matters, and so does the pair of
parentheses where there is one.
"""


def read_left_to_right(numbers: Sequence[int], operators: Sequence[str]) -> int:
    """Returns the value that a reader gets who ignores precedence and parentheses."""
    value = numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        value = _apply(value, operator, number)
    return value


def _apply(a: int, operator: str, b: int) -> int:
    return a + b if operator == "+" else a - b if operator == "-" else a * b


def _value(numbers: list[int], operators: list[str], pair: int, *, bounded: bool = True) -> int | None:
    """Returns the value with parentheses around numbers `pair` and `pair + 1`, `None` if a step leaves [0, 99]."""
    values, signs = list(numbers), list(operators)
    steps: list[int] = []

    def reduce(i: int) -> None:
        values[i : i + 2] = [_apply(values[i], signs.pop(i), values[i + 1])]
        steps.append(values[i])

    if pair < len(signs):
        reduce(pair)
    i = 0
    while i < len(signs):
        if signs[i] == "*":
            reduce(i)
        else:
            i += 1
    while signs:
        reduce(0)
    return values[0] if not bounded or all(0 <= step <= 99 for step in steps) else None


def _spell(numbers: list[int], operators: list[str], pair: int) -> str:
    words = [str(numbers[0])]
    for operator, number in zip(operators, numbers[1:], strict=True):
        words += [operator, str(number)]
    if pair < len(operators):
        words[2 * pair] = "(" + words[2 * pair]
        words[2 * pair + 2] += ")"
    return " ".join(words)
