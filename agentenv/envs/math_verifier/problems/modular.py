"""Modular arithmetic: powers, inverses and simultaneous congruences."""

import math

import numpy as np

from .generator import Generator

__all__ = ["modular"]

_PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


def _draw(rng: np.random.Generator, difficulty: int) -> tuple[str, str, tuple[int, ...]]:
    match difficulty:
        case 1:
            a, b, m = int(rng.integers(20, 1000)), int(rng.integers(20, 1000)), int(rng.integers(5, 50))
            return f"What is the remainder of {a} * {b} divided by {m}?", str(a * b % m), ()
        case 2:
            a, n, m = int(rng.integers(2, 30)), int(rng.integers(20, 500)), int(rng.integers(5, 100))
            return f"What is the remainder of {a}^{n} divided by {m}?", str(pow(a, n, m)), ()
        case 3:
            m = int(rng.integers(20, 200))
            units = [a for a in range(2, m) if math.gcd(a, m) == 1]
            a = units[int(rng.integers(len(units)))]
            question = f"Which x with 0 <= x < {m} satisfies {a} * x ≡ 1 (mod {m})?"
            return question, str(pow(a, -1, m)), ()
        case _:
            moduli = sorted(rng.choice(_PRIMES, 2 if difficulty == 4 else 3, replace=False).tolist())
            product = math.prod(moduli)
            x = int(rng.integers(product))
            conditions = " and ".join(f"x ≡ {x % m} (mod {m})" for m in moduli)
            return f"Which x with 0 <= x < {product} satisfies {conditions}?", str(x), ()


modular = Generator("modular", 5, _draw)
"""Remainders and congruences.

Difficulty 1 asks for the remainder of a product, 2 of a power, 3 for an inverse, 4 and 5 for the solution of two and
three simultaneous congruences.
"""
