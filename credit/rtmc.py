"""RTMC: step advantages by pooling returns over equal (state, action) signatures."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays

from .checks import check_finite
from .graph import graph_values
from .groups import beyond_rounding, group_means, group_sums, ratio
from .matching import Matching, match_steps, renumber
from .passes import assemble, branches, check_discount, check_steps, returns_below, sum_below, tree_means
from .result import StepAdvantages
from .rloo import rloo_advantages
from .weights import Weighing, Weights, weigh

__all__ = ["Visits", "rtmc_advantages", "rtmc_visits"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Visits:
    """First visits behind every step: how much the trajectories of a tree overlap."""

    state: IntArray  # [N] N(s) of the state that the step into node i left; 0 at a root
    action: IntArray  # [N] N(s, a) of the step into node i; 0 at a root


def rtmc_advantages(
    tree: TreeArrays,
    *,
    discount: float = 0.99,
    prior_count: float = 2.0,
    prior_mean: Literal["return", "discounted"] = "return",
    values: Literal["monte_carlo", "graph"] = "monte_carlo",
    baseline: Literal["all", "others"] = "all",
    normalize: bool = False,
    state_ids: ArrayLike | None = None,
    action_ids: ArrayLike | None = None,
    weights: Weights = "occupancy",
) -> StepAdvantages:
    """Computes rollout-tree Monte Carlo advantages: pooled action value minus smoothed pooled state value.

    Every root-to-leaf path is one trajectory, whether it grew alone or from a fork. With `G` the discounted return of a
    step (its own reward undiscounted), over first visits of the pair within a trajectory, each with its weight (1 where
    there are no forks):

        N(s, a) = sum of weights of first visits          Q(s, a) = mean of G over them
        N(s) = sum_a N(s, a)                      V(s) = sum_a N(s, a) Q(s, a) / N(s)
        V'(s) = (N(s) V(s) + prior_count v0) / (N(s) + prior_count)                              (Eq. 11)
        A = Q(s, a) - V'(s)

    Source: RTMC (arXiv 2604.11037), through public ports and restatements; the paper's full text was not available.
    Eq. 11, discount 0.99 and the first-visit rule are attested by a port that cites them; that N(s) sums pairs (a
    trajectory that meets a state twice with different actions counts twice) is the port's reading. Past the paper:
    trees with real forks, `prior_mean="discounted"`, `values="graph"`, and ids given by the caller. Differences: a
    later visit of a pair within a trajectory receives the pair's advantage too. A truncated trajectory counts with
    the rewards it collected. Trajectories that infrastructure broke count nowhere.

    Args:
        tree: `[N]` one or many trees; each tree is one group.
        discount: factor per step, in [0, 1].
        prior_count: pseudo-visits of the prior, at least 0. With 0, a state visited once gives exactly 0.
        prior_mean: `"return"`: v0 is the tree's mean undiscounted return (the group's success rate), as in the port.
            `"discounted"`: v0(s) is that times the mean of `discount ** (steps that follow)` over the visits of s,
            which removes the sign flip that early steps of long successes suffer otherwise.
        values: `"graph"` replaces V and Q by the solution of the Bellman equation on the merged graph (`graph_values`).
        baseline: `"others"` leaves the branch of the root that a step is in out of V'(s) and v0 (not in the paper). The
            step's own return in V'(s) is what keeps the update of `"all"` from the exact gradient; without it, and
            with discount 1, what is left is that later visits get the credit of first ones. Costs some variance.
        normalize: divide by the tree's standard deviation of advantages over the steps of all trajectories (population,
            not centered, skipped at 1e-8 or less and where it is rounding), the paper's optional scaling.
        state_ids: `[N]` integers that replace `tree.state_ids`: clusters of embeddings, coarser signatures.
        action_ids: `[N]` integers that replace `tree.action_ids`.
        weights: of trajectories and steps in every mean, see `step_weights`; train with the same.

    Returns:
        `values` holds V'(s), `action_values` Q(s, a).

    Raises:
        ValueError: an option outside its range, ids of the wrong length, or a tree without a leaf.
    """
    check_discount(discount)
    check_finite("prior_count", prior_count, minimum=0)
    _check_choice("prior_mean", prior_mean, ("return", "discounted"))
    _check_choice("values", values, ("monte_carlo", "graph"))
    _check_choice("baseline", baseline, ("all", "others") if values == "monte_carlo" else ("all",))
    check_steps(tree)
    match = match_steps(tree, state_ids, action_ids)
    weighing = weigh(tree, weights)
    own = weighing.steps[match.steps] * match.first
    visits = group_sums(match.states, own, match.num_states)
    if values == "graph":
        state_values, action_values = graph_values(tree, match, discount=discount, weights=weighing.steps)
    else:
        state_values, action_values = _monte_carlo(tree, match, weighing, own, visits, discount)
    prior = tree_means(tree, tree.returns, weighing.below)[tree.tree_ids[match.steps]]
    if baseline == "others":
        prior = rloo_advantages(tree, weights=weights).values[match.steps]
    if prior_mean == "discounted":
        prior *= _mean_remaining(tree, match, weighing, visits, discount)[match.states]
    total, count = (visits * state_values)[match.states], visits[match.states]
    if baseline == "others":
        total, count = _without_branch(tree, match, weighing, own, discount, total, count)
    smoothed, action_value = np.zeros(len(tree)), np.zeros(len(tree))
    smoothed[match.steps] = np.where(count > 0, ratio(total + prior_count * prior, count + prior_count), prior)
    action_value[match.steps] = action_values[match.pairs]
    advantages = action_value - smoothed
    if normalize:
        advantages = _scale(tree, advantages, action_value, weighing.steps)
    return assemble(tree, advantages, smoothed, action_value)


def rtmc_visits(tree: TreeArrays, *, state_ids: ArrayLike | None = None, action_ids: ArrayLike | None = None) -> Visits:
    """Counts the trajectories behind N(s) and N(s, a) of every step: first visits, whatever they weigh.

    The share of steps with `state >= 2` says how much of the credit is a comparison and how much is the prior.
    """
    match = match_steps(tree, state_ids, action_ids)
    weights = tree.leaf_counts[match.steps] * match.first.astype(np.float64)
    state, action = np.zeros(len(tree), dtype=np.int64), np.zeros(len(tree), dtype=np.int64)
    state[match.steps] = group_sums(match.states, weights, match.num_states)[match.states].astype(np.int64)
    action[match.steps] = group_sums(match.pairs, weights, match.num_pairs)[match.pairs].astype(np.int64)
    return Visits(state, action)


def _monte_carlo(
    tree: TreeArrays, match: Matching, weighing: Weighing, own: FloatArray, visits: FloatArray, discount: float
) -> tuple[FloatArray, FloatArray]:
    """Pools returns over first visits: V `[S]` and Q `[P]`."""
    sums = weighing.of_steps(returns_below(tree, weighing.below, discount=discount))
    totals = sums[match.steps] * match.first
    state_values = ratio(group_sums(match.states, totals, match.num_states), visits)
    counts = group_sums(match.pairs, own, match.num_pairs)
    return state_values, ratio(group_sums(match.pairs, totals, match.num_pairs), counts)


def _without_branch(
    tree: TreeArrays,
    match: Matching,
    weighing: Weighing,
    own: FloatArray,
    discount: float,
    total: FloatArray,
    count: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Takes what a step's own branch brought to its state out of the state's summed returns and weights."""
    sums = weighing.of_steps(returns_below(tree, weighing.below, discount=discount))
    totals = sums[match.steps] * match.first
    keys, size = renumber(branches(tree)[match.steps] * match.num_states + match.states)
    rest = count - group_sums(keys, own, size)[keys]
    rest = np.where(rest > 1e-9 * count, rest, 0.0)
    return np.where(rest > 0, total - group_sums(keys, totals, size)[keys], 0.0), rest


def _mean_remaining(
    tree: TreeArrays, match: Matching, weighing: Weighing, visits: FloatArray, discount: float
) -> FloatArray:
    """Averages `discount ** (steps after this one)` over the visits of every state: `[S]`."""
    ends = np.where(tree.is_trajectory, weighing.below, 0.0)
    remaining = weighing.of_steps(sum_below(tree, ends, discount=discount))
    totals = group_sums(match.states, remaining[match.steps] * match.first, match.num_states)
    return ratio(totals, visits)


def _scale(tree: TreeArrays, advantages: FloatArray, action_values: FloatArray, weights: FloatArray) -> FloatArray:
    weights = np.where(tree.is_root, 0.0, weights)
    mean = group_means(tree.tree_ids, advantages, weights, tree.num_trees)[tree.tree_ids]
    variance = group_means(tree.tree_ids, (advantages - mean) ** 2, weights, tree.num_trees)
    deviation = beyond_rounding(tree.tree_ids, action_values, np.sqrt(variance))
    return advantages / np.where(deviation > 1e-8, deviation, 1.0)[tree.tree_ids]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(msg)
