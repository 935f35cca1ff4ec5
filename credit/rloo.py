"""RLOO: each trajectory against the mean of the others."""

import numpy as np

from agentenv.arrays import TreeArrays

from .groups import group_sums, ratio
from .passes import assemble, at_ends, branches, check_steps, sum_below
from .result import StepAdvantages
from .weights import Weights, is_chains, weigh

__all__ = ["rloo_advantages"]


def rloo_advantages(tree: TreeArrays, *, weights: Weights = "occupancy") -> StepAdvantages:
    """Computes leave-one-out advantages: the return of each trajectory minus the mean return of the others.

        A_i = R_i - (1 / (G - 1)) sum_{j != i} R_j = G / (G - 1) (R_i - mean R)

    Source: RLOO (arXiv 2402.14740). In a tree the others are the trajectories that share no step with it, those of the
    other branches of the root: siblings below a fork share a trunk, and a baseline that the trunk's actions moved is
    no baseline. Where trajectories share steps, R is the weighted mean over those through the step. A group of one
    branch gets 0: there are no others. On G independent chains the gradient is exact in expectation, and with forks
    too, under the conditions of `occupancy_weights`.

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        weights: of the trajectories in every mean, see `step_weights`; train with the same.

    Returns:
        `values` holds the mean return of the other branches.
    """
    check_steps(tree)
    below = weigh(tree, weights).below
    sums = sum_below(tree, at_ends(tree, tree.returns, below))
    own_sums, own_weight = sums, below
    if not is_chains(tree):
        top = branches(tree)
        own_sums, own_weight = sums[top], below[top]
    tops = np.flatnonzero(tree.depths == 1)
    total, weight = (group_sums(tree.tree_ids[tops], x[tops], tree.num_trees)[tree.tree_ids] for x in (sums, below))
    action_values = ratio(sums, below)
    others = weight - own_weight
    baseline = np.divide(total - own_sums, others, out=action_values.copy(), where=others > 0)
    return assemble(tree, action_values - baseline, baseline, action_values)
