"""The policy's hidden states at step boundaries, taken from the forward passes that sampling makes anyway."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agentenv.agents import TransformersAgent
from agentenv.credit.predictor import Prefix, prefix_at
from agentenv.tree import EpisodeTree

__all__ = ["HiddenStates"]


class HiddenStates:
    """Keeps the last hidden state of every prompt that an agent reads, until `clear`.

    The state is that of the last layer, after its norm, at the prompt's last token: all that the policy knows before it
    acts. Nothing is computed for it. Where a model samples without keeping keys and values, there is none.

    Args:
        agent: whose model is listened to, from now until `detach`.
    """

    def __init__(self, agent: TransformersAgent) -> None:
        self._states: dict[tuple[int, ...], NDArray[np.float32]] = {}
        self._newest: torch.Tensor | None = None
        self._hook = _backbone(agent.model).register_forward_hook(self._hear)
        self._agent = agent
        agent.listen(self._keep)

    def __len__(self) -> int:
        return len(self._states)

    def clear(self) -> None:
        """Forgets the states: they belong to weights that change."""
        self._states.clear()
        self._newest = None

    def detach(self) -> None:
        """Stops listening."""
        self._hook.remove()
        self._agent.listen(None)

    def prefix_at(self, tree: EpisodeTree, node: int) -> Prefix:
        """Reads the prefix of a node, with its hidden state where it is kept."""
        prefix = prefix_at(tree, node)
        state = self._states.get(tuple(prefix.token_ids)) if prefix.token_ids else None
        return prefix if state is None else replace(prefix, hidden=state)

    def _hear(self, module: torch.nn.Module, _: Any, output: Any) -> None:
        if not module.training:
            self._newest = output[0][:, -1].detach()

    def _keep(self, prompts: Sequence[tuple[int, ...]]) -> None:
        if self._newest is not None and len(self._newest) == len(prompts):
            self._states |= zip(map(tuple, prompts), self._newest.float().cpu().numpy(), strict=True)


def _backbone(model: Any) -> torch.nn.Module:
    """Returns what a causal language model computes hidden states with, below adapters."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model
