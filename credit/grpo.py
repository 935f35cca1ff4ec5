"""GRPO: one advantage for a whole trajectory, its return against the group's."""

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

from .checks import check_finite
from .groups import scaled
from .passes import assemble, check_steps, mean_below, tree_means
from .result import StepAdvantages
from .weights import Weights, sample_deviation, weigh

__all__ = ["dr_grpo_advantages", "grpo_advantages"]

FloatArray = NDArray[np.float64]


def grpo_advantages(
    tree: TreeArrays, *, epsilon: float = 1e-4, ddof: int = 1, weights: Weights = "occupancy"
) -> StepAdvantages:
    """Computes GRPO advantages: the return of each trajectory, standardized within its group, for all its steps.

        A = (R - mean R) / (std R + epsilon)

    Source: DeepSeekMath (arXiv 2402.03300). The defaults are those of TRL's GRPOTrainer (sample deviation, epsilon
    1e-4); verl uses sample deviation and 1e-6, TRL's AsyncGRPO population deviation (`ddof=0`) and 1e-8. A group of one
    trajectory gets 0, as in TRL (verl passes its raw return). In a tree every leaf is one trajectory; a step
    that several share gets the mean of theirs. Trajectories that infrastructure broke count nowhere.

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        epsilon: added to the deviation, at least 0; a group without deviation gets 0, whatever it is.
        ddof: 1 for the sample deviation (Bessel), 0 for the population's.
        weights: of the trajectories in every mean, see `step_weights`; train with the same.

    Returns:
        `values` holds the group's mean return, `action_values` the mean return of the trajectories through the step;
        `advantages` is their difference divided by the deviation.
    """
    check_finite("epsilon", epsilon, minimum=0)
    if ddof not in (0, 1):
        msg = f"ddof must be 0 (population) or 1 (sample), got {ddof!r}"
        raise ValueError(msg)
    check_steps(tree)
    below, ends = weigh(tree, weights).below, np.flatnonzero(tree.is_trajectory)
    ids, own = tree.tree_ids[ends], below[ends]
    mean = tree_means(tree, tree.returns, below)
    spread = own * (tree.returns[ends] - mean[ids]) ** 2
    deviation = sample_deviation(ids, tree.returns[ends], spread, own, own**2, size=tree.num_trees, ddof=ddof)
    action_values, baseline = mean_below(tree, tree.returns, below), mean[tree.tree_ids]
    advantages = scaled(action_values - baseline, deviation[tree.tree_ids], epsilon)
    return assemble(tree, advantages, baseline, action_values)


def dr_grpo_advantages(tree: TreeArrays, *, weights: Weights = "occupancy") -> StepAdvantages:
    """Computes Dr.GRPO advantages: the return of each trajectory minus its group's mean, for all its steps.

        A = R - mean R

    Source: Dr.GRPO (arXiv 2503.20783). Its other half, a token sum divided by a constant instead of the length, belongs
    to the loss (`loss_type="dr_grpo"` in TRL). A step that several trajectories share gets the mean of theirs. The mean
    holds the trajectory itself: on G independent chains the gradient is exact times `1 - 1 / G`; with forks that
    factor differs from step to step, between `1 - 1 / branches` and 1 (`rloo_advantages` has no such factor).

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        weights: of the trajectories in every mean, see `step_weights`; train with the same.
    """
    check_steps(tree)
    below = weigh(tree, weights).below
    mean = tree_means(tree, tree.returns, below)[tree.tree_ids]
    action_values = mean_below(tree, tree.returns, below)
    return assemble(tree, action_values - mean, mean, action_values)
