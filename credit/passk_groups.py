"""Pass@k objectives for groups of whole trajectories: PKPO and Pass@k training."""

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays
from agentenv.errors import TreeError

from .checks import is_whole
from .groups import ratio
from .passes import assemble, check_steps, mean_below, successes, tree_sums
from .passk import log_miss_probability, pass_at_k
from .result import StepAdvantages

__all__ = ["passk_training_advantages", "pkpo_advantages", "pkpo_weights"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def passk_training_advantages(tree: TreeArrays, *, k: int = 4, threshold: float | None = None) -> StepAdvantages:
    """Computes the advantages of Pass@k training: a trajectory by the subsets of size k that it is in.

    With n trajectories, n_neg failures, a subset scoring 1 if one of it succeeds:

        mean  = 1 - C(n_neg, k) / C(n, k)         std = sqrt(mean (1 - mean))
        A_success = (1 - mean) / std              A_failure = (1 - mean - C(n_neg - 1, k - 1) / C(n - 1, k - 1)) / std

    Source: Pass@k training (arXiv 2508.10751), its analytical form. A group whose subsets all score alike (every one
    fails, or none can) gets 0, and so does a group that infrastructure left with fewer than k trajectories. Every leaf
    counts once: the subsets are exchangeable on independent chains only, and no weights make forks so.

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        k: subset size, at most the smallest group of those that infrastructure broke nothing of.
        threshold: a trajectory succeeds where its undiscounted return is above; default: its tree's threshold.
    """
    check_steps(tree)
    success = successes(tree, threshold).astype(np.float64)
    n = tree_sums(tree, tree.is_trajectory.astype(np.float64))
    k = _check_k(k, tree)
    hits = tree_sums(tree, success)
    mean = np.where(n >= k, pass_at_k(np.maximum(n, k), hits, k), 0.0)
    deviation = np.sqrt(mean * (1.0 - mean))
    others = log_miss_probability(np.maximum(n - 1, k - 1.0), hits, np.full(len(n), k - 1.0))
    worse = 1.0 - mean - np.where(hits < n, np.exp(others), 0.0)
    good, bad = ratio(1.0 - mean, deviation), ratio(worse, deviation)
    scores = np.where(success > 0, good[tree.tree_ids], bad[tree.tree_ids])
    below = tree.leaf_counts.astype(np.float64)
    return assemble(tree, mean_below(tree, scores, below), mean[tree.tree_ids], mean_below(tree, success, below))


def pkpo_advantages(
    tree: TreeArrays, *, k: int = 4, baseline: Literal["none", "leave_one_out"] = "leave_one_out"
) -> StepAdvantages:
    """Computes PKPO's trajectory weights: an unbiased gradient of max@k (Pass@k for outcomes 0 and 1).

        s_i = (k / n) mean over subsets I that hold i of max over I          sum_i s_i grad log pi_i estimates grad
        max@k A_i = (k / n) mean over subsets I that hold i of [max over I - max over I without i]

    The second form takes away a baseline that does not depend on i, so it is unbiased too: what i adds to the subsets
    it is in. A failure adds nothing, so an all-fail group gives exactly 0. At k = n only the best trajectory gets
    credit, its lead over the second best (verl's `grpo_passk`, up to its deviation).

    Source: PKPO (arXiv 2505.15201); the second form is its leave-one-out-minus-one baseline. At k = 1, where no subset
    remains without i, the baseline is the mean of the others (RLOO / n). A group that infrastructure left with fewer
    than k trajectories gets 0. Every leaf counts once: the subsets are exchangeable on independent chains only.

    Args:
        tree: `[N]` one or many trees; each tree is one group, its score the undiscounted return.
        k: subset size, at most the smallest group of those that infrastructure broke nothing of.
        baseline: `"none"` gives s_i, `"leave_one_out"` A_i.
    """
    if baseline not in ("none", "leave_one_out"):
        msg = f"baseline must be 'none' or 'leave_one_out', got {baseline!r}"
        raise ValueError(msg)
    check_steps(tree)
    k = _check_k(k, tree)
    enough = tree_sums(tree, tree.is_trajectory.astype(np.float64)) >= k
    ends = np.flatnonzero(tree.is_trajectory & enough[tree.tree_ids])
    with_i, without_i = pkpo_weights(tree.tree_ids[ends], tree.returns[ends], k=k, num_groups=tree.num_trees)
    if baseline == "none":
        without_i = np.zeros(len(ends))
    gain, base, total = np.zeros(len(tree)), np.zeros(len(tree)), np.zeros(len(tree))
    gain[ends], base[ends], total[ends] = with_i - without_i, without_i, with_i
    below = tree.leaf_counts.astype(np.float64)
    return assemble(tree, *(mean_below(tree, scores, below) for scores in (gain, base, total)))


def pkpo_weights(ids: IntArray, rewards: FloatArray, *, k: int, num_groups: int) -> tuple[FloatArray, FloatArray]:
    """Computes `k / n` times the mean maximum over subsets that hold i, and over the same subsets without i.

    With rewards ascending in the group, j the rank of the largest of a subset: the subsets of size k with maximum g_j
    number C(j - 1, k - 1), those that also hold some i < j number C(j - 2, k - 2). Suffix sums give all i at once.

    Args:
        ids: `[n]` group of each reward, in [0, num_groups).
        rewards: `[n]`
        k: subset size, at most the smallest group's.
        num_groups: number of groups.

    Returns:
        `[n]` and `[n]`.
    """
    sizes = np.bincount(ids, minlength=num_groups)
    order = np.lexsort((rewards, ids))
    owner, g = ids[order], rewards[order]
    n = sizes[owner].astype(np.float64)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(order)) - starts[owner] + 1.0
    starts = starts[sizes > 0]
    holds = _share(n - 1, n - rank, k - 1)
    below = _share(n - 2, n - rank, k - 2) * ratio(np.full(len(n), k - 1.0), n - 1)
    with_i = k / n * (holds * g + _sums_after(below * g, starts))
    if k == 1:
        total = np.bincount(owner, g, num_groups)[owner]
        without_i = ratio(total - g, (n - 1) * n)
    else:
        lower = _share(n - 2, n - 1 - rank, k - 2) * ratio(np.full(len(n), k - 1.0), n - 1)
        upper = below  # rank j among all is rank j - 1 among the others
        before = _sums_before(lower * g, starts)
        without_i = k / n * (before + _sums_after(upper * g, starts))
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return with_i[back], without_i[back]


