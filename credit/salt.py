"""SALT: trajectory advantages averaged over identical transitions."""

import numpy as np
from numpy.typing import ArrayLike

from agentenv.arrays import TreeArrays

from .groups import group_means
from .grpo import grpo_advantages
from .matching import match_steps, match_transitions
from .passes import assemble
from .result import StepAdvantages
from .weights import Weights, step_weights

__all__ = ["salt_advantages"]


def salt_advantages(
    tree: TreeArrays,
    *,
    epsilon: float = 1e-4,
    ddof: int = 1,
    state_ids: ArrayLike | None = None,
    action_ids: ArrayLike | None = None,
    weights: Weights = "occupancy",
) -> StepAdvantages:
    """Computes GRPO advantages averaged over the steps of the group that are the same transition.

        A(s, a, s') = mean of A_GRPO over all steps (s, a, s') of the group

    Steps that succeeding and failing trajectories share cancel out; a transition seen once keeps its GRPO advantage.
    Averaging moves credit only between equal actions from equal states: trained with the same weights, the gradient is
    that of GRPO. Source: SALT, as secondary descriptions state it. Every visit counts.

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        epsilon: added to the deviation of returns.
        ddof: 1 for the sample deviation, 0 for the population's.
        state_ids: `[N]` integers that replace `tree.state_ids`.
        action_ids: `[N]` integers that replace `tree.action_ids`.
        weights: of trajectories and steps in every mean, see `step_weights`; train with the same.
    """
    result = grpo_advantages(tree, epsilon=epsilon, ddof=ddof, weights=weights)
    match = match_steps(tree, state_ids, action_ids)
    transitions, size = match_transitions(match)
    own = step_weights(tree, weights)[match.steps]
    advantages, action_values = np.zeros(len(tree)), np.zeros(len(tree))
    for out, entries in ((advantages, result.advantages), (action_values, result.action_values)):
        out[match.steps] = group_means(transitions, entries[match.steps], own, size)[transitions]
    return assemble(tree, advantages, result.values, action_values)
