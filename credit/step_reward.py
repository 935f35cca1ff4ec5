"""Step reward: return-to-go against the group at the same step."""

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

from .checks import check_finite
from .groups import beyond_rounding, group_means, group_sums, ratio, scaled
from .matching import renumber
from .passes import assemble, branches, check_discount, check_steps, returns_below, spread_below
from .result import StepAdvantages
from .weights import Weights, is_chains, weigh

__all__ = ["step_reward_advantages"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def step_reward_advantages(
    tree: TreeArrays,
    *,
    discount: float = 1.0,
    scale: bool = True,
    epsilon: float = 1e-6,
    weights: Weights = "occupancy",
) -> StepAdvantages:
    """Computes the discounted return-to-go of every step minus that of the other trajectories at the same step number.

        A_t^i = (G_t^i - (1 / (G - 1)) sum_{j != i} G_t^j) / (std + epsilon)

    A trajectory that has ended counts with return-to-go 0, so every baseline has the same G - 1 terms. The natural
    construction (normalize each step's reward among the trajectories that got so far, then add up what follows)
    subtracts a baseline whose number of terms is the trajectory's own stopping step: a hidden bonus of minus the mean
    intermediate reward for taking another step (verl issue 7244). Here nothing that is subtracted depends on the
    trajectory's own choices, so with `scale=False` the policy gradient is unbiased (tested on tabular problems). In a
    tree the others are those of the other branches of the root, as in `rloo_advantages`.

    Source: the "StepReward" baseline of RTMC's tables is known by name only; this is our reading of it.

    Args:
        tree: `[N]` one or many trees; each tree is one group of G valid branches. A group of one gets 0.
        discount: factor per step, in [0, 1].
        scale: divide by one (population) standard deviation per group, of the return-to-go over the steps of all
            trajectories.
        epsilon: added to the deviation, at least 0; a group without deviation gets 0, whatever it is.
        weights: of the trajectories in every mean, see `step_weights`; train with the same.
    """
    check_discount(discount)
    check_finite("epsilon", epsilon, minimum=0)
    check_steps(tree)
    below = weigh(tree, weights).below
    sums = returns_below(tree, below, discount=discount)
    action_values = ratio(sums, below)
    own_sums, own_weight = sums, below
    if not is_chains(tree):
        top = branches(tree)
        own_sums, own_weight = _at_step(tree, top, sums), below[top]
    tops = np.flatnonzero(tree.depths == 1)
    weight = group_sums(tree.tree_ids[tops], below[tops], tree.num_trees)[tree.tree_ids] - own_weight
    others = _at_step(tree, tree.tree_ids, sums) - own_sums
    baseline = np.divide(others, weight, out=action_values.copy(), where=weight > 0)
    advantages = action_values - baseline
    if scale:
        inner = np.where(tree.is_root, 0.0, below)
        mean = group_means(tree.tree_ids, action_values, inner, tree.num_trees)[tree.tree_ids]
        within = np.where(tree.is_root, 0.0, spread_below(tree, below, action_values, discount))
        spread = group_sums(tree.tree_ids, within + inner * (action_values - mean) ** 2, tree.num_trees)
        variance = ratio(spread, group_sums(tree.tree_ids, inner, tree.num_trees))
        deviation = beyond_rounding(tree.tree_ids, np.where(tree.is_root, 0.0, action_values), np.sqrt(variance))
        advantages = scaled(advantages, deviation[tree.tree_ids], epsilon)
    return assemble(tree, advantages, baseline, action_values)


def _at_step(tree: TreeArrays, groups: IntArray, sums: FloatArray) -> FloatArray:
    """Sums entries over the nodes of equal group and depth: `[N]`."""
    numbers, count = renumber(groups * (int(tree.depths.max()) + 1) + tree.depths)
    return group_sums(numbers, sums, count)[numbers]
