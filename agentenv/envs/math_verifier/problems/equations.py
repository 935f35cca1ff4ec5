"""Linear equations: one unknown, and systems of two or three."""

from fractions import Fraction

import numpy as np

from agentenv.envs.math_verifier.expressions import show_number

from .generator import Generator

__all__ = ["equation", "linear_system"]


def _draw_equation(rng: np.random.Generator, difficulty: int) -> tuple[str, str, tuple[int, ...]]:
    while True:
        a, b, c, d, e = (int(n) for n in rng.integers(2, 10, 5))
        x = int(rng.integers(0, 13))
        match difficulty:
            case 1:
                left, right = f"{a} * x + {b}", f"{a * x + b}"
            case 2:
                rest = a * x + b - c * x
                left, right = f"{a} * x + {b}", f"{c} * x + {rest}"
                if a == c or rest < 1:
                    continue
            case 3:
                rest = a * (x + b) + c - d * x
                left, right = f"{a} * (x + {b}) + {c}", f"{d} * x + {rest}"
                if a == d or rest < 1:
                    continue
            case _:
                f = int(rng.integers(10, 40))
                left, right = f"{a} * ({b} * x + {c}) + {d}", f"{e} * (x + {f})"
                if a * b == e:
                    continue
                x = Fraction(e * f - a * c - d, a * b - e)
        return f"Solve {left} = {right} for x.", show_number(Fraction(x)), ()


def _draw_system(rng: np.random.Generator, difficulty: int) -> tuple[str, str, tuple[int, ...]]:
    size = 2 if difficulty <= 2 else 3
    bound = 5 if difficulty in {1, 3} else 12
    while True:
        matrix = rng.integers(-bound, bound + 1, (size, size))
        solution = rng.integers(-9, 10, size)
        if round(np.linalg.det(matrix)) != 0 and (matrix != 0).all():
            break
    rows = [f"{_sum(row)} = {value}" for row, value in zip(matrix.tolist(), (matrix @ solution).tolist(), strict=True)]
    names = ", ".join("xyz"[:size])
    question = f"Solve the system {'; '.join(rows)}. Answer with ({names})."
    return question, f"({', '.join(map(str, solution.tolist()))})", ()


def _sum(coefficients: list[int]) -> str:
    text = ""
    for name, coefficient in zip("xyz", coefficients, strict=False):
        sign = "-" if coefficient < 0 else "+" if text else ""
        gap = " " if text else ""
        size = "" if abs(coefficient) == 1 else f"{abs(coefficient)} * "
        text += f"{gap}{sign}{gap}{size}{name}"
    return text


equation = Generator("equation", 4, _draw_equation)
"""Linear equations with exactly one solution.

Difficulty 1 is `a * x + b = c`, 2 has the unknown on both sides, 3 adds a pair of parentheses; up to there the solution
is a whole number. 4 has two pairs of parentheses and a solution that may be a fraction.
"""

linear_system = Generator("linear_system", 4, _draw_system)
"""Systems of linear equations with exactly one solution, in whole numbers from -9 to 9.

Difficulty 1 and 2 have two unknowns, 3 and 4 three; coefficients reach 5 in 1 and 3, and 12 in 2 and 4.
"""
