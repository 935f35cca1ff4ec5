"""RLOO: each trajectory against the mean of the others."""

import numpy as np

from agentenv.arrays import TreeArrays

from .passes import assemble, check_steps, episode_returns, mean_below, tree_sums
from .result import StepAdvantages

__all__ = ["rloo_advantages"]


def rloo_advantages(tree: TreeArrays) -> StepAdvantages:
    """Computes leave-one-out advantages: the return of each trajectory minus the mean return of the others.

        A_i = R_i - (1 / (G - 1)) sum_{j != i} R_j = G / (G - 1) (R_i - mean R)

    Source: RLOO (arXiv 2402.14740). A group of one gets 0: there are no others. A step that several trajectories share
    gets the mean of theirs. The baseline is independent of the trajectory only where trajectories are: below a real
    fork, siblings share a trunk.

    Args:
        tree: `[N]` one or many trees; each tree is one group of G valid trajectories.

    Returns:
        `values` holds the mean of the leave-one-out baselines of the trajectories through the step.
    """
    check_steps(tree)
    returns = episode_returns(tree)
    ended = tree.is_trajectory
    count = tree_sums(tree, ended.astype(np.float64))
    total = tree_sums(tree, np.where(ended, returns, 0.0))
    action_values = mean_below(tree, returns)
    others = np.maximum(count - 1, 1)[tree.tree_ids]
    baseline = (total[tree.tree_ids] - action_values) / others
    alone = (count <= 1)[tree.tree_ids]
    baseline = np.where(alone, action_values, baseline)
    return assemble(tree, action_values - baseline, baseline, action_values)
