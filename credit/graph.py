"""State values on the graph that merging equal states makes of a tree."""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# scipy.sparse is typed in part.

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from agentenv.arrays import TreeArrays

from .fixed_point import solve_fixed_point
from .groups import group_means, group_sums, ratio
from .matching import Matching
from .passes import returns_below
from .weights import Weights, weigh

__all__ = ["graph_values"]

FloatArray = NDArray[np.float64]


def graph_values(
    tree: TreeArrays,
    matching: Matching,
    *,
    discount: float,
    weights: Weights = "occupancy",
    depth: int | None = None,
    tolerance: float = 1e-10,
) -> tuple[FloatArray, FloatArray]:
    """Computes the values of merged states and actions by bootstrapping over what was observed.

    With transition shares and policy shares weighed over all steps (every visit), solves

        V(s) = sum_a share(a | s) Q(s, a)         Q(s, a) = mean over its steps of r + discount * V(next state)

    A step into a leaf has no next state. Every state leads to a leaf with positive share, so the solution is unique
    also with cycles and discount 1.

    With a `depth` K, bootstraps K steps deep from the mean returns of all visits, where K = 0 stays:

        V_0(s), Q_0(s, a) = mean of G over the visits          V_k, Q_k = the right sides above with V_(k-1)

    Source: GRAFT, as restated in its discussion of RTMC; its graph-GAE and per-state scaling are left out. The finite
    depths are CRBC's (arXiv 2609.35082).

    Args:
        tree: `[N]`
        matching: which steps are equal.
        discount: factor per step, in [0, 1].
        weights: of the steps in both shares, see `step_weights`.
        depth: K, at least 0; `None` for the solution itself.
        tolerance: of the solution, see `solve_fixed_point`.

    Returns:
        V `[S]` and Q `[P]`, 0 for states and pairs that no valid trajectory meets.
    """
    weighing = weigh(tree, weights)
    own = weighing.steps[matching.steps]
    rewards = tree.rewards[matching.steps]
    inner = ~tree.is_leaf[matching.steps] & (own > 0)
    visits = group_sums(matching.states, own, matching.num_states)
    share = ratio(own, visits[matching.states])
    reward = group_sums(matching.states, share * rewards, matching.num_states)
    size = matching.num_states
    coordinates = (matching.states[inner], matching.after[inner])
    step = csr_array((discount * share[inner], coordinates), shape=(size, size))
    if depth is None:
        values = ahead = solve_fixed_point(step, reward, matching.trees, tolerance=tolerance)
    else:
        returns = ratio(returns_below(tree, weighing.below, discount=discount), weighing.below)[matching.steps]
        values = ahead = group_means(matching.states, returns, own, size)
        if depth == 0:
            return values, group_means(matching.pairs, returns, own, matching.num_pairs)
        for _ in range(depth):
            values, ahead = np.asarray(reward + step @ values, dtype=np.float64), values
    target = rewards + discount * np.where(inner, ahead[matching.after], 0.0)
    return values, group_means(matching.pairs, target, own, matching.num_pairs)
