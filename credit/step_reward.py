"""Step reward: return-to-go against the group at the same step."""

import numpy as np

from agentenv.arrays import TreeArrays

from .groups import group_means, group_sums, ratio
from .matching import renumber
from .passes import assemble, check_discount, check_steps, returns_below, spread_below, tree_sums
from .result import StepAdvantages

__all__ = ["step_reward_advantages"]


def step_reward_advantages(
    tree: TreeArrays, *, discount: float = 1.0, scale: bool = True, epsilon: float = 1e-6
) -> StepAdvantages:
    """Computes the discounted return-to-go of every step minus that of the other trajectories at the same step number.

        A_t^i = (G_t^i - (1 / (G - 1)) sum_{j != i} G_t^j) / (std + epsilon)

    A trajectory that has ended counts with return-to-go 0, so every baseline has the same G - 1 terms. The natural
    construction (normalize each step's reward among the trajectories that got so far, then add up what follows)
    subtracts a baseline whose number of terms is the trajectory's own stopping step: a hidden bonus of minus the mean
    intermediate reward for taking another step (verl issue 7244). Here nothing that is subtracted depends on the
    trajectory's own choices, so with `scale=False` the policy gradient is unbiased (tested on tabular problems).

    Source: the "StepReward" baseline of RTMC's tables is known by name only; this is our reading of it.

    Args:
        tree: `[N]` one or many trees; each tree is one group of G valid trajectories. A group of one gets 0.
        discount: factor per step, in [0, 1].
        scale: divide by one (population) standard deviation per group, of the return-to-go over the steps of all
            trajectories.
        epsilon: added to the deviation.
    """
    check_discount(discount)
    check_steps(tree)
    sums = returns_below(tree, discount=discount)
    action_values = ratio(sums, tree.leaf_counts)
    deepest = int(tree.depths.max())
    turns, count = renumber(tree.tree_ids * (deepest + 1) + tree.depths)
    group = tree_sums(tree, tree.is_trajectory.astype(np.float64))[tree.tree_ids]
    baseline = ratio(group_sums(turns, sums, count)[turns] - action_values, group - 1)
    baseline = np.where(group > 1, baseline, action_values)
    advantages = action_values - baseline
    if scale:
        weights = np.where(tree.is_root, 0.0, tree.leaf_counts)
        mean = group_means(tree.tree_ids, action_values, weights, tree.num_trees)[tree.tree_ids]
        within = np.where(tree.is_root, 0.0, spread_below(tree, action_values, discount))
        spread = group_sums(tree.tree_ids, within + weights * (action_values - mean) ** 2, tree.num_trees)
        variance = ratio(spread, group_sums(tree.tree_ids, weights, tree.num_trees))
        advantages = ratio(advantages, (np.sqrt(variance) + epsilon)[tree.tree_ids])
    return assemble(tree, advantages, baseline, action_values)
