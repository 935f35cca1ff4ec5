"""Tree Pass@k: credit by how far a step moves the chance that the best of k continuations succeeds."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays

from .checks import check_finite, check_number, is_whole
from .groups import group_sums, ratio
from .matching import check_ids, state_numbers
from .passes import assemble, check_steps, successes, sum_below, tree_means
from .passk import pass_at_k
from .result import StepAdvantages
from .weights import Weighing, Weights, is_chains, weigh

__all__ = ["check_k", "passk_advantages", "passk_values"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def passk_values(success: ArrayLike, k: float) -> FloatArray:
    """Computes the Pass@k value of a success probability, stably: `V_k = 1 - (1 - p)^k = -expm1(k log1p(-p))`.

    `k = inf` gives reachability, 1 where p > 0. Its slope is `k (1 - p)^(k - 1)`: k at p = 0, nothing at p = 1. V_k is
    concave, so noise in p lowers it on average.

    Args:
        success: probabilities in [0, 1], any shape.
        k: number of attempts, at least 1, not necessarily whole.

    Raises:
        ValueError: a probability outside [0, 1], or k below 1.
    """
    p = np.asarray(success, dtype=np.float64)
    bad = ~((p >= 0) & (p <= 1))
    if bad.any():
        i = int(np.argmax(bad))
        msg = f"success must be probabilities in [0, 1]; entry {i} is {p.ravel()[i]}"
        raise ValueError(msg)
    check_k(k)
    if np.isinf(k):
        return (p > 0).astype(np.float64)
    with np.errstate(divide="ignore"):
        return -np.expm1(k * np.log1p(-p))


def check_k(k: float, name: str = "k") -> None:
    """Refuses a number of attempts below 1."""
    check_number(name, k)
    if not k >= 1:
        msg = f"{name} must be at least 1 (inf for reachability), got {k!r}"
        raise ValueError(msg)


def passk_advantages(
    tree: TreeArrays,
    *,
    k: float = 4.0,
    threshold: float | None = None,
    unbiased: bool = False,
    merge: bool = False,
    prior_count: float = 0.0,
    success: ArrayLike | None = None,
    state_ids: ArrayLike | None = None,
    weights: Weights = "occupancy",
) -> StepAdvantages:
    """Computes the change of Pass@k along every step of a tree.

        A = V_k(node) - V_k(parent)          V_k(leaf) = its outcome (the terminal correction)

    so the advantages along a trajectory sum to outcome - V_k(root). With p the share of successes among the
    trajectories below a node, V_k = 1 - (1 - p)^k; `k = inf` marks the first step after which no success was seen.
    The idea of differences of V_k with terminal correction is SR-PPO's (arXiv 2606.25451), there with a critic; taking
    p from the outcomes of a tree is ours.

    On independent chains every node but the root has one leaf, so all the credit goes to the first step: use real
    forks, or `merge=True`.

    Args:
        tree: `[N]` one or many trees.
        k: attempts, at least 1; `inf` for reachability.
        threshold: a trajectory succeeds where its undiscounted return is above; default: its tree's threshold.
        unbiased: at nodes with n >= k leaves, c of them successes, use `1 - C(n - c, k) / C(n, k)` (whole k), whatever
            the weights. Below a fork those n are independent samples, and the plug-in underestimates (V_k is concave).
        merge: pool p over all nodes of the tree with the same state (RTMC's idea).
        prior_count: pseudo-leaves at the tree's success rate, `p = (c + prior_count v0) / (n + prior_count)`.
        success: `[N]` success probabilities from elsewhere (a critic, a `SuccessPredictor`) in place of all of the
            above.
        state_ids: `[N]` integers that replace `tree.state_ids` in merging.
        weights: of trajectories and steps in p, see `step_weights`; train with the same.

    Returns:
        `values` holds V_k(parent), `action_values` V_k(node).

    Raises:
        ValueError: k below 1, or not whole with `unbiased`; probabilities outside [0, 1].
    """
    check_k(k)
    check_steps(tree)
    if unbiased and not is_whole(k):
        msg = f"k must be whole with unbiased=True, got {k!r}"
        raise ValueError(msg)
    check_finite("prior_count", prior_count, minimum=0)
    outcome = successes(tree, threshold).astype(np.float64)
    if success is None:
        pool = _pooling(tree, state_ids) if merge else None
        weighing = weigh(tree, weights)
        hits, leaves = _outcomes(tree, outcome, weighing, pool)
        prior = tree_means(tree, outcome, weighing.below)[tree.tree_ids]
        values = passk_values(np.clip(ratio(hits + prior_count * prior, leaves + prior_count), 0.0, 1.0), k)
        if unbiased:
            if not (isinstance(weights, str) and is_chains(tree)):
                hits, leaves = _outcomes(tree, outcome, weigh(tree, "counts"), pool)
            many = leaves >= k
            values[many] = pass_at_k(leaves[many], hits[many], k)
    else:
        given = np.asarray(success, dtype=np.float64)
        if given.shape != (len(tree),):
            msg = f"success must have shape [N] = [{len(tree)}], got {list(given.shape)}"
            raise ValueError(msg)
        values = passk_values(given, k)
    values = np.where(tree.is_leaf, outcome, values)
    before = values[tree.parents]
    return assemble(tree, values - before, before, values)


def _pooling(tree: TreeArrays, state_ids: ArrayLike | None) -> tuple[IntArray, int]:
    return state_numbers(tree, check_ids(tree, state_ids, tree.state_ids, "state_ids"))


def _outcomes(
    tree: TreeArrays, outcome: FloatArray, weighing: Weighing, pool: tuple[IntArray, int] | None
) -> tuple[FloatArray, FloatArray]:
    """Weighs successes and trajectories below every node, or below all nodes that are pooled with it: `[N]` each."""
    hits, leaves = weighing.of_steps(sum_below(tree, outcome * weighing.below)), weighing.steps
    if pool is None:
        return hits, leaves
    numbers, size = pool
    return group_sums(numbers, hits, size)[numbers], group_sums(numbers, leaves, size)[numbers]
