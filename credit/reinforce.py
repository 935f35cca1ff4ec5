"""REINFORCE with the group's mean as baseline."""

import numpy as np

from agentenv.arrays import TreeArrays

from .groups import group_means, ratio
from .passes import assemble, check_discount, check_steps, returns_below
from .result import StepAdvantages
from .weights import Weights, weigh

__all__ = ["reinforce_advantages"]


def reinforce_advantages(tree: TreeArrays, *, discount: float = 1.0, weights: Weights = "occupancy") -> StepAdvantages:
    """Computes return-to-go minus the group's mean return, for every step.

        A_t = G_t - mean over the group of G_0          G_t = sum_{l >= 0} discount^l r_{t+l}

    Source: REINFORCE (Williams 1992) with one constant baseline per group. For a reward at the end and discount 1 it
    is `dr_grpo_advantages`. A step that several trajectories share gets the mean of theirs.

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        discount: factor per step, in [0, 1].
        weights: of the trajectories in every mean, see `step_weights`; train with the same.
    """
    check_discount(discount)
    check_steps(tree)
    weighing = weigh(tree, weights)
    action_values = ratio(returns_below(tree, weighing.below, discount=discount), weighing.below)
    first = np.where(tree.depths == 1, weighing.below, 0.0)
    baseline = group_means(tree.tree_ids, action_values, first, tree.num_trees)[tree.tree_ids]
    return assemble(tree, action_values - baseline, baseline, action_values)
