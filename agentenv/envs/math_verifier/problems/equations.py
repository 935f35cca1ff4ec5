"""Linear equations in one unknown."""

from fractions import Fraction

import numpy as np

from agentenv.envs.math_verifier.expressions import show_number
from agentenv.envs.math_verifier.tasks import MathTask

__all__ = ["equation"]


def equation(rng: np.random.Generator, difficulty: int) -> MathTask:
    """Returns a linear equation with exactly one solution.

    Difficulty 1 is `a * x + b = c`, 2 has the unknown on both sides, 3 adds a pair of parentheses; up to there the
    solution is a whole number. 4 has two pairs of parentheses and a solution that may be a fraction.

    Args:
        rng: draws the equation.
        difficulty: from 1 to 4.

    Raises:
        ValueError: the difficulty is out of range.
    """
    if not 1 <= difficulty <= 4:
        msg = f"difficulty of 'equation' must be in [1, 4], got {difficulty}"
        raise ValueError(msg)
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
        question = f"Solve {left} = {right} for x."
        return MathTask(question=question, reference=show_number(Fraction(x)), kind="equation", difficulty=difficulty)
