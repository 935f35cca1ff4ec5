"""State values on the graph that merging equal states makes of a tree."""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# scipy.sparse is typed in part.

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from agentenv.arrays import TreeArrays

from .fixed_point import solve_fixed_point
from .groups import group_sums, ratio
from .matching import Matching
from .weights import Weights, step_weights

__all__ = ["graph_values"]

FloatArray = NDArray[np.float64]


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
    also with cycles and discount 1.

    Source: GRAFT, as restated in its discussion of RTMC; its graph-GAE and per-state scaling
    are left out.

    Args:
        tree: `[N]`
        matching: which steps are equal.
        discount: factor per step, in [0, 1].
        weights: of the steps in both shares, see `step_weights`.
        tolerance: of the solution, see `solve_fixed_point`.

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
    values = solve_fixed_point(step, reward, tolerance=tolerance)
    target = own * (rewards + discount * np.where(inner, values[matching.after], 0.0))
    counts = group_sums(matching.pairs, own, matching.num_pairs)
    totals = group_sums(matching.pairs, target, matching.num_pairs)
    return values, ratio(totals, counts)
