"""VinePPO: Monte Carlo values from the continuations below every node."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

from .groups import ratio
from .passes import assemble, check_discount, check_steps, returns_below, sum_of_children
from .result import StepAdvantages
from .weights import Weights, weigh

__all__ = ["vine_ppo_advantages"]

FloatArray = NDArray[np.float64]


def vine_ppo_advantages(
    tree: TreeArrays,
    *,
    discount: float = 1.0,
    baseline: Literal["siblings", "parent"] = "siblings",
    weights: Weights = "occupancy",
) -> StepAdvantages:
    """Computes one-step advantages with Monte Carlo values of the nodes themselves: no signatures, no critic.

        A = r + discount V(node) - B(parent)            V(node) = mean return-to-go of the trajectories below

    With `baseline="siblings"`, B is the mean action value of the parent's *other* children: what the policy gets from
    there when it is asked again, which the step itself did not move. Where the parent has no other child, it is that
    of the nearest fork above, less the rewards since; on independent chains that makes it RLOO. The gradient is exact
    in expectation, under the conditions of `occupancy_weights`. With `"parent"`, B is V(parent), the step's own return
    included: the credit of a step whose parent has n children shrinks by `1 - 1 / n`, to nothing at n = 1.

    Source: VinePPO (arXiv 2410.01679), which samples K fresh continuations from every step and takes both values from
    them; here the continuations are whatever the tree holds below a node, the trajectory itself included. Use forks
    at most steps; where no fork is above a step, and the root has one child, it gets 0.

    Args:
        tree: `[N]` one or many trees.
        discount: factor per step, in [0, 1].
        baseline: what a step is compared with.
        weights: of the trajectories in every mean, see `step_weights`; train with the same.
    """
    check_discount(discount)
    if baseline not in ("siblings", "parent"):
        msg = f"baseline must be 'siblings' or 'parent', got {baseline!r}"
        raise ValueError(msg)
    check_steps(tree)
    below = weigh(tree, weights).below
    sums = returns_below(tree, below, discount=discount)
    action_values = ratio(sums, below)
    totals, mass = sum_of_children(tree, sums)[tree.parents], sum_of_children(tree, below)[tree.parents]
    if baseline == "parent":
        values = ratio(totals, mass)
    else:
        values = _of_siblings(tree, totals - sums, mass, below, action_values)
    return assemble(tree, action_values - values, values, action_values)


def _of_siblings(
    tree: TreeArrays, others: FloatArray, mass: FloatArray, below: FloatArray, action_values: FloatArray
) -> FloatArray:
    """Computes the mean action value of every step's siblings, or of those at the nearest fork above: `[N]`."""
    rest = mass - below
    forked = rest > 1e-9 * mass
    values = np.where(forked, ratio(others, rest), action_values)
    known = forked.copy()
    for level in tree.levels[2:]:
        alone = level[~forked[level] & known[tree.parents[level]]]
        above = tree.parents[alone]
        values[alone], known[alone] = values[above] - tree.rewards[above], True
    return values
