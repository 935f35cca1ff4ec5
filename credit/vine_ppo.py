"""VinePPO: Monte Carlo values from the continuations below every node."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

from .groups import ratio
from .passes import assemble, check_discount, check_steps, returns_below, sum_of_children
from .result import StepAdvantages

__all__ = ["vine_ppo_advantages"]

FloatArray = NDArray[np.float64]


def vine_ppo_advantages(
    tree: TreeArrays, *, discount: float = 1.0, weighting: Literal["leaves", "children"] = "leaves"
) -> StepAdvantages:
    """Computes one-step advantages with Monte Carlo values of the nodes themselves: no signatures, no critic.

        A = r + discount V(node) - V(parent)

    Source: VinePPO (arXiv 2410.01679), which samples K fresh continuations from every step; here the continuations are
    whatever the tree holds below a node, the trajectory itself included. On independent chains V(node) is the
    trajectory's own return and every step but the first gets 0: this needs real forks.

    Args:
        tree: `[N]` one or many trees.
        discount: factor per step, in [0, 1].
        weighting: `"leaves"`: V(node) is the mean over all trajectories below. `"children"`: the mean over the next
            steps of their action values, each counted once; where an allocator spent more on some children than on
            others (TRACE), only this does not tilt V toward them.
    """
    check_discount(discount)
    if weighting not in ("leaves", "children"):
        msg = f"weighting must be 'leaves' or 'children', got {weighting!r}"
        raise ValueError(msg)
    check_steps(tree)
    if weighting == "leaves":
        totals = returns_below(tree, discount=discount)
        action_values = ratio(totals, tree.leaf_counts)
        values = ratio(sum_of_children(tree, totals), tree.leaf_counts)
    else:
        action_values, values = _by_children(tree, discount)
    baseline = values[tree.parents]
    return assemble(tree, action_values - baseline, baseline, action_values)


def _by_children(tree: TreeArrays, discount: float) -> tuple[FloatArray, FloatArray]:
    """Backs up action values as plain means over children: Q `[N]` of the step into a node, V `[N]` at it."""
    counted = tree.leaf_counts > 0
    children = np.bincount(tree.parents[counted & ~tree.is_root], minlength=len(tree))
    values, action_values = np.zeros(len(tree)), np.zeros(len(tree))
    for depth, level in reversed(list(enumerate(tree.levels))):
        values[level] = ratio(values[level], children[level])
        action_values[level] = tree.rewards[level] + discount * values[level]
        if depth:
            live = level[counted[level]]
            np.add.at(values, tree.parents[live], action_values[live])
    return action_values, values
