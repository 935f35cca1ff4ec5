"""What every step weighs in a loss, and in the means that estimators pool: part of an estimator's contract.

Letters: `N` nodes. With `w` from `step_weights`, the update is `sum over steps of w * advantage * grad log pi`. A fork
is several independent draws from one node. `docs/credit.md` says which weights keep the update unbiased, and when.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from agentenv.arrays import TreeArrays

from .checks import check_weights
from .fixed_point import solve_fixed_point
from .groups import beyond_rounding, group_sums, ratio
from .matching import match_steps
from .passes import check_arrays, sum_below
from .result import StepAdvantages

__all__ = [
    "Weighing",
    "Weights",
    "graph_weights",
    "is_chains",
    "occupancy_weights",
    "pool_with",
    "sample_deviation",
    "step_weights",
    "weigh",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Weights = Literal["occupancy", "graph", "counts", "unique"] | ArrayLike
"""How steps are weighed: a name that `step_weights` knows, or `[N]` numbers."""

_NAMES = ("occupancy", "graph", "counts", "unique")


def step_weights(tree: TreeArrays, weights: Weights = "occupancy") -> FloatArray:
    """Computes the weight of every step.

    - `"occupancy"`: how often the policy itself would come through the step, see `occupancy_weights`.
    - `"graph"`: the same, estimated on the graph that merging equal states makes, see `graph_weights`.
    - `"counts"`: the trajectories through the step, `TreeArrays.leaf_counts`: where an allocator spent its budget.
    - `"unique"`: 1, each step once.
    - numbers `[N]`: these.

    Without forks below the roots, the first four are the same. A root's entry is the sum of its children's.

    Args:
        tree: `[N]`
        weights: which.

    Returns:
        `[N]`, 0 where no valid trajectory passes.

    Raises:
        ValueError: an unknown name, numbers of the wrong length, or one that is negative or not finite.
    """
    check_arrays(tree)
    live = tree.leaf_counts > 0
    if isinstance(weights, str):
        if weights == "occupancy":
            return occupancy_weights(tree)
        if weights == "graph":
            return graph_weights(tree)
        if weights == "counts":
            return tree.leaf_counts.astype(np.float64)
        if weights == "unique":
            return np.where(tree.is_root, _children(tree), live).astype(np.float64)
        msg = f"weights must be 'occupancy', 'graph', 'counts', 'unique' or [N] numbers, got {weights!r}"
        raise ValueError(msg)
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (len(tree),):
        msg = f"weights must have shape [N] = [{len(tree)}], one entry per node, got {list(given.shape)}"
        raise ValueError(msg)
    return np.where(live, check_weights("weights", given), 0.0)


def occupancy_weights(tree: TreeArrays) -> FloatArray:
    """Computes how often the policy itself would come through every step: each fork splits its weight evenly.

        w_child = w_parent / (children of the parent)          w_root = children of the root

    so every rollout from a root weighs 1, however many continuations an allocator added below it. Children of a node
    are independent draws from it. Where no choice of an anchor looked at what came after the anchor, the weighted sum
    of any function of steps is therefore, in expectation, what as many independent chains as the root has children
    would give. Where the choice looked (TRACE's does), every anchor adds `Cov(1 / children, what its first child saw)`.

    Without forks below the roots this is `leaf_counts`. Steps that no valid trajectory passes have 0, and are no
    children.

    Returns:
        `[N]`, roots included.
    """
    check_arrays(tree)
    if is_chains(tree):
        return tree.leaf_counts.astype(np.float64)
    live = tree.leaf_counts > 0
    children = _children(tree)
    weights = np.where(tree.is_root, children, 0).astype(np.float64)
    share = ratio(live, children[tree.parents])
    for level in tree.levels[1:]:
        weights[level] = weights[tree.parents[level]] * share[level]
    return weights


def graph_weights(tree: TreeArrays) -> FloatArray:
    """Computes how often the policy would come through every step, on the graph that merging equal states makes.

        visits = starts + P^T visits          w_step = visits(s) / n(s)          s the state that the step leaves

    With n(s) the draws from s, each step of the tree one, and P(s' | s) the share of them that led to s'. Which node an
    allocator forked, and why, only changes how many draws there are from a state: they are fair all the same, and here
    all steps from a state weigh alike. So there is less to gain or lose from forks than with `occupancy_weights`, which
    this equals where every node is a state of its own: less variance, and less bias where the choice of anchors looked
    at outcomes. Not none: the shares of a state that was left n(s) times are off by O(1 / n). Signatures must tell
    states apart that differ in what comes after them.

    Without forks below the roots this is `leaf_counts`.

    Returns:
        `[N]`, a root the sum of its children's; 0 where no valid trajectory passes.
    """
    check_arrays(tree)
    if is_chains(tree):
        return tree.leaf_counts.astype(np.float64)
    match = match_steps(tree)
    live = tree.leaf_counts[match.steps] > 0
    draws = group_sums(match.states, live, match.num_states)
    share = ratio(live, draws[match.states])
    inner = live & ~tree.is_leaf[match.steps]
    step = csr_array((share[inner], (match.after[inner], match.states[inner])), shape=(match.num_states,) * 2)
    starts = group_sums(match.states, live & tree.is_root[tree.parents[match.steps]], match.num_states)
    weights = np.zeros(len(tree))
    weights[match.steps] = share * solve_fixed_point(step, starts, match.trees)[match.states]
    return np.where(tree.is_root, group_sums(tree.parents[match.steps], weights[match.steps], len(tree)), weights)


def _children(tree: TreeArrays) -> IntArray:
    """Counts the children of every node that a valid trajectory passes: `[N]`."""
    return np.bincount(tree.parents[(tree.leaf_counts > 0) & ~tree.is_root], minlength=len(tree))


def is_chains(tree: TreeArrays) -> bool:
    """Tells whether no two valid trajectories share a step."""
    return len(tree.levels) < 2 or int(tree.leaf_counts[tree.levels[1]].max()) <= 1


@dataclass(frozen=True, eq=False)
class Weighing:
    """The weights of steps, and of the trajectories through them; the same for `"occupancy"` and `"counts"`."""

    steps: FloatArray  # [N] weight of the step into node i, 0 where no valid trajectory passes
    below: FloatArray  # [N] sum of the weights of the leaves of the trajectories through node i

    def of_steps(self, sums: FloatArray) -> FloatArray:
        """Turns sums `[N]` over the trajectories through a step into the step's mean times the step's weight."""
        return sums if self.steps is self.below else sums * ratio(self.steps, self.below)


def weigh(tree: TreeArrays, weights: Weights) -> Weighing:
    """Reads weights for an estimator that pools: a trajectory weighs what its last step does.

    By `"graph"` it weighs as by `"occupancy"`: a merged state tells how often a step comes, not what follows it.
    """
    if isinstance(weights, str) and weights in _NAMES and (weights == "counts" or is_chains(tree)):
        counts = tree.leaf_counts.astype(np.float64)
        return Weighing(counts, counts)
    named = weights if isinstance(weights, str) else ""
    steps = step_weights(tree, weights)
    ends = occupancy_weights(tree) if named == "graph" else steps
    below = sum_below(tree, np.where(tree.is_trajectory, ends, 0.0))
    return Weighing(below if named == "occupancy" else steps, below)


def sample_deviation(
    ids: IntArray,
    entries: FloatArray,
    spread: FloatArray,
    total: FloatArray,
    squares: FloatArray,
    *,
    size: int,
    ddof: int = 1,
) -> FloatArray:
    """Computes the standard deviation of weighted samples in groups: `sqrt(sum w (x - mean)^2 / (W - ddof W2 / W))`.

    `W` and `W2` are sums of the weights and of their squares over the samples of a group; with weights of 1 this is the
    usual deviation with `n - ddof`.

    Args:
        ids: `[n]` group of each entry, in [0, size).
        entries: `[n]` each a sample, or the mean of some.
        spread: `[n]` weighted squared distances from the group's mean, each summed over the samples of an entry.
        total: `[n]` weights, likewise.
        squares: `[n]` squared weights, likewise.
        size: number of groups K.
        ddof: 1 for the sample deviation, 0 for the population's.

    Returns:
        `[K]`, 0 for a group of one sample, and where the samples differ by no more than rounding.
    """
    whole = group_sums(ids, total, size)
    freedom = whole - ddof * ratio(group_sums(ids, squares, size), whole)
    variance = ratio(group_sums(ids, spread, size), np.where(freedom > 1e-12 * whole, freedom, 0.0))
    return beyond_rounding(ids, entries, np.sqrt(variance))


def pool_with(
    estimator: Callable[[TreeArrays], StepAdvantages], weights: str
) -> Callable[[TreeArrays], StepAdvantages]:
    """Returns an estimator that pools with the weights of the loss, where it pools at all and was not told otherwise.

    Args:
        estimator: a function of trees; one that has an argument `weights` pools with it.
        weights: as for `step_weights`.
    """
    own = inspect.signature(estimator).parameters.get("weights")
    if own is None or "weights" in getattr(estimator, "keywords", {}) or own.default == weights:
        return estimator
    return functools.partial(cast("Callable[..., StepAdvantages]", estimator), weights=weights)
