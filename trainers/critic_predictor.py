"""A critic as TRACE's success predictor: the closed loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.credit.predictor import Prefix

__all__ = ["CriticPredictor"]

FloatArray = NDArray[np.float64]


class CriticPredictor:
    """Predicts the success rate of continuations by what a critic says at the end of each prefix.

    Of a task that was not sampled yet there are no tokens: such a prefix gets what the critic last said at the root of
    the same task or, where it never said anything, the mean of what it said at roots.

    Args:
        success: gives the probabilities `[A]` of token sequences.
    """

    def __init__(self, success: Callable[[Sequence[Sequence[int]]], FloatArray]) -> None:
        self._success = success
        self._roots: dict[str, float] = {}

    def predict(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """Returns `[A]` probabilities, one per prefix."""
        known = [i for i, prefix in enumerate(prefixes) if prefix.token_ids]
        mean = float(np.mean([*self._roots.values()])) if self._roots else 0.5
        values = np.array([self._roots.get(prefix.task, mean) for prefix in prefixes])
        if known:
            values[known] = self._success([prefixes[i].token_ids for i in known])
        return values

    def update(
        self,
        prefixes: Sequence[Prefix],
        targets: ArrayLike,  # noqa: ARG002
        weights: ArrayLike | None = None,  # noqa: ARG002
    ) -> None:
        """Remembers what the critic says at roots; the trainer teaches the critic itself, on all tokens."""
        roots = [prefix for prefix in prefixes if not prefix.depth and prefix.token_ids]
        if roots:
            said = self._success([prefix.token_ids for prefix in roots])
            self._roots |= {prefix.task: float(value) for prefix, value in zip(roots, said, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Returns what was said at roots."""
        return {"roots": dict(self._roots)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the state that `state_dict` gave."""
        self._roots = {str(task): float(value) for task, value in state["roots"].items()}
