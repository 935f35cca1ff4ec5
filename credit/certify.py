"""Scoring an estimator against the exact advantages of a tabular problem.

Letters: `N` nodes, `S` states, `A` actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

from .checks import check_whole
from .groups import ratio
from .result import StepAdvantages
from .tabular import SampledTrees, TabularMDP
from .trace import allocate_prefixes, prefixes_of
from .weights import Weights, step_weights

__all__ = ["Score", "certify", "sample_chains", "sample_forks", "sample_random_forks"]

FloatArray = NDArray[np.float64]

_ROUNDING = 1e-12
"""Of the weight of what is summed: sums that should be 0 are off by less, and others by more."""

Estimator = Callable[[TreeArrays], StepAdvantages]
Sampler = Callable[[TabularMDP, np.random.Generator, int, int], SampledTrees]


@dataclass(frozen=True)
class Score:
    """How an estimator's step advantages, and the updates they make, compare with the exact ones.

    Steps weigh what they weigh in training.
    """

    bias: float  # root mean square over (state, action) of the mean error, corrected for sampling noise
    bias_low: float  # 95 % confidence bounds of it, by jackknife over batches
    bias_high: float
    mean_error: float  # signed, over all steps
    mean_error_bound: float  # half the width of its 95 % confidence interval
    variance: float  # mean squared distance from the estimator's own mean at the same (state, action)
    mse: float  # mean squared error
    correlation: float  # with the exact advantage
    sign: float  # share of the steps with |A| > 0.02 whose sign is right; silence counts as wrong
    active: float  # share of steps that get a gradient at all
    cosine: float  # of one update's policy gradient (8 groups) with the exact gradient, mean
    direction: float  # cosine of the mean update with it, corrected for sampling noise: 1 is no bias in direction
    direction_bound: float  # half the width of its 95 % confidence interval, by jackknife over batches
    cost: float  # steps sampled per group


def sample_chains(problem: TabularMDP, rng: np.random.Generator, groups: int, group_size: int) -> SampledTrees:
    """Samples `group_size` independent chains per group."""
    return problem.sample(rng, groups=groups, group_size=group_size)


def sample_forks(
    problem: TabularMDP,
    rng: np.random.Generator,
    groups: int,
    group_size: int,
    *,
    share: float = 0.5,
    outcomes: Literal["seen", "unseen"] = "seen",
    maximum: int | None = None,
) -> SampledTrees:
    """Samples fewer chains, and spends the steps of the others on forks that TRACE chooses.

    The expected cost equals that of `sample_chains`. The success predictor is the truth, so this is the most that
    allocation can give.

    Args:
        problem: what to sample from.
        rng: draws the steps.
        groups: number of trees.
        group_size: chains per tree that a tree may cost.
        share: of the steps that go into continuations.
        outcomes: whether the choice looks at the outcomes of the chains, see `TraceAllocator`.
        maximum: cap of continuations per prefix; default: `group_size`.
    """
    chains, budget = _split(problem, groups, group_size, share)
    sampled = problem.sample(rng, groups=groups, group_size=chains)
    prefixes = prefixes_of(sampled.tree, mixed=outcomes == "unseen")
    states = sampled.states[prefixes.nodes]
    chosen = allocate_prefixes(
        np.clip(problem.values()[states], 0.0, 1.0),
        prefixes.outcomes if outcomes == "seen" else None,
        budget=budget,
        costs=problem.remaining[states],
        maximum=group_size if maximum is None else maximum,
        anchors=prefixes.nodes,
    )
    return problem.extend(rng, sampled, chosen.anchors, chosen.counts)


def sample_random_forks(
    problem: TabularMDP, rng: np.random.Generator, groups: int, group_size: int, *, share: float = 0.5
) -> SampledTrees:
    """Samples fewer chains, and spends the steps of the others on forks from nodes drawn evenly from all trees.

    The expected cost equals that of `sample_chains`. Arguments as for `sample_forks`.
    """
    chains, budget = _split(problem, groups, group_size, share)
    sampled = problem.sample(rng, groups=groups, group_size=chains)
    inner = prefixes_of(sampled.tree, mixed=True).nodes
    drawn = rng.choice(inner, size=int(2 * budget / float(problem.remaining[sampled.states[inner]].mean())) + 8)
    nodes, counts = np.unique(drawn[np.cumsum(problem.remaining[sampled.states[drawn]]) <= budget], return_counts=True)
    return problem.extend(rng, sampled, nodes, counts)


def _split(problem: TabularMDP, groups: int, group_size: int, share: float) -> tuple[int, float]:
    """Splits the cost of `group_size` chains per group into chains, and steps for continuations in all groups."""
    chains = group_size - round(share * group_size)
    if not 1 <= chains <= group_size:
        msg = f"share must leave at least one of {group_size} chains, got {share!r}"
        raise ValueError(msg)
    return chains, groups * (group_size - chains) * float(problem.remaining[0])


def certify(
    estimator: Estimator,
    problem: TabularMDP,
    *,
    group_size: int = 8,
    rollouts: int = 16_384,
    seed: int = 0,
    sampler: Sampler = sample_chains,
    batches: int = 16,
    weights: Weights = "occupancy",
) -> Score:
    """Scores an estimator on a problem whose advantages are known exactly.

    The truth is undiscounted, whatever discount the estimator uses. Trees are one group each. Give the weights that the
    trainer trains with, and give the estimator the same (`functools.partial(rtmc_advantages, weights=...)`).

    Args:
        estimator: takes TreeArrays.
        problem: gives the truth.
        group_size: rollouts per group.
        rollouts: in all, so that every group size costs the same.
        seed: of the sampling; equal seeds give all estimators the same trees.
        sampler: how trees are grown: chains, or with forks.
        batches: independent parts, for the confidence bounds.
        weights: of the steps, see `step_weights`.

    Raises:
        ValueError: weights of an unknown name; numbers are refused, as every sample has other trees. A number of
            rollouts or parts that is none.
    """
    if not isinstance(weights, str):
        msg = f"weights must be a name ('occupancy', 'counts' or 'unique') in certify, got {type(weights).__name__}"
        raise ValueError(msg)
    for name, value in (("group_size", group_size), ("rollouts", rollouts), ("batches", batches)):
        check_whole(name, value, 1)
    groups = max(1, rollouts // group_size // batches)
    truth = problem.advantages()
    samples = (sampler(problem, np.random.default_rng((seed, part)), groups, group_size) for part in range(batches))
    parts = [_Part(problem, truth, estimator, sampled, weights) for sampled in samples]
    counts, errors, squares = (np.stack([getattr(p, name) for p in parts]) for name in ("counts", "errors", "squares"))
    bias, spread = (
        _bias(counts, errors),
        [_bias(np.delete(counts, i, 0), np.delete(errors, i, 0)) for i in range(batches)],
    )
    half = 1.96 * float(np.std(spread)) * np.sqrt(batches - 1)
    total = float(counts.sum())
    own = ratio(errors.sum(0), counts.sum(0))
    variance = float((squares.sum(0) - own**2 * counts.sum(0)).sum()) / total
    means = errors.sum(axis=1) / counts.sum(axis=1)
    moments = np.sum([p.moments for p in parts], axis=0)
    updates, exact = np.stack([p.update for p in parts]), problem.gradient().ravel()
    leave_out = [_direction(np.delete(updates, i, 0), exact) for i in range(batches)]
    return Score(
        bias=float(np.sqrt(max(bias, 0.0))),
        bias_low=float(np.sqrt(max(bias - half, 0.0))),
        bias_high=float(np.sqrt(max(bias + half, 0.0))),
        mean_error=float(errors.sum()) / total,
        mean_error_bound=float(1.96 * np.std(means, ddof=1) / np.sqrt(batches)),
        variance=variance,
        mse=float(squares.sum()) / total,
        correlation=_correlation(moments),
        sign=sum(p.right for p in parts) / max(1.0, sum(p.large for p in parts)),
        active=sum(p.active for p in parts) / total,
        cosine=float(np.mean([p.cosine for p in parts])),
        direction=_direction(updates, exact),
        direction_bound=float(1.96 * np.std(leave_out) * np.sqrt(batches - 1)),
        cost=float(np.mean([p.cost for p in parts])),
    )


class _Part:
    """Sums over one batch of groups."""

    def __init__(
        self, problem: TabularMDP, truth: FloatArray, estimator: Estimator, sampled: SampledTrees, weights: Weights
    ) -> None:
        given = estimator(sampled.tree).advantages
        steps = np.flatnonzero(~sampled.tree.is_root)
        pairs = sampled.left[steps] * truth.shape[1] + sampled.actions[steps]
        own = step_weights(sampled.tree, weights)[steps]
        exact, given = truth.ravel()[pairs], given[steps]
        error = given - exact
        self.counts = np.bincount(pairs, own, truth.size)
        self.errors = np.bincount(pairs, own * error, truth.size)
        self.squares = np.bincount(pairs, own * error**2, truth.size)
        self.moments = np.array([(own * m).sum() for m in (1, given, exact, given**2, exact**2, given * exact)])
        large = np.abs(exact) > 0.02
        self.large = float(own[large].sum())
        self.right = float(own[large & (np.sign(given) == np.sign(exact))].sum())
        self.active = float(own[np.abs(given) > 1e-9].sum())
        self.cost = sampled.cost / sampled.tree.num_trees
        updates = _updates(problem, sampled, pairs, own * given, steps)
        along = problem.gradient().ravel() / np.linalg.norm(problem.gradient())
        norms = np.linalg.norm(updates, axis=1)
        self.cosine = float(np.mean(ratio(updates @ along, norms))) if len(updates) else float("nan")
        self.update = updates.sum(axis=0)


def _updates(
    problem: TabularMDP, sampled: SampledTrees, pairs: NDArray[np.int64], credit: FloatArray, steps: NDArray[np.int64]
) -> FloatArray:
    """Computes the updates of 8 groups each in the logits of a softmax policy: `[updates, S A]`.

    What cancels leaves a residue of rounding, which has a direction but means nothing: such an update is 0.
    """
    actions, size = problem.policy.shape[1], problem.policy.size
    count = sampled.tree.num_trees // 8
    update = sampled.tree.tree_ids[steps] // 8
    used = update < count
    taken = np.bincount((update * size + pairs)[used], credit[used], count * size).reshape(count, -1, actions)
    moved = (taken - taken.sum(axis=2, keepdims=True) * problem.policy).reshape(count, size)
    weight = np.bincount(update[used], np.abs(credit[used]), count)
    moved[np.linalg.norm(moved, axis=1) <= _ROUNDING * weight] = 0.0
    return moved


def _direction(updates: FloatArray, exact: FloatArray) -> float:
    """Estimates the cosine of the expected update with the exact gradient from the updates `[B, S A]` of batches.

    The squared length of a mean is too large by the variance of the mean, which is taken off.
    """
    mean = updates.mean(axis=0)
    noise = float(updates.var(axis=0, ddof=1).sum()) / len(updates)
    length = float(mean @ mean) - noise
    return float(mean @ exact / np.sqrt(length * float(exact @ exact))) if length > 0 else float("nan")


def _bias(counts: FloatArray, errors: FloatArray) -> float:
    """Estimates the mean squared bias over (state, action) from batches `[B, S A]`, without the sampling noise."""
    total = counts.sum(axis=0)
    mean = ratio(errors.sum(axis=0), total)
    batches = len(counts)
    residual = errors - mean * counts
    noise = ratio((residual**2).sum(axis=0) * batches / (batches - 1), total**2)
    return float((total * (mean**2 - noise)).sum() / total.sum())


def _correlation(moments: FloatArray) -> float:
    total, given, exact, given2, exact2, product = moments
    covariance = product / total - given * exact / total**2
    spread = (given2 / total - (given / total) ** 2) * (exact2 / total - (exact / total) ** 2)
    return float(covariance / np.sqrt(spread)) if spread > 1e-18 else 0.0