def _share(n: FloatArray, missed: FloatArray, k: float) -> FloatArray:
    """Computes `C(n - missed, k) / C(n, k)`, 0 where it is impossible."""
    possible = (n >= 0) & (missed >= 0) & (k >= 0) & (missed + k <= n)
    out = np.zeros(len(n))
    out[possible] = np.exp(log_miss_probability(n[possible], missed[possible], np.full(int(possible.sum()), float(k))))
    return out


def _sums_before(values: FloatArray, starts: IntArray) -> FloatArray:
    """Sums the entries before each one within its group, each group for itself: no other's rounding enters."""
    out = np.zeros(len(values))
    for start, end in pairwise([*starts.tolist(), len(values)]):
        np.cumsum(values[start : end - 1], out=out[start + 1 : end])
    return out


def _sums_after(values: FloatArray, starts: IntArray) -> FloatArray:
    """Sums the entries after each one within its group."""
    return _sums_before(values[::-1], len(values) - np.append(starts[1:], len(values))[::-1])[::-1]


def _check_k(k: float, tree: TreeArrays) -> int:
    """Returns k. A group that infrastructure broke may be smaller than it was meant to be, and bounds nothing."""
    sizes = tree_sums(tree, tree.is_leaf & ~tree.is_root)
    whole = sizes[tree_sums(tree, ~tree.valid) == 0]
    smallest = int(whole.min()) if len(whole) else None
    if not is_whole(k) or k < 1 or (smallest is not None and k > smallest):
        rule = "of at least 1" if smallest is None else f"in [1, {smallest}]"
        msg = f"k must be a whole number {rule}, the number of trajectories of the smallest unbroken group; got {k!r}"
        raise TreeError(msg)
    return int(k)
