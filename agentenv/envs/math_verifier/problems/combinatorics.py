"""Counting, by brute force: the reference comes from listing every case."""

from itertools import combinations, pairwise, permutations, product

import numpy as np

from .generator import Generator

__all__ = ["combinatorics"]


def _draw(rng: np.random.Generator, difficulty: int) -> tuple[str, str, tuple[int, ...]]:
    draw = (_sums, _committees, _subsets, _words, _paths)[difficulty - 1]
    question, count = draw(rng)
    return question, str(count), ()


def _sums(rng: np.random.Generator) -> tuple[str, int]:
    dice, faces = int(rng.integers(2, 5)), 6
    total = int(rng.integers(dice + 1, dice * faces))
    count = sum(sum(roll) == total for roll in product(range(1, faces + 1), repeat=dice))
    return f"In how many ways can {dice} different dice show a sum of {total}?", count


def _committees(rng: np.random.Generator) -> tuple[str, int]:
    women, men = int(rng.integers(3, 7)), int(rng.integers(3, 7))
    size = int(rng.integers(3, 6))
    least = int(rng.integers(1, min(size, women) + 1))
    count = sum(sum(person < women for person in group) >= least for group in combinations(range(women + men), size))
    question = (
        f"From {women} women and {men} men a committee of {size} is chosen, with at least {least} "
        f"{'woman' if least == 1 else 'women'}. In how many ways?"
    )
    return question, count


def _subsets(rng: np.random.Generator) -> tuple[str, int]:
    largest, size, divisor = int(rng.integers(7, 13)), int(rng.integers(3, 6)), int(rng.integers(3, 8))
    count = sum(sum(subset) % divisor == 0 for subset in combinations(range(1, largest + 1), size))
    question = f"How many subsets of {{1, 2, ..., {largest}}} have {size} elements whose sum is divisible by {divisor}?"
    return question, count


def _words(rng: np.random.Generator) -> tuple[str, int]:
    letters = "".join(sorted(rng.choice(list("AABBCCDE"), int(rng.integers(5, 8)), replace=False).tolist()))
    count = sum(all(a != b for a, b in pairwise(w)) for w in set(permutations(letters)))
    question = f"How many arrangements of the letters {letters} have no two equal letters next to each other?"
    return question, count


def _paths(rng: np.random.Generator) -> tuple[str, int]:
    right, up = int(rng.integers(4, 7)), int(rng.integers(4, 7))
    x, y = int(rng.integers(1, right)), int(rng.integers(1, up))
    count = 0
    for ups in combinations(range(right + up), up):
        a = b = 0
        blocked = False
        for step in range(right + up):
            a, b = (a, b + 1) if step in ups else (a + 1, b)
            blocked |= (a, b) == (x, y)
        count += not blocked
    question = (
        f"A path goes from (0, 0) to ({right}, {up}) in unit steps right or up and avoids the point ({x}, {y}). "
        "How many such paths are there?"
    )
    return question, count


combinatorics = Generator("combinatorics", 5, _draw)
"""Counting problems small enough to list every case.

Difficulty 1 counts rolls of dice, 2 committees, 3 subsets by their sum, 4 arrangements of letters
without equal neighbors, 5 lattice paths around a point.
"""
