"""GiGPO: an episode-level term plus a step-level term among steps that leave the same state."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays

from .groups import group_means, group_sums, ratio
from .matching import check_ids, state_numbers
from .passes import assemble, check_discount, check_steps, episode_returns, mean_below, returns_below, spread_below
from .result import StepAdvantages

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
        epsilon: added to the deviations.
        state_ids: `[N]` integers that replace `tree.state_ids`.

    Returns:
        `values` holds the state group's mean return, `action_values` the step's own mean return.
    """
    check_discount(discount)
    if not 0.0 <= step_weight < np.inf:
        msg = f"step_weight must be at least 0 and finite, got {step_weight!r}"
        raise ValueError(msg)
    if episode_mean not in ("trajectories", "steps"):
        msg = f"episode_mean must be 'trajectories' or 'steps', got {episode_mean!r}"
        raise ValueError(msg)
    check_steps(tree)
    returns = episode_returns(tree)
    ends = np.flatnonzero(tree.is_trajectory)
    rows = tree.depths[ends].astype(np.float64) if episode_mean == "steps" else np.ones(len(ends))
    centered, deviation, _ = _center(tree.tree_ids[ends], returns[ends], rows, np.zeros(len(ends)), tree.num_trees)
    scores = np.zeros(len(tree))
    scores[ends] = centered / (deviation + epsilon) if scale else centered
    steps = np.flatnonzero(~tree.is_root & (tree.leaf_counts > 0))
    numbers, size = state_numbers(tree, check_ids(tree, state_ids, tree.state_ids, "state_ids"))
    totals = returns_below(tree, discount=discount)
    means = ratio(totals, tree.leaf_counts)
    within = spread_below(tree, means, discount)[steps] if scale else np.zeros(len(steps))
    weights = tree.leaf_counts[steps].astype(np.float64)
    centered, deviation, baseline = _center(numbers[tree.parents[steps]], means[steps], weights, within, size)
    local, values = np.zeros(len(tree)), np.zeros(len(tree))
    local[steps] = centered / (deviation + epsilon) if scale else centered
    values[steps] = baseline
    return assemble(tree, mean_below(tree, scores) + step_weight * local, values, means)


def _center(
    ids: IntArray, entries: FloatArray, weights: FloatArray, within: FloatArray, size: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centers entries in their groups; returns them with the groups' sample deviation and mean, per entry.

    Args:
        ids: `[n]` group of each entry.
        entries: `[n]` means of `weights` samples each.
        weights: `[n]`
        within: `[n]` sum of squared distances of those samples from their mean.
        size: number of groups.
    """
    mean = group_means(ids, entries, weights, size)[ids]
    spread = group_sums(ids, within + weights * (entries - mean) ** 2, size)
    deviation = np.sqrt(ratio(spread, group_sums(ids, weights, size) - 1.0))[ids]
    return entries - mean, deviation, mean
