"""CRBC: action values of the Bellman equation on the merged graph of a group, scaled per state, plus GRPO."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays

from .checks import check_finite, check_number
from .graph import graph_values
from .groups import beyond_rounding, group_sums, ratio
from .grpo import grpo_advantages
from .matching import Matching, match_steps
from .passes import assemble, check_discount, check_steps
from .result import StepAdvantages
from .weights import Weights, weigh

__all__ = ["crbc_advantages"]

FloatArray = NDArray[np.float64]


def crbc_advantages(
    tree: TreeArrays,
    *,
    discount: float = 0.98,
    depth: int | None = None,
    episode_weight: float = 1.0,
    step_weight: float = 5.0,
    min_deviation: float = 0.1,
    state_ids: ArrayLike | None = None,
    action_ids: ArrayLike | None = None,
    weights: Weights = "occupancy",
) -> StepAdvantages:
    """Computes CRBC advantages: a trajectory's GRPO advantage plus the step's from cross-rollout Bellman closure.

    Equal states of a group are merged. Over all transitions observed there, every visit counted, with mu(a | s) and
    P(s' | s, a) the shares of actions and successors, V and Q solve

        V(s) = sum_a mu(a | s) Q(s, a)          Q(s, a) = discount * mean over its steps of (r + V(next state))

    so that a success one step ahead is worth `discount`. Then

        A_step = [at least two actions seen at s] (Q(s, a) - V(s)) / max(sigma(s), min_deviation)
        sigma(s)^2 = sum_a mu(a | s) (Q(s, a) - V(s))^2
        A = episode_weight * A_grpo + step_weight * A_step

    Where only one action was seen, Q is V, and the gate removes what rounding leaves of their difference.

    Source: CRBC (arXiv 2609.35082), with its defaults. It knows one reward at the end
    and counts a truncated trajectory as failed; here rewards may come along the way, and a truncated trajectory keeps
    those it collected. `rtmc_advantages(values="graph")` solves the same equation with another scale of V and Q
    (`discount` times less is V here), and has a prior in place of gate and deviation, and no GRPO term.

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        discount: beta, factor per step, in [0, 1].
        depth: K, bootstraps so many steps deep from the mean returns of states and pairs; `None` for closure, K = inf.
        episode_weight: w_G, of `grpo_advantages`, at least 0.
        step_weight: w_S, at least 0.
        min_deviation: sigma_min, above 0.
        state_ids: `[N]` integers that replace `tree.state_ids`.
        action_ids: `[N]` integers that replace `tree.action_ids`.
        weights: of trajectories and steps in every mean, see `step_weights`; train with the same.

    Returns:
        `values` holds V(s), `action_values` Q(s, a).

    Raises:
        ValueError: an option outside its range, ids of the wrong length, or a tree without a leaf.
    """
    check_discount(discount)
    _check(depth, episode_weight, step_weight, min_deviation)
    check_steps(tree)
    match = match_steps(tree, state_ids, action_ids)
    own = weigh(tree, weights).steps[match.steps]
    state_values, action_values = graph_values(tree, match, discount=discount, weights=weights, depth=depth)
    value, action_value = discount * state_values[match.states], discount * action_values[match.pairs]
    deviation = _deviations(match, own, action_value, action_value - value)
    scaled = (action_value - value) / np.maximum(deviation, min_deviation) * (deviation > 0)
    scaled *= _has_choice(match, own)
    result = np.zeros((3, len(tree)))
    result[:, match.steps] = scaled, value, action_value
    episode = grpo_advantages(tree, weights=weights).advantages
    return assemble(tree, episode_weight * episode + step_weight * result[0], result[1], result[2])


def _deviations(match: Matching, own: FloatArray, action_values: FloatArray, gaps: FloatArray) -> FloatArray:
    """Computes sigma of the state that each step leaves: `[N - roots]`."""
    squares = group_sums(match.states, own * gaps**2, match.num_states)
    deviations = np.sqrt(ratio(squares, group_sums(match.states, own, match.num_states)))
    return beyond_rounding(match.states, action_values, deviations)[match.states]


def _has_choice(match: Matching, own: FloatArray) -> NDArray[np.bool_]:
    """Tells of each step whether its state was left by two different actions: `[N - roots]`."""
    seen = np.flatnonzero(own > 0)
    _, eldest = np.unique(match.pairs[seen], return_index=True)
    return np.bincount(match.states[seen[eldest]], minlength=match.num_states)[match.states] >= 2


def _check(depth: int | None, episode_weight: float, step_weight: float, min_deviation: float) -> None:
    if depth is not None and (not isinstance(depth, int | np.integer) or depth < 0):
        msg = f"depth must be None (closure) or an integer of at least 0, got {depth!r}"
        raise ValueError(msg)
    for name, value in (("episode_weight", episode_weight), ("step_weight", step_weight)):
        check_finite(name, value, minimum=0)
    check_number("min_deviation", min_deviation)
    if not 0.0 < min_deviation < np.inf:
        msg = f"min_deviation must be above 0 and finite, got {min_deviation!r}"
        raise ValueError(msg)
