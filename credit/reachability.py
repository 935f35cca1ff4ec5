"""Reachability: can any continuation still succeed, and which step made it impossible?"""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# scipy.sparse is typed in part.

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from agentenv.arrays import TreeArrays, read_flags

from .matching import check_ids, match_steps, state_numbers
from .passes import assemble, check_discount, check_steps, successes
from .result import StepAdvantages

__all__ = ["reachability_advantages", "reachable"]

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


def reachable(
    edges: ArrayLike,
    success: ArrayLike,
    *,
    num_states: int | None = None,
    probabilities: ArrayLike | None = None,
    floor: float = 0.0,
) -> BoolArray:
    """Tells from which states of a graph a successful state can be reached: the limit of Pass@k for k to infinity.

    One search backwards from the successes, O(V + E); cycles are harmless. Source: SR-PPO (arXiv 2606.25451).

    Args:
        edges: `[E, 2]` (from, to), states numbered 0, 1, ...
        success: `[V]` bool, or the indices of the successful states.
        num_states: V; default: the length of a bool `success`, else one more than the largest index.
        probabilities: `[E]` probability of each edge under the policy, in [0, 1].
        floor: in [0, 1]; edges with a smaller probability do not count (a language model gives every edge some).

    Raises:
        ValueError: edges of the wrong shape, a state out of range, or probabilities outside [0, 1].

    Returns:
        `bool [V]`
    """
    links = np.asarray(edges)
    if links.size == 0:
        links = np.zeros((0, 2), dtype=np.int64)
    if links.ndim != 2 or links.shape[1] != 2 or links.dtype.kind not in "iu":
        msg = f"edges must be integers of shape [E, 2], got {links.dtype} of shape {list(links.shape)}"
        raise ValueError(msg)
    goals = np.asarray(success)
    if goals.size and goals.dtype.kind not in "biu":
        msg = f"success must be [V] bool or integers, the indices of successful states, got {goals.dtype}"
        raise ValueError(msg)
    check_discount(floor, "floor")
    if num_states is None:
        largest = max(int(links.max(initial=-1)), -1 if goals.dtype == bool else int(goals.max(initial=-1)))
        num_states = max(largest + 1, len(goals) if goals.dtype == bool else 0)
    if links.size and (links.min() < 0 or links.max() >= num_states):
        msg = f"edges must name states in [0, {num_states}), got {int(links.min())} to {int(links.max())}"
        raise ValueError(msg)
    goals = _goals(goals, num_states)
    if probabilities is not None:
        p = np.asarray(probabilities, dtype=np.float64)
        if p.shape != (len(links),) or not ((p >= 0) & (p <= 1)).all():
            msg = f"probabilities must be [E] = [{len(links)}] numbers in [0, 1], got shape {list(p.shape)}"
            raise ValueError(msg)
        links = links[(p >= floor) & (p > 0)]
    return _search_back(links, goals, num_states)


def _goals(goals: NDArray[np.generic], num_states: int) -> IntArray:
    if goals.dtype == np.bool_:
        if goals.shape != (num_states,):
            msg = f"success must have shape [V] = [{num_states}], got {list(goals.shape)}"
            raise ValueError(msg)
        return np.flatnonzero(goals)
    indices = goals.astype(np.int64).reshape(-1)
    if indices.size and (indices.min() < 0 or indices.max() >= num_states):
        msg = f"success must name states in [0, {num_states}), got {int(indices.min())} to {int(indices.max())}"
        raise ValueError(msg)
    return indices


def _search_back(links: IntArray, goals: IntArray, num_states: int) -> BoolArray:
    """Searches the reversed graph from an extra state that leads to every goal."""
    index = np.int32 if max(num_states + 1, len(links) + len(goals)) < 2**31 else np.int64
    start = np.concatenate([links[:, 1], np.full(len(goals), num_states)]).astype(index)
    end = np.concatenate([links[:, 0], goals]).astype(index)
    size = num_states + 1
    graph = csr_array((np.ones(len(start)), (start, end)), shape=(size, size))
    found = breadth_first_order(graph, num_states, directed=True, return_predecessors=False)
    out = np.zeros(size, dtype=np.bool_)
    out[np.asarray(found, dtype=np.int64)] = True
    return out[:num_states]


def reachability_advantages(
    tree: TreeArrays,
    *,
    threshold: float | None = None,
    alive: ArrayLike | None = None,
    state_ids: ArrayLike | None = None,
) -> StepAdvantages:
    """Computes the credit of the limit k = infinity: 0 while success stays reachable, -1 at the first fatal step.

        A = V_inf(node) - V_inf(parent)          V_inf = 1 where a success can be reached

    Without `alive`, the graph is the one that merging equal states makes of the tree's own trajectories: a state
    counts as reachable where some trajectory went on to a success from it. That is a claim about what was sampled, so a
    -1 means "no success was seen after this step". After the fatal step, and in trees without a success, all is 0.

    Source: SR-PPO (arXiv 2606.25451) for the value and its linear-time computation.

    Args:
        tree: `[N]` one or many trees.
        threshold: a trajectory succeeds where its undiscounted return is above; default: its tree's threshold.
        alive: `[N]` bool, from elsewhere (an explicit graph and `reachable`): success can be reached from node i.
            Leaves take their own outcome.
        state_ids: `[N]` integers that replace `tree.state_ids`.
    """
    check_steps(tree)
    won = successes(tree, threshold)
    if alive is None:
        value = _observed(tree, won, state_ids)
    else:
        value = read_flags("alive", alive)
        if value.shape != (len(tree),):
            msg = f"alive must have shape [N] = [{len(tree)}], got {list(value.shape)}"
            raise ValueError(msg)
    value = np.where(tree.is_leaf, won, value).astype(np.float64)
    before = value[tree.parents]
    return assemble(tree, np.minimum(value - before, 0.0), before, value)


def _observed(tree: TreeArrays, won: BoolArray, state_ids: ArrayLike | None) -> BoolArray:
    """Tells from which nodes a success was seen, by way of equal states."""
    match = match_steps(tree, state_ids)
    used = tree.leaf_counts[match.steps] > 0
    inner = used & ~tree.is_leaf[match.steps]
    size = match.num_states
    ends = used & won[match.steps]
    links = np.stack([match.states[inner], match.after[inner]], axis=1)
    goal = np.stack([match.states[ends], np.full(int(ends.sum()), size)], axis=1)
    found = reachable(np.concatenate([links, goal]), [size], num_states=size + 1)
    numbers, _ = state_numbers(tree, check_ids(tree, state_ids, tree.state_ids, "state_ids"))
    return found[numbers]
