"""Which steps of a tree are the same (state, action), and which of them are first visits.

Letters: `N` nodes, `S` distinct states, `P` distinct (state, action) pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays, read_integers
from agentenv.errors import TreeError

from .passes import check_arrays

__all__ = ["Matching", "first_visits", "match_steps", "match_transitions", "preorder", "renumber", "state_numbers"]

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matching:
    """Steps grouped by the state they leave and the action they take, within each tree.

    Entry `j` belongs to node `steps[j]`.
    """

    steps: IntArray  # [N - roots] the nodes that a step leads into
    states: IntArray  # [N - roots] number of the state the step leaves, in [0, num_states)
    pairs: IntArray  # [N - roots] number of the (state, action) pair, in [0, num_pairs); not all need occur
    after: IntArray  # [N - roots] number of the state the step leads to, in [0, num_states)
    first: BoolArray  # [N - roots] no earlier step of the same trajectory is the same pair
    trees: IntArray  # [num_states] the tree of each state
    num_states: int
    num_pairs: int


def check_ids(tree: TreeArrays, ids: ArrayLike | None, default: IntArray, name: str) -> IntArray:
    """Reads ids `[N]` that may replace those of the tree.

    Raises:
        TreeError: the length differs from the number of nodes, or the ids are not integers of 64 bits.
    """
    if ids is None:
        return default
    given = np.asarray(ids)
    if given.shape != (len(tree),):
        msg = f"{name} must have shape [N] = [{len(tree)}], one entry per node, got {list(given.shape)}"
        raise TreeError(msg)
    return read_integers(name, given)


def renumber(keys: IntArray) -> tuple[IntArray, int]:
    """Numbers equal keys 0, 1, ... in sorted order.

    Returns:
        `int64` numbers of the same shape, and how many there are.
    """
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.empty(len(keys), dtype=np.bool_)
    new[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    out = np.empty(len(keys), dtype=np.int64)
    out[order] = np.cumsum(new) - 1
    return out, int(np.count_nonzero(new))


def state_numbers(tree: TreeArrays, state_ids: IntArray) -> tuple[IntArray, int]:
    """Numbers the states of all trees together: equal where tree and state id are equal.

    Returns:
        `[N]` numbers in [0, S), not all of them need occur, and S.
    """
    low, high = _ranges(tree, state_ids)
    spans = (high - low).view(np.uint64)  # exact for all ids of 64 bits, where the signed difference wraps
    starts = np.concatenate([[0], np.cumsum(np.minimum(spans, 4 * len(tree)).astype(np.int64) + 1)])
    if starts[-1] <= 4 * len(tree):
        return (state_ids - low[tree.tree_ids]) + starts[tree.tree_ids], int(starts[-1])
    dense, count = renumber(state_ids)
    return renumber(tree.tree_ids * count + dense)


def _ranges(tree: TreeArrays, ids: IntArray) -> tuple[IntArray, IntArray]:
    starts = np.flatnonzero(np.diff(tree.tree_ids, prepend=-1))
    return np.minimum.reduceat(ids, starts), np.maximum.reduceat(ids, starts)


def match_steps(tree: TreeArrays, state_ids: ArrayLike | None = None, action_ids: ArrayLike | None = None) -> Matching:
    """Groups the steps of every tree by (state left, action taken) and marks first visits.

    Args:
        tree: `[N]`
        state_ids: `[N]` replaces `tree.state_ids`, for instance clusters of embeddings.
        action_ids: `[N]` replaces `tree.action_ids`.

    Raises:
        TreeError: ids of the wrong length or type.
    """
    check_arrays(tree)
    states = check_ids(tree, state_ids, tree.state_ids, "state_ids")
    actions = check_ids(tree, action_ids, tree.action_ids, "action_ids")
    numbers, num_states = state_numbers(tree, states)
    steps = np.flatnonzero(~tree.is_root)
    left = numbers[tree.parents[steps]]
    taken = actions[steps]
    low, high = (int(taken.min()), int(taken.max())) if len(taken) else (0, 0)
    if num_states * (high - low + 1) >= 2**62:
        taken, size = renumber(taken)
        low, high = 0, size - 1
    pairs, num_pairs = left * (high - low + 1) + (taken - low), num_states * (high - low + 1)
    if num_pairs > 4 * len(tree):
        pairs, num_pairs = renumber(pairs)
    first = first_visits(tree, steps, pairs)
    trees = np.zeros(num_states, dtype=np.int64)
    trees[numbers] = tree.tree_ids
    return Matching(steps, left, pairs, numbers[steps], first, trees, num_states, num_pairs)


def match_transitions(matching: Matching) -> tuple[IntArray, int]:
    """Numbers the transitions (state, action, next state) of the steps of a matching.

    Returns:
        `[N - roots]` numbers in [0, count), and the count.
    """
    return renumber(matching.pairs * matching.num_states + matching.after)


def first_visits(tree: TreeArrays, steps: IntArray, keys: IntArray) -> BoolArray:
    """Marks the steps whose key no earlier step of the same trajectory has.

    Whether a step is a first visit depends on its ancestors alone, so one answer holds for every trajectory through
    it. In preorder an ancestor's interval [enter, leave) contains those of its descendants; among equal keys sorted by
    `enter`, a step repeats an ancestor exactly where an earlier interval is still open.

    Args:
        tree: `[N]`
        steps: `[n]` nodes.
        keys: `[n]` small numbers, at least 0.

    Returns:
        `bool [n]`
    """
    first = np.ones(len(steps), dtype=np.bool_)
    depths = tree.depths[steps]
    shallow = np.full(int(keys.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(shallow, keys, depths)
    suspects = np.flatnonzero(np.bincount(keys, weights=depths > shallow[keys])[keys]) if len(keys) else np.arange(0)
    if len(suspects) == 0:
        return first
    enter, leave = preorder(tree)
    begin, end = enter[steps[suspects]], leave[steps[suspects]]
    base = keys[suspects] * (len(tree) + 1)
    order = np.argsort(base + begin)
    open_until = np.maximum.accumulate((base + end)[order])
    repeat = np.concatenate([[False], open_until[:-1] > (base + begin)[order[1:]]])
    first[suspects[order[repeat]]] = False
    return first


def preorder(tree: TreeArrays) -> tuple[IntArray, IntArray]:
    """Numbers the nodes as a depth-first walk meets them.

    Returns:
        `[N]` when the walk enters node i and `[N]` when it leaves its subtree: j is below i where
        `enter[i] < enter[j] < leave[i]`.
    """
    sizes = np.ones(len(tree), dtype=np.int64)
    for level in reversed(tree.levels[1:]):
        np.add.at(sizes, tree.parents[level], sizes[level])
    index = np.arange(len(tree))
    last, above = index + sizes, np.maximum(tree.parents, 0)
    if (tree.is_root | (last <= last[above])).all():
        return index, last  # every subtree lies within its parent's: the nodes are numbered in preorder already
    enter = np.zeros(len(tree), dtype=np.int64)
    roots = np.flatnonzero(tree.is_root)
    enter[roots] = np.cumsum(sizes[roots]) - sizes[roots]
    for level in tree.levels[1:]:
        above, nodes = tree.parents[level], level
        if (np.diff(above) < 0).any():
            order = np.argsort(above, kind="stable")
            nodes, above = level[order], above[order]
        before = np.cumsum(sizes[nodes]) - sizes[nodes]
        eldest = np.flatnonzero(np.diff(above, prepend=-1))
        siblings = np.diff(eldest, append=len(above))
        enter[nodes] = enter[above] + 1 + before - np.repeat(before[eldest], siblings)
    return enter, enter + sizes
