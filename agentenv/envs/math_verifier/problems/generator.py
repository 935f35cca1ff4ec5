"""What a generator of problems is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agentenv.envs.math_verifier.tasks import MathTask

__all__ = ["Generator"]


@dataclass(frozen=True, slots=True)
class Generator:
    """Draws problems of one kind.

    Attributes:
        kind: its name.
        highest: the highest difficulty; the lowest is 1.
        draw: returns the question, the reference, and the numbers that the answer must be made of, `()` where it is a
            value.
    """

    kind: str
    highest: int
    draw: Callable[[np.random.Generator, int], tuple[str, str, tuple[int, ...]]]

    def __call__(self, rng: np.random.Generator, difficulty: int) -> MathTask:
        """Returns a problem.

        Raises:
            ValueError: the difficulty is out of range.
        """
        self.check_difficulty(difficulty)
        question, reference, numbers = self.draw(rng, difficulty)
        return MathTask(question=question, reference=reference, numbers=numbers, kind=self.kind, difficulty=difficulty)

    def check_difficulty(self, difficulty: int) -> None:
        """Raises `ValueError` unless the difficulty is one of this generator's."""
        if not 1 <= difficulty <= self.highest:
            msg = f"difficulty of {self.kind!r} must be in [1, {self.highest}], got {difficulty}"
            raise ValueError(msg)
