"""GiGPO: an episode-level term plus a step-level term among steps that leave the same state."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays

from .checks import check_finite
from .groups import group_means, ratio, scaled
from .matching import check_ids, state_numbers
from .passes import assemble, check_discount, check_steps, mean_below, returns_below, spread_below, sum_below
from .result import StepAdvantages
from .weights import Weighing, Weights, sample_deviation, weigh

__all__ = ["gigpo_advantages"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def gigpo_advantages(
    tree: TreeArrays,
    *,
    discount: float = 0.95,
    step_weight: float = 1.0,
    scale: bool = False,
    episode_mean: Literal["trajectories", "steps"] = "trajectories",
    epsilon: float = 1e-6,
    state_ids: ArrayLike | None = None,
    weights: Weights = "occupancy",
) -> StepAdvantages:
    """Computes GiGPO advantages: group-relative return plus the step's return against its anchor-state group.

        A = (R - mean R) / F + step_weight (G_t - mean of G over steps that leave the same state) / F'

    with G_t the discounted return-to-go, F = F' = 1 or the sample deviation of the same entries plus epsilon. Every
    visit counts, not just the first. A state that only one step leaves gives a step term of 0.

    Source: GiGPO (arXiv 2505.10978) and its code in verl-agent. Conventions: `scale=False` is its `mean_norm`, the
    code's default, `scale=True` its `mean_std_norm`; `episode_mean="steps"` takes mean and deviation over step rows, as
    the code does by default, so that long episodes weigh more; the paper's formula is over trajectories. A group of
    one trajectory gets an episode term of 0 (the code passes its raw return).

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        discount: factor per step, in [0, 1].
        step_weight: omega, at least 0.
        scale: divide both terms by their deviations.
        episode_mean: what the episode term averages over.
        epsilon: added to the deviations, at least 0; entries without deviation get 0, whatever it is.
        state_ids: `[N]` integers that replace `tree.state_ids`.
        weights: of trajectories and steps in every mean, see `step_weights`; train with the same.

    Returns:
        `values` holds the state group's mean return, `action_values` the step's own mean return.
    """
    check_discount(discount)
    check_finite("step_weight", step_weight, minimum=0)
    check_finite("epsilon", epsilon, minimum=0)
    if episode_mean not in ("trajectories", "steps"):
        msg = f"episode_mean must be 'trajectories' or 'steps', got {episode_mean!r}"
        raise ValueError(msg)
    check_steps(tree)
    weighing = weigh(tree, weights)
    numbers, size = state_numbers(tree, check_ids(tree, state_ids, tree.state_ids, "state_ids"))
    ends = np.flatnonzero(tree.is_trajectory)
    rows = weighing.below[ends] * (tree.depths[ends] if episode_mean == "steps" else 1)
    count = tree.depths[ends].astype(np.float64) if episode_mean == "steps" else np.ones(len(ends))
    scores = np.zeros(len(tree))
    scores[ends], _ = _center(
        tree.tree_ids[ends],
        tree.returns[ends],
        rows,
        tree.num_trees,
        epsilon if scale else None,
        squares=rows**2 / count,
    )
    local, values, means = _step_terms(tree, weighing, numbers, size, discount, epsilon if scale else None)
    return assemble(tree, mean_below(tree, scores, weighing.below) + step_weight * local, values, means)


def _step_terms(
    tree: TreeArrays, weighing: Weighing, numbers: IntArray, size: int, discount: float, epsilon: float | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centers the returns of steps that leave the same state: terms, baselines and returns, `[N]` each."""
    means = ratio(returns_below(tree, weighing.below, discount=discount), weighing.below)
    steps = np.flatnonzero(~tree.is_root & (tree.leaf_counts > 0))
    within = squares = None
    if epsilon is not None:
        within = weighing.of_steps(spread_below(tree, weighing.below, means, discount))[steps]
        share = ratio(weighing.steps, weighing.below) ** 2
        squares = (share * sum_below(tree, np.where(tree.is_trajectory, weighing.below**2, 0.0)))[steps]
    local, values = np.zeros(len(tree)), np.zeros(len(tree))
    ids, own = numbers[tree.parents[steps]], weighing.steps[steps]
    local[steps], values[steps] = _center(ids, means[steps], own, size, epsilon, within=within, squares=squares)
    return local, values, means


def _center(
    ids: IntArray,
    entries: FloatArray,
    weights: FloatArray,
    size: int,
    epsilon: float | None,
    *,
    within: FloatArray | None = None,
    squares: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Centers entries in their groups, and scales them by the groups' deviations; returns them and the means.

    Args:
        ids: `[n]` group of each entry.
        entries: `[n]` each the mean of some samples.
        weights: `[n]` sum of the weights of those samples.
        size: number of groups.
        epsilon: added to the deviation; `None`: do not scale.
        within: `[n]` weighted sum of squared distances of those samples from their mean.
        squares: `[n]` sum of their squared weights.
    """
    mean = group_means(ids, entries, weights, size)[ids]
    centered = entries - mean
    if epsilon is None:
        return centered, mean
    spread = weights * centered**2 + (0.0 if within is None else within)
    squares = weights if squares is None else squares
    deviation = sample_deviation(ids, entries, spread, weights, squares, size=size)
    return scaled(centered, deviation[ids], epsilon), mean
