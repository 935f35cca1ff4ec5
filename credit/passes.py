"""Sums along the edges of episode trees, one vectorized pass per depth, and the quantities they give.

Letters: `N` nodes, `M` trees. A *trajectory* is a path from a root to a valid leaf; a root alone is none.
"""

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import NO_PARENT, TreeArrays
from agentenv.errors import TreeError
from agentenv.tree import EpisodeTree

from .groups import group_means, group_sums, ratio
from .result import StepAdvantages

__all__ = [
    "assemble",
    "check_arrays",
    "check_discount",
    "check_steps",
    "episode_returns",
    "mean_below",
    "occupancy_weights",
    "returns_below",
    "spread_below",
    "sum_above",
    "sum_below",
    "sum_of_children",
    "tree_means",
    "tree_sums",
]

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


def sum_above(tree: TreeArrays, own: FloatArray) -> FloatArray:
    """Sums from the root down to every node, itself included: `S_i = own_i + S_parent`.

    Args:
        tree: `[N]`
        own: `[N]` what each node contributes.

    Returns:
        `[N]`
    """
    total = own.copy()
    for level in tree.levels[1:]:
        total[level] += total[tree.parents[level]]
    return total


def returns_below(tree: TreeArrays, *, discount: float) -> FloatArray:
    """Sums the discounted returns of all trajectories through every step.

    The return of a step is `G = r + discount * G'`, its own reward undiscounted; `S_i = sum over trajectories of G`,
    so `S_i / leaf_counts_i` is the Monte Carlo value of the step.

    Returns:
        `[N]`; at a root the sum of the returns of its trajectories times `discount`.
    """
    return sum_below(tree, tree.rewards * tree.leaf_counts, discount=discount)


def spread_below(tree: TreeArrays, means: FloatArray, discount: float) -> FloatArray:
    """Sums the squared distances of the returns of a step's trajectories from their mean.

    Args:
        tree: `[N]`
        means: `[N]` mean discounted return of every step, `returns_below / leaf_counts`.
        discount: the same.

    Returns:
        `[N]`, 0 where one trajectory passes.
    """
    spread = np.zeros(len(tree))
    counts = tree.leaf_counts
    for level in reversed(tree.levels[1:]):
        above = tree.parents[level]
        ahead = (means[above] - tree.rewards[above]) / (discount or 1.0)
        between = np.where(counts[level] > 0, counts[level] * (means[level] - ahead) ** 2, 0.0)
        np.add.at(spread, above, discount**2 * (spread[level] + between))
    return spread


def occupancy_weights(tree: TreeArrays) -> FloatArray:
    """Computes how often the policy itself would come through every step: each fork splits its weight evenly.

        w_child = w_parent / (children of the parent)          w_root = trajectories of its tree / roots of it

    Without forks below the root this is `leaf_counts`. With them, `leaf_counts` follow where an allocator spent its
    continuations; these weights do not: children are independent draws from their parent, however many there are. Weigh
    a loss over nodes with them to estimate the on-policy gradient. Steps that no valid trajectory passes have 0.

    Returns:
        `[N]`, roots included.
    """
    check_arrays(tree)
    live = tree.leaf_counts > 0
    children = np.bincount(tree.parents[live & ~tree.is_root], minlength=len(tree))
    roots = live & tree.is_root
    per_tree = group_sums(tree.tree_ids, np.where(roots, tree.leaf_counts, 0), tree.num_trees)
    weights = np.where(roots, ratio(per_tree, group_sums(tree.tree_ids, roots, tree.num_trees))[tree.tree_ids], 0.0)
    for level in tree.levels[1:]:
        above = tree.parents[level]
        weights[level] = np.where(live[level], weights[above] / np.maximum(children[above], 1), 0.0)
    return weights


def episode_returns(tree: TreeArrays) -> FloatArray:
    """Sums the rewards from the root to every node, undiscounted; at a leaf this is its trajectory's return.

    Returns:
        `[N]`
    """
    check_arrays(tree)
    return sum_above(tree, tree.rewards)


def mean_below(tree: TreeArrays, scores: FloatArray) -> FloatArray:
    """Averages a score of trajectories, given at their leaves, over the trajectories through every node.

    Args:
        tree: `[N]`
        scores: `[N]`, read at valid leaves only.

    Returns:
        `[N]`, 0 where no trajectory passes.
    """
    return ratio(sum_below(tree, np.where(tree.is_trajectory, scores, 0.0)), tree.leaf_counts)


def tree_sums(tree: TreeArrays, values: FloatArray) -> FloatArray:
    """Sums `[N]` values per tree, giving `[M]`."""
    return group_sums(tree.tree_ids, values, tree.num_trees)


def tree_means(tree: TreeArrays, scores: FloatArray) -> FloatArray:
    """Averages a score of trajectories, given `[N]` and read at their leaves, per tree.

    Returns:
        `[M]`, 0 for a tree without a valid trajectory.
    """
    leaves = np.flatnonzero(tree.is_trajectory)
    ids = tree.tree_ids[leaves]
    return group_means(ids, scores[leaves], np.ones(len(leaves)), tree.num_trees)


def assemble(tree: TreeArrays, advantages: FloatArray, values: FloatArray, action_values: FloatArray) -> StepAdvantages:
    """Builds the result from arrays that it may change: 0 at roots and at steps that no valid trajectory passes."""
    silent = np.flatnonzero((tree.parents == NO_PARENT) | (tree.leaf_counts == 0))
    counts = tree.leaf_counts.copy()
    for array in (advantages, values, action_values, counts):
        array[silent] = 0
    return StepAdvantages(advantages, values, action_values, counts)
