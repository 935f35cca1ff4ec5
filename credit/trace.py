"""TRACE: spend the rollout budget where outcomes are still undecided, on prompts first and then on prefixes.

Source: TRACE (arXiv 2606.11119), through secondary write-ups that give the two objectives and the split into stages;
the solvers here are ours (the paper's were not available), and are optimal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays, read_integers

from .allocation import Allocation, cap_groups, check_budget, check_shares, fill_greedily, make_allocation
from .checks import check_whole, is_whole
from .passes import mean_below, successes, tree_means
from .weights import Weights, weigh

__all__ = [
    "Prefixes",
    "allocate_prefixes",
    "allocate_roots",
    "effective_ratio",
    "prefix_contrast",
    "prefixes_of",
    "root_contrast",
    "success_shares",
]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def root_contrast(success: ArrayLike, counts: ArrayLike) -> FloatArray:
    """Computes the probability that `m` rollouts of a prompt hold both a success and a failure.

        V_root(v, m) = 1 - v^m - (1 - v)^m         (0 for m = 0)

    Args:
        success: `[A]` probability v that one rollout succeeds.
        counts: `[A]` m, at least 0.
    """
    v, m = check_shares("success", success), np.asarray(counts, dtype=np.float64)
    return np.where(m > 0, 1.0 - v**m - (1.0 - v) ** m, 0.0)


def prefix_contrast(success: ArrayLike, outcomes: ArrayLike, counts: ArrayLike) -> FloatArray:
    """Computes the probability that one of `k` continuations ends otherwise than the trajectory already seen.

        V_pref(q, k) = 1 - q^k         q = r v + (1 - r) (1 - v): one continuation repeats the outcome seen

    Args:
        success: `[A]` probability v that one continuation succeeds.
        outcomes: `[A]` outcome r of the trajectory through the prefix: 1 success, 0 failure.
        counts: `[A]` k, at least 0.
    """
    return 1.0 - _repeat(success, outcomes) ** np.asarray(counts, dtype=np.float64)


def allocate_roots(
    success: ArrayLike, *, budget: float, minimum: int = 0, maximum: int | None = None, costs: ArrayLike | None = None
) -> Allocation:
    """Chooses how many rollouts each prompt gets, so that the expected number of mixed groups is largest.

        maximize  sum_i V_root(v_i, m_i)      subject to  sum_i m_i <= budget,  minimum <= m_i <= maximum

    One rollout of a prompt can never be mixed, so a closed prompt is opened by a *pair*, worth v (1 - v) per rollout;
    from there each rollout adds v^m (1 - v) + (1 - v)^m v, never more. Greedy by gain per rollout is therefore optimal
    up to the last rollout, and for that one the swap is tried of taking one from an open prompt to open another pair:
    the result equals exact dynamic programming. Prompts whose success is certain either way get nothing (beyond
    `minimum`), even where budget remains.

    Args:
        success: `[A]` predicted success rate of each prompt of the pool.
        budget: rollouts in all; with `costs`, their expected cost.
        minimum: rollouts that every prompt gets.
        maximum: cap per prompt.
        costs: `[A]` expected tokens of one rollout of each prompt, positive. The solution is then within one unit's
            gain of the optimum.

    Raises:
        ValueError: probabilities outside [0, 1], or a budget below the minimum of all prompts.

    Returns:
        anchors 0, 1, ... and the expected number of mixed groups.
    """
    v = check_shares("success", success)
    minimum = check_whole("minimum", minimum, 0)
    cap = _cap(maximum, minimum)
    price = _prices(costs, len(v))
    check_budget(budget, minimum=minimum * float(price.sum()))
    variance = v * (1.0 - v)
    log_v, log_rest = _log(v), _log(1.0 - v)
    opening = minimum == 0

    def density(item: IntArray, unit: IntArray) -> FloatArray:
        m = unit + 1 if opening else unit + minimum
        gain = np.exp(m * log_v[item]) * (1.0 - v[item]) + np.exp(m * log_rest[item]) * v[item]
        gain = np.minimum(gain, variance[item])  # equal at m = 2, up to rounding
        return np.where(m == 1, (1.0 if opening else 2.0) * variance[item], gain) / price[item]

    room = np.full(len(v), (cap - 1 if cap > 1 else 0) if opening else cap - minimum, dtype=np.int64)
    if costs is None:
        room = np.minimum(room, int(budget))
    first = 2.0 * price if opening else price
    units = fill_greedily(density, room, budget - minimum * float(price.sum()), first=first, following=price)
    counts = np.where(units > 0, units + 1, 0) if opening else units + minimum
    if opening and costs is None:
        counts = _trade_last(v, counts, int(budget), cap)
    return make_allocation(None, counts, float(root_contrast(v, counts).sum()))


def allocate_prefixes(
    success: ArrayLike,
    outcomes: ArrayLike | None = None,
    *,
    budget: float,
    maximum: int | None = None,
    groups: ArrayLike | None = None,
    group_maximum: int | None = None,
    costs: ArrayLike | None = None,
    anchors: ArrayLike | None = None,
) -> Allocation:
    """Chooses how many continuations each prefix gets, so that the expected number of new contrasts is largest.

        maximize  sum_i V_pref(q_i, k_i)      subject to  sum_i k_i <= budget,  k_i <= maximum

    The gain of one more, q^k (1 - q), only falls, so greedy is optimal, also under caps per group: failures are
    continued at promising prefixes and successes at shaky ones. Prefixes whose outcome is certain get nothing, even
    where budget remains.

    Without outcomes, a prefix is worth `V_root(v_i, k_i + 1)`: the chance that the trajectory through it and its
    continuations turn out mixed, before any of them is known. A choice that has not seen what followed the prefix
    leaves the draws there independent of their number, so that `occupancy_weights` are unbiased.

    Args:
        success: `[A]` predicted success rate of a continuation from each prefix.
        outcomes: `[A]` outcome in [0, 1] of the trajectory that visited it; `None`: choose without them.
        budget: continuations in all; with `costs`, their expected cost.
        maximum: cap per prefix.
        groups: `[A]` the prompt of each prefix.
        group_maximum: cap per prompt, over all its prefixes; needs `groups`.
        costs: `[A]` expected tokens of one continuation from each prefix, positive.
        anchors: `[A]` node indices to report; default: 0, 1, ...

    Raises:
        ValueError: probabilities outside [0, 1], arrays of different length, or a negative budget.
    """
    v = check_shares("success", success)
    repeat = v if outcomes is None else _repeat(v, outcomes)
    log_repeat, log_other, price = _log(repeat), _log(1.0 - repeat), _prices(costs, len(repeat))
    check_budget(budget)

    def density(item: IntArray, unit: IntArray) -> FloatArray:
        gain = np.exp(unit * log_repeat[item]) * (1.0 - repeat[item])
        if outcomes is None:  # one more than k already there, and the trajectory: v^(k+1) (1 - v) + (1 - v)^(k+1) v
            gain = gain * repeat[item] + np.exp((unit + 1) * log_other[item]) * repeat[item]
        return gain / price[item]

    limit = int(min(_cap(maximum, 0), np.ceil(budget / price.min(initial=np.inf)) if len(price) else 0))
    room = np.full(len(repeat), limit, dtype=np.int64)
    if group_maximum is not None:
        room = cap_groups(density, room, _groups(groups, len(repeat)), group_maximum)
    counts = fill_greedily(density, room, budget, first=price, following=price)
    value = root_contrast(v, counts + 1) if outcomes is None else 1.0 - repeat**counts
    return make_allocation(anchors, counts, float(value.sum()))


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The nodes of trees that may receive continuations."""

    nodes: IntArray  # [A] index of each node in the TreeArrays
    outcomes: FloatArray  # [A] share of successes among the trajectories through it
    trees: IntArray  # [A] its tree
    local: IntArray  # [A] its index within that tree


