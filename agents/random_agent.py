"""An agent that calls tools at random: a baseline, and a way into an environment without a model."""

from collections.abc import Sequence

import numpy as np

from agentenv.protocols import Context
from agentenv.spaces import Actions
from agentenv.types import Action

__all__ = ["RandomAgent"]


class RandomAgent:
    """Draws a call of one of the tools, with arguments that are valid by its JSON schema, or text.

    What it draws depends on the context's seed and tools alone: the same seed gives the same tree, on every executor.

    Args:
        text_share: probability of plain text instead of a call; 1 where there are no tools.

    Raises:
        ValueError: `text_share` is not in [0, 1].
    """

    def __init__(self, *, text_share: float = 0.1) -> None:
        if not 0 <= text_share <= 1:
            msg = f"text_share must be in [0, 1], got {text_share!r}"
            raise ValueError(msg)
        self.text_share = text_share

    def act(self, contexts: Sequence[Context]) -> list[Action]:
        """Returns one action per context, in the same order."""
        return [self._draw(context) for context in contexts]

    def _draw(self, context: Context) -> Action:
        rng = np.random.default_rng(context.seed)
        return Action.parse(Actions(context.tools, text_share=self.text_share, seed=rng).sample())
