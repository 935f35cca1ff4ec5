"""State values on the graph that merging equal states makes of a tree."""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# scipy.sparse is typed in part.

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import spsolve

from agentenv.arrays import TreeArrays

from .groups import group_sums, ratio
from .matching import Matching
from .weights import Weights, step_weights

__all__ = ["graph_values"]

FloatArray = NDArray[np.float64]

_MAX_SWEEPS = 500


def graph_values(
    tree: TreeArrays,
    matching: Matching,
    *,
    discount: float,
    weights: Weights = "occupancy",
    tolerance: float = 1e-10,
) -> tuple[FloatArray, FloatArray]:
    """Computes the values of merged states and actions by bootstrapping over what was observed.

    With transition shares and policy shares weighed over all steps (every visit), solves

        V(s) = sum_a share(a | s) Q(s, a)         Q(s, a) = mean over its steps of r + discount * V(next state)

    A step into a leaf has no next state. Every state leads to a leaf with positive share, so the solution is unique
    also with cycles and discount 1. Sweeps of the whole graph converge exactly after as many sweeps as an acyclic
    graph is deep; where cycles make them slow, a sparse factorization takes over.

    Source: GRAFT, as restated in its discussion of RTMC; its graph-GAE and per-state scaling
    are left out.

    Args:
        tree: `[N]`
        matching: which steps are equal.
        discount: factor per step, in [0, 1].
        weights: of the steps in both shares, see `step_weights`.
        tolerance: largest change of a value in the last sweep, relative to the largest value.

    Returns:
        V `[S]` and Q `[P]`, 0 for states and pairs that no valid trajectory meets.
    """
    own = step_weights(tree, weights)[matching.steps]
    rewards = tree.rewards[matching.steps]
    inner = ~tree.is_leaf[matching.steps] & (own > 0)
    visits = group_sums(matching.states, own, matching.num_states)
    share = ratio(own, visits[matching.states])
    reward = group_sums(matching.states, share * rewards, matching.num_states)
    size = matching.num_states
    coordinates = (matching.states[inner], matching.after[inner])
    step = csr_array((discount * share[inner], coordinates), shape=(size, size))
    values = _solve(step, reward, tolerance)
    target = own * (rewards + discount * np.where(inner, values[matching.after], 0.0))
    counts = group_sums(matching.pairs, own, matching.num_pairs)
    totals = group_sums(matching.pairs, target, matching.num_pairs)
    return values, ratio(totals, counts)


def _solve(step: csr_array, reward: FloatArray, tolerance: float) -> FloatArray:
    """Solves `V = reward + step @ V`."""
    values = reward
    for _ in range(_MAX_SWEEPS):
        updated = np.asarray(reward + step @ values, dtype=np.float64)
        change = np.abs(updated - values).max(initial=0.0)
        values = updated
        if change <= 1e-3 * tolerance * max(1.0, float(np.abs(values).max(initial=0.0))):
            return values
    system = (eye_array(len(reward), format="csr") - step).tocsc()
    return np.asarray(spsolve(system, reward), dtype=np.float64)