def prefixes_of(tree: TreeArrays, *, threshold: float | None = None, mixed: bool = False) -> Prefixes:
    """Lists the prefixes that can be continued: inner nodes after at least one step, on a valid trajectory.

    Args:
        tree: `[N]`
        threshold: a trajectory succeeds where its undiscounted return is above; default: its tree's threshold.
        mixed: also list nodes that already have both outcomes below them.
    """
    share = success_shares(tree, threshold=threshold)
    open_nodes = ~tree.is_leaf & ~tree.is_root & (tree.leaf_counts > 0)
    if not mixed:
        open_nodes &= (share == 0) | (share == 1)
    nodes = np.flatnonzero(open_nodes)
    starts = np.searchsorted(tree.tree_ids, np.arange(tree.num_trees))
    return Prefixes(nodes, share[nodes], tree.tree_ids[nodes], nodes - starts[tree.tree_ids[nodes]])


def success_shares(tree: TreeArrays, *, threshold: float | None = None, weights: Weights = "occupancy") -> FloatArray:
    """Computes the share of successful trajectories below every node, roots included.

    This is TRACE's recursive back-up over the realized tree, `V(y) = sum_c n_c V(c) / n_y`, and so the target of a
    success predictor. In the paper `n` is the number of leaves (`weights="counts"`), which leans toward the children
    that received more continuations; with occupancy weights every child counts once.

    Args:
        tree: `[N]`
        threshold: a trajectory succeeds where its undiscounted return is above; default: its tree's threshold.
        weights: of the trajectories, see `step_weights`.

    Returns:
        `[N]`, 0 where no valid trajectory passes.
    """
    return mean_below(tree, successes(tree, threshold).astype(np.float64), weigh(tree, weights).below)


