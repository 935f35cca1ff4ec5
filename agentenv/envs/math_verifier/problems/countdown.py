"""Countdown: reach a target with given numbers, each used once."""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from agentenv.envs.math_verifier.exact import evaluate
from agentenv.envs.math_verifier.expressions import Call, Expression, ExpressionError
from agentenv.envs.math_verifier.spelling import spell
from agentenv.envs.math_verifier.typed import parse_typed

from .generator import Generator

__all__ = ["countdown", "reaches"]


_MARKS = re.compile(r"\$|\\[()\[\]]")
_BRACKETS = str.maketrans("[]", "()")


def reaches(answer: str, numbers: Sequence[int], target: Fraction) -> bool:
    r"""Returns whether an expression has the value `target` and uses each of the numbers exactly once.

    Only `+ - * /` and parentheses are allowed, typed or in LaTeX (`\times`, `\frac{a}{b}`, `3(1+2)`); steps may be
    fractions and negative. `= target` at the end is tolerated.
    """
    expression, _, claim = spell(_MARKS.sub("", answer)).strip(". ").translate(_BRACKETS).partition("=")
    try:
        tree = parse_typed(expression)
        leaves = _leaves(tree)
        return (
            leaves is not None
            and Counter(leaves) == Counter(map(Fraction, numbers))
            and evaluate(tree) == target
            and (not claim.strip() or evaluate(parse_typed(claim)) == target)
        )
    except ExpressionError:
        return False


def _leaves(tree: Expression) -> list[Fraction] | None:
    """Returns the numbers of a tree of allowed operations, `None` for any other tree."""
    if isinstance(tree, Fraction):
        return [tree]
    if not isinstance(tree, Call) or tree.operator not in {"+", "-", "*", "/"}:
        return None
    left, right = map(_leaves, tree.arguments)
    return None if left is None or right is None else left + right


def _draw(rng: np.random.Generator, difficulty: int) -> tuple[str, str, tuple[int, ...]]:
    count = difficulty + 2
    while True:
        numbers = [int(n) for n in rng.integers(1, 26 if difficulty > 1 else 11, count)]
        target = _combine(rng, numbers)
        if target.denominator == 1 and 10 <= target <= 999 and target not in numbers:
            break
    listed = ", ".join(map(str, sorted(numbers)))
    question = f"Use each of {listed} exactly once, with + - * / and parentheses, to make {target}."
    return question, str(target), tuple(sorted(numbers))


def _combine(rng: np.random.Generator, numbers: list[int]) -> Fraction:
    """Returns the value of a random expression of the numbers: what it reaches can be reached."""
    values = [Fraction(n) for n in numbers]
    while len(values) > 1:
        a = values.pop(int(rng.integers(len(values))))
        b = values.pop(int(rng.integers(len(values))))
        results = [a + b, a - b, a * b]
        if b and Fraction(a, b).denominator == 1:
            results.append(Fraction(a, b))
        values.append(results[int(rng.integers(len(results)))])
    return values[0]


countdown = Generator("countdown", 4, _draw)
"""Targets from 10 to 999 to be made of `difficulty + 2` numbers, each used once; every one can be made.

The answer is an expression, and any that works is right. Numbers reach 10 at difficulty 1, 25 above.
"""
