"""Sums along the edges of episode trees, one vectorized pass per depth, and the quantities they give.

Letters: `N` nodes, `M` trees. A *trajectory* is a path from a root to a valid leaf; a root alone is none.
"""

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import NO_PARENT, TreeArrays
from agentenv.errors import TreeError
from agentenv.tree import EpisodeTree

from .checks import check_finite, check_number
from .groups import Numbers, group_means, group_sums, ratio
from .result import StepAdvantages

__all__ = [
    "assemble",
    "at_ends",
    "branches",
    "check_arrays",
    "check_discount",
    "check_steps",
    "mean_below",
    "returns_below",
    "spread_below",
    "successes",
    "sum_below",
    "sum_of_children",
    "tree_means",
    "tree_sums",
]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def check_arrays(tree: object) -> None:
    """Refuses what is no `TreeArrays`.

    Raises:
        TypeError: episode trees were given instead of their arrays, for instance.
    """
    if not isinstance(tree, TreeArrays):
        remedy = "tree.arrays()" if isinstance(tree, EpisodeTree) else "TreeArrays.from_trees([tree, ...])"
        msg = f"tree must be TreeArrays, got {type(tree).__name__}: {remedy} makes them of episode trees"
        raise TypeError(msg)


def check_steps(tree: TreeArrays) -> None:
    """Refuses trees without a leaf, and what `check_arrays` refuses.

    Raises:
        TreeError: there is no tree, or one has no step at all.
    """
    check_arrays(tree)
    steps = np.bincount(tree.tree_ids[~tree.is_root], minlength=tree.num_trees)
    if tree.num_trees == 0 or (steps == 0).any():
        which = int(np.argmin(steps)) if tree.num_trees else 0
        msg = f"tree must have a leaf after at least one step; tree {which} of {tree.num_trees} has none"
        raise TreeError(msg)


def check_discount(discount: float, name: str = "discount") -> None:
    """Refuses a factor outside [0, 1]."""
    check_number(name, discount)
    if not 0.0 <= discount <= 1.0:
        msg = f"{name} must be in [0, 1], got {discount!r}"
        raise ValueError(msg)


def sum_below(tree: TreeArrays, own: FloatArray, *, discount: float = 1.0) -> FloatArray:
    """Sums over the subtree of every node, discounted by distance: `S_i = own_i + discount * sum of children's S`.

    Args:
        tree: `[N]`
        own: `[N]` what each node contributes.
        discount: factor per edge, in [0, 1].

    Returns:
        `[N]`
    """
    total = own.copy()
    for level in reversed(tree.levels[1:]):
        below = total[level]
        np.add.at(total, tree.parents[level], below if discount == 1.0 else discount * below)
    return total


def sum_of_children(tree: TreeArrays, own: FloatArray) -> FloatArray:
    """Sums an entry `[N]` over the children of every node: `[N]`, 0 at leaves."""
    inner = np.flatnonzero(~tree.is_root)
    return group_sums(tree.parents[inner], own[inner], len(tree))


def returns_below(tree: TreeArrays, below: FloatArray, *, discount: float) -> FloatArray:
    """Sums the weighted discounted returns of all trajectories through every step.

    The return of a step is `G = r + discount * G'`, its own reward undiscounted; `S_i = sum over trajectories of w G`,
    so `S_i / below_i` is the Monte Carlo value of the step.

    Args:
        tree: `[N]`
        below: `[N]` sum of the weights w of the trajectories through every node.
        discount: factor per step.

    Returns:
        `[N]`; at a root the sum of the returns of its trajectories times `discount`.
    """
    return sum_below(tree, tree.rewards * below, discount=discount)


def spread_below(tree: TreeArrays, below: FloatArray, means: FloatArray, discount: float) -> FloatArray:
    """Sums the weighted squared distances of the returns of a step's trajectories from their mean.

    Args:
        tree: `[N]`
        below: `[N]` sum of the weights of the trajectories through every node.
        means: `[N]` mean discounted return of every step, `returns_below / below`.
        discount: the same.

    Returns:
        `[N]`, 0 where one trajectory passes.
    """
    spread, counts = np.zeros(len(tree)), below
    for level in reversed(tree.levels[1:]):
        above = tree.parents[level]
        ahead = (means[above] - tree.rewards[above]) / (discount or 1.0)
        between = np.where(counts[level] > 0, counts[level] * (means[level] - ahead) ** 2, 0.0)
        np.add.at(spread, above, discount**2 * (spread[level] + between))
    return spread


def successes(tree: TreeArrays, threshold: float | None) -> BoolArray:
    """Tells where a successful trajectory ends.

    Args:
        tree: `[N]`
        threshold: a trajectory succeeds where its undiscounted return is above, finite; `None`: its tree's threshold.

    Returns:
        `bool [N]`
    """
    check_arrays(tree)
    if threshold is not None:
        check_finite("threshold", threshold)
    return tree.succeeded if threshold is None else tree.is_trajectory & (tree.returns > threshold)


def branches(tree: TreeArrays) -> IntArray:
    """Returns the node one step below the root on the path to every node, `[N]`; a root is its own.

    Trajectories of different branches share no step: they are independent draws.
    """
    top = np.arange(len(tree))
    for level in tree.levels[2:]:
        top[level] = top[tree.parents[level]]
    return top


def mean_below(tree: TreeArrays, scores: FloatArray, below: FloatArray) -> FloatArray:
    """Averages a score of trajectories, given at their leaves, over the trajectories through every node.

    Args:
        tree: `[N]`
        scores: `[N]`, read at valid leaves only.
        below: `[N]` sum of the weights of the trajectories through every node; at a leaf its own weight.

    Returns:
        `[N]`, 0 where no trajectory passes.
    """
    return ratio(sum_below(tree, at_ends(tree, scores, below)), below)


def at_ends(tree: TreeArrays, scores: FloatArray, below: FloatArray) -> FloatArray:
    """Returns the weighted scores of trajectories at their leaves, `[N]`, 0 elsewhere."""
    own, ends = np.zeros(len(tree)), np.flatnonzero(tree.is_trajectory)
    own[ends] = scores[ends] * below[ends]
    return own


def tree_sums(tree: TreeArrays, values: Numbers) -> FloatArray:
    """Sums `[N]` values per tree, giving `[M]`."""
    return group_sums(tree.tree_ids, values, tree.num_trees)


def tree_means(tree: TreeArrays, scores: FloatArray, below: FloatArray) -> FloatArray:
    """Averages a score of trajectories, given `[N]` and read at their leaves, per tree; weights as in `mean_below`.

    Returns:
        `[M]`, 0 for a tree without a valid trajectory.
    """
    leaves = np.flatnonzero(tree.is_trajectory)
    ids = tree.tree_ids[leaves]
    return group_means(ids, scores[leaves], below[leaves], tree.num_trees)


def assemble(tree: TreeArrays, advantages: FloatArray, values: FloatArray, action_values: FloatArray) -> StepAdvantages:
    """Builds the result from arrays that it may change: 0 at roots and at steps that no valid trajectory passes."""
    silent = np.flatnonzero((tree.parents == NO_PARENT) | (tree.leaf_counts == 0))
    counts = tree.leaf_counts.copy()
    for array in (advantages, values, action_values, counts):
        array[silent] = 0
    return StepAdvantages(advantages, values, action_values, counts)