def effective_ratio(tree: TreeArrays, *, threshold: float | None = None) -> float:
    """Computes the share of trees that hold both a success and a failure."""
    share = tree_means(tree, successes(tree, threshold).astype(np.float64), weigh(tree, "counts").below)
    return float(np.mean((share > 0) & (share < 1))) if len(share) else 0.0


def _trade_last(v: FloatArray, counts: IntArray, budget: int, cap: int) -> IntArray:
    """Spends the last rollouts better where it can: takes up to two back, or closes a pair, to open another prompt."""
    closed = np.flatnonzero((counts == 0) & (v > 0) & (v < 1))
    if cap < 2 or len(closed) == 0:
        return counts
    opened = int(closed[np.argmax(v[closed] * (1.0 - v[closed]))])
    trials, fewer = [counts], counts
    for _ in range(3):
        pairs = np.flatnonzero(fewer == 2)
        if len(pairs):
            trials.append(_give(fewer, -2, to=int(pairs[np.argmin(v[pairs] * (1.0 - v[pairs]))])))
        trials.append(fewer)
        donors = np.flatnonzero(fewer >= 3)
        if len(donors) == 0:
            break
        loss = root_contrast(v[donors], fewer[donors]) - root_contrast(v[donors], fewer[donors] - 1)
        fewer = _give(fewer, -1, to=int(donors[np.argmin(loss)]))
    widths = [budget - int(trial.sum()) for trial in trials]
    opening = [_give(t, w, to=opened) for t, w in zip(trials, widths, strict=True) if 2 <= w <= cap]
    return max([counts, *opening], key=lambda trial: float(root_contrast(v, trial).sum()))


def _give(counts: IntArray, units: int, *, to: int) -> IntArray:
    changed = counts.copy()
    changed[to] += units
    return changed


def _repeat(success: ArrayLike, outcomes: ArrayLike) -> FloatArray:
    v, r = check_shares("success", success), check_shares("outcomes", outcomes)
    if v.shape != r.shape:
        msg = f"success and outcomes must have one length, got {len(v)} and {len(r)}"
        raise ValueError(msg)
    return r * v + (1.0 - r) * (1.0 - v)


def _log(share: FloatArray) -> FloatArray:
    """Logarithm, with a finite stand-in at 0 so that its multiple by 0 is 0."""
    return np.log(np.maximum(share, 1e-300))


def _groups(groups: ArrayLike | None, count: int) -> IntArray:
    if groups is None or np.shape(groups) != (count,):
        msg = f"group_maximum needs groups of shape [A] = [{count}], got {None if groups is None else np.shape(groups)}"
        raise ValueError(msg)
    return np.unique(read_integers("groups", groups), return_inverse=True)[1]


def _cap(maximum: int | None, minimum: int) -> int:
    if maximum is not None and not (is_whole(maximum) and maximum >= minimum):
        msg = f"maximum must be at least minimum and a whole number; got {maximum!r} and {minimum!r}"
        raise ValueError(msg)
    return 2**31 if maximum is None else int(maximum)


def _prices(costs: ArrayLike | None, count: int) -> FloatArray:
    price = np.ones(count) if costs is None else np.asarray(costs, dtype=np.float64)
    if price.shape != (count,) or not (np.isfinite(price) & (price > 0)).all():
        msg = f"costs must be {count} positive finite numbers, got shape {list(price.shape)}"
        raise ValueError(msg)
    return price
