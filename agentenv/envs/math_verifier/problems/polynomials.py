"""Polynomial identities: which constants make two polynomials equal for all x."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from agentenv.envs.math_verifier.expressions import show_number

from .generator import Generator

__all__ = ["polynomial", "spell"]


def _draw(rng: np.random.Generator, difficulty: int) -> tuple[str, str, tuple[int, ...]]:
    def coefficients(degree: int) -> list[int]:
        values: list[int] = rng.integers(-6, 7, degree + 1).tolist()
        values[-1] = values[-1] or 1
        return values

    r = int(rng.integers(1, 7))
    match difficulty:
        case 1:
            p, q = coefficients(1), coefficients(1)
            found = multiply(p, q)[::-1]
            identity = f"({spell(p)}) * ({spell(q)}) = a * x^2 + b * x + c"
        case 2:
            q = coefficients(2)
            found = q[::-1]
            identity = f"{spell(multiply([-r, 1], q))} = (x - {r}) * (a * x^2 + b * x + c)"
        case 3:
            divisor, quotient, rest = [*coefficients(1), 1], coefficients(1), coefficients(1)
            product = multiply(divisor, quotient)
            found = [*quotient[::-1], *rest[::-1]]
            total = [a + b for a, b in zip(product, [*rest, 0, 0], strict=True)]
            identity = f"{spell(total)} = ({spell(divisor)}) * (a * x + b) + c * x + d"
        case 4:
            m, n = coefficients(1)[::-1]
            s = r + int(rng.integers(1, 6))
            a, b = Fraction(m * r + n, r - s), Fraction(m * s + n, s - r)
            question = (
                f"For which (a, b) is ({spell([n, m])}) / ((x - {r}) * (x - {s})) = a / (x - {r}) + b / (x - {s}) "
                "wherever both are defined?"
            )
            return question, _tuple([a, b]), ()
        case _:
            q = coefficients(3)
            found = q[::-1]
            shifted = f"a * (x - {r})^3 + b * (x - {r})^2 + c * (x - {r}) + d"
            identity = f"{spell(compose(q, [-r, 1]))} = {shifted}"
    names = ", ".join("abcd"[: len(found)])
    return f"For which ({names}) does {identity} hold for all x?", _tuple(found), ()


def _tuple(values: Sequence[int | Fraction]) -> str:
    return f"({', '.join(show_number(Fraction(value)) for value in values)})"


def spell(coefficients: Sequence[int]) -> str:
    """Returns a polynomial in x as text, from its coefficients, lowest power first."""
    text = ""
    for power in range(len(coefficients) - 1, -1, -1):
        c = coefficients[power]
        if not c:
            continue
        variable = "" if power == 0 else "x" if power == 1 else f"x^{power}"
        size = str(abs(c)) if not power else "" if abs(c) == 1 else f"{abs(c)} * "
        sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
        text += sign + size + variable
    return text or "0"


def multiply(p: Sequence[int], q: Sequence[int]) -> list[int]:
    """Returns the coefficients of a product, lowest power first."""
    result = [0] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            result[i + j] += a * b
    return result


def compose(p: Sequence[int], q: Sequence[int]) -> list[int]:
    """Returns the coefficients of p(q(x)), lowest power first, by Horner's rule."""
    result = [0]
    for c in reversed(p):
        result = multiply(result, q)
        result[0] += c
    return result[: (len(p) - 1) * (len(q) - 1) + 1]


polynomial = Generator("polynomial", 5, _draw)
"""Constants that make an identity of polynomials in x hold for all x; the answer is a tuple of numbers.

Difficulty 1 multiplies, 2 divides by a factor, 3 divides with remainder, 4 finds partial fractions, 5 expands around
another point.
"""
