"""Weights as part of the contract: by hand, and every tree of tiny problems enumerated exactly."""

import itertools
from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import tree_arrays

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    dr_grpo_advantages,
    reinforce_advantages,
    rloo_advantages,
    salt_advantages,
    step_reward_advantages,
    step_weights,
    vine_ppo_advantages,
)
from agentenv.credit.grpo import grpo_advantages
from agentenv.credit.rtmc import rtmc_advantages

# A chain that forks in two after its first step (a third branch broke), and a chain alone.
FORK = TreeArrays.build([-1, 0, 1, 1, 1, 0, 5], [0] * 7, valid=[True] * 4 + [False] + [True] * 2)


def test_by_hand():
    assert step_weights(FORK).tolist() == [2, 1, 0.5, 0.5, 0, 1, 1]
    assert step_weights(FORK, "counts").tolist() == [3, 2, 1, 1, 0, 1, 1]
    assert step_weights(FORK, "unique").tolist() == [2, 1, 1, 1, 0, 1, 1]
    assert step_weights(FORK, "graph").tolist() == [2, 1, 0.5, 0.5, 0, 1, 1]
    assert step_weights(FORK, range(7)).tolist() == [0, 1, 2, 3, 0, 5, 6]
    below = TreeArrays.build([-1, 0, 1, 1, 2, 2, 2], [0] * 7)
    np.testing.assert_allclose(step_weights(below), [1, 1, 1 / 2, 1 / 2, 1 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("leaves", "weights must be 'occupancy', 'graph', 'counts', 'unique' or .* got 'leaves'"),
        ([1.0] * 6, r"weights must have shape \[N\] = \[7\], one entry per node, got \[6\]"),
        ([1.0] * 6 + [-1.0], r"weights must be finite and at least 0; weights\[6\] is -1.0"),
        ([np.nan] + [1.0] * 6, r"weights\[0\] is nan"),
        (1.0, r"weights must have shape .* got \[\]"),
    ],
)
@pytest.mark.parametrize("call", [step_weights, lambda tree, weights: rloo_advantages(tree, weights=weights)])
def test_refuses(call, weights, message):
    with pytest.raises(ValueError, match=message):
        call(FORK, weights)


@given(tree=tree_arrays())
@settings(max_examples=100, deadline=None)
def test_occupancy_flows_down_and_counts_the_branches_of_the_root(tree):
    weights, live = step_weights(tree), tree.leaf_counts > 0
    assert not weights[~live].any()
    for node in np.flatnonzero(live & ~tree.is_leaf):
        children = np.flatnonzero((tree.parents == node) & live)
        assert weights[node] == pytest.approx(weights[children].sum())
        assert np.ptp(weights[children]) == 0
    assert (weights[live & (tree.depths == 1)] == 1).all()


def test_graph_weights_by_hand():
    # Two chains meet in state m; one of them is asked again there. m is visited twice per pair of rollouts, and three
    # steps leave it, whoever asked: 2/3 each. By occupancy the forked steps weigh 1/2 and the other 1.
    tree = TreeArrays.build([-1, 0, 1, 1, 0, 4], [0] * 6, state_ids=[0, 1, 2, 2, 1, 2])
    np.testing.assert_allclose(step_weights(tree, "graph"), [2, 1, 2 / 3, 2 / 3, 1, 2 / 3])
    assert step_weights(tree).tolist() == [2, 1, 0.5, 0.5, 1, 1]
    # A loop: of the three steps from s, one stays; s is visited 1 / (2/3) times, 1/2 a draw.
    loop = TreeArrays.build([-1, 0, 1, 1], [0] * 4, state_ids=[0, 0, 1, 1])
    np.testing.assert_allclose(step_weights(loop, "graph"), [0.5, 0.5, 0.5, 0.5])


@given(tree=tree_arrays(num_states=3))
@settings(max_examples=100, deadline=None)
def test_graph_weights_equal_the_linear_system(tree):
    weights, live = step_weights(tree, "graph"), (tree.leaf_counts > 0) & ~tree.is_root
    for t in range(tree.num_trees):
        steps = np.flatnonzero(live & (tree.tree_ids == t))
        left, after = tree.state_ids[tree.parents[steps]], tree.state_ids[steps]
        draws, flow, starts = np.bincount(left, minlength=3), np.eye(3), np.zeros(3)
        for step, s, s2 in zip(steps, left, after, strict=True):
            if not tree.is_leaf[step]:
                flow[s2, s] -= 1 / draws[s]
            starts[s] += tree.is_root[tree.parents[step]]
        visits = np.linalg.solve(flow, starts)
        np.testing.assert_allclose(weights[steps], visits[left] / draws[left], atol=1e-8)


@given(tree=tree_arrays())
@settings(max_examples=40, deadline=None)
def test_by_graph_trajectories_weigh_as_by_occupancy(tree):
    for estimator in (rloo_advantages, vine_ppo_advantages, partial(dr_grpo_advantages)):
        left, right = estimator(tree, weights="graph"), estimator(tree)
        np.testing.assert_allclose(left.advantages, right.advantages, atol=1e-9)


@given(tree=tree_arrays(num_states=0))
@settings(max_examples=60, deadline=None)
def test_graph_weights_are_occupancy_where_nothing_merges(tree):
    np.testing.assert_allclose(step_weights(tree, "graph"), step_weights(tree), atol=1e-9)


# Every tree of a tiny problem, with its probability. States: 0 at first, then 1 or 2 (by action, with noise), then the
# end with a reward that depends on state and action; an episode may also end after one step.
POLICY = {0: (0.3, 0.7), 1: (0.6, 0.4), 2: (0.5, 0.5)}
MOVES = {  # (state, action) -> [(probability, next state or None, reward)]
    (0, 0): [(0.75, 1, 0.0), (0.25, None, 0.5)],
    (0, 1): [(0.5, 2, 0.25), (0.5, 1, 0.0)],
    (1, 0): [(1.0, None, 1.0)],
    (1, 1): [(1.0, None, 0.0)],
    (2, 0): [(0.5, None, 1.0), (0.5, None, 0.0)],
    (2, 1): [(1.0, None, 0.25)],
}


def episodes(state):
    """Every way to go on from a state, as (probability, [(state left, action, reward, next state)])."""
    for action in (0, 1):
        for chance, after, reward in MOVES[state, action]:
            rest = [(1.0, [])] if after is None else episodes(after)
            for odds, steps in rest:
                yield POLICY[state][action] * chance * odds, [(state, action, reward, after), *steps]


def exact_gradient():
    gradient = np.zeros((3, 2))
    for chance, steps in episodes(0):
        total = sum(reward for _, _, reward, _ in steps)
        gradient += chance * total * score(steps)
    return gradient


def score(steps):
    """Gradient of the log-probability of some steps in the logits of the policy."""
    out = np.zeros((3, 2))
    for state, action, *_ in steps:
        out[state] -= POLICY[state]
        out[state, action] += 1
    return out


def tree_of(chains, forks):
    """Arrays of chains from one root, and of continuations `(chain, steps to keep, [tails])`; and every step."""
    parents, rewards, states, actions, left = [-1], [0.0], [0], [-1], [0]

    def grow(above, steps):
        nodes = []
        for state, action, reward, after in steps:
            parents.append(above)
            rewards.append(reward)
            states.append(9 if after is None else after)
            actions.append(action)
            left.append(state)
            above = len(parents) - 1
            nodes.append(above)
        return nodes

    grown = [grow(0, chain) for chain in chains]
    for chain, keep, tails in forks:
        for tail in tails:
            grow(grown[chain][keep - 1], tail)
    return TreeArrays.build(parents, rewards, state_ids=states, action_ids=actions), np.array(left), np.array(actions)


def expected_update(estimator, choose, *, chains=2, weights="occupancy"):
    """Sums the update over all trees: `choose(chain)` says how many continuations follow its first step."""
    total = np.zeros((3, 2))
    for drawn in itertools.product(list(episodes(0)), repeat=chains):
        chance = np.prod([p for p, _ in drawn])
        forks = [(i, choose(steps), steps[0][3]) for i, (_, steps) in enumerate(drawn)]
        forks = [(i, count, state) for i, count, state in forks if count and state is not None]
        tails = [itertools.product(list(episodes(state)), repeat=count) for _, count, state in forks]
        for combination in itertools.product(*tails):
            odds = chance * np.prod([p for group in combination for p, _ in group])
            grown = [(i, 1, [t for _, t in g]) for (i, _, _), g in zip(forks, combination, strict=True)]
            tree, left, actions = tree_of([steps for _, steps in drawn], grown)
            credit = estimator(tree, weights=weights).advantages * step_weights(tree, weights)
            for node in range(1, len(tree)):
                total[left[node]] -= odds * credit[node] * np.array(POLICY[left[node]])
                total[left[node], actions[node]] += odds * credit[node]
    return total / chains


def never(_):
    return 0


def after_state_one(steps):
    return 2 if steps[0][3] == 1 else 0


def after_action(steps):
    return 1 + steps[0][1]


UNSEEN = {"never": never, "after_state_one": after_state_one, "after_action": after_action}
EXACT = {
    "rloo": rloo_advantages,
    "step_reward": partial(step_reward_advantages, scale=False),
    "vine_ppo": vine_ppo_advantages,
    "rtmc_others": partial(rtmc_advantages, discount=1.0, baseline="others"),
}


@pytest.mark.parametrize("choose", UNSEEN)
@pytest.mark.parametrize("name", EXACT)
def test_the_update_is_exact_in_expectation(name, choose):
    np.testing.assert_allclose(expected_update(EXACT[name], UNSEEN[choose]), exact_gradient(), atol=1e-12)


@pytest.mark.parametrize("estimator", [dr_grpo_advantages, reinforce_advantages])
def test_a_mean_that_holds_the_trajectory_itself_shrinks_the_update(estimator):
    np.testing.assert_allclose(expected_update(estimator, never), exact_gradient() * (1 - 1 / 2), atol=1e-12)
    # With forks by a factor of each step: a trunk's own branch is half of the mean, a tail's own share a quarter.
    update, exact = expected_update(estimator, after_state_one), exact_gradient()
    assert not np.allclose(update / exact, 1 / 2)
    inside = (update / exact)[np.abs(exact) > 1e-9]
    assert ((inside > 0.3) & (inside < 1)).all()


@pytest.mark.parametrize("weights", ["counts", "unique"])
def test_other_weights_are_biased_where_there_are_forks(weights):
    update, exact = expected_update(rloo_advantages, after_state_one, weights=weights), exact_gradient()
    cosine = (update * exact).sum() / np.linalg.norm(update) / np.linalg.norm(exact)
    assert cosine < 0.995
    np.testing.assert_allclose(expected_update(rloo_advantages, never, weights=weights), exact, atol=1e-12)


def failed(steps):
    return 2 if sum(reward for _, _, reward, _ in steps) < 0.5 else 0


def test_a_choice_that_saw_the_outcome_adds_its_covariance():
    """The bias is what `occupancy_weights` says: the covariance of 1 / children with what the first child saw."""
    truth = dict.fromkeys(MOVES, 0.0)
    for s in (2, 1, 0):
        for a in (0, 1):
            truth[s, a] = sum(p * (r + (0 if t is None else value(t, truth))) for p, t, r in MOVES[s, a])

    def perfect(tree, weights):
        del weights
        left = tree.state_ids[np.maximum(tree.parents, 0)]
        credit = [0.0] + [truth[s, a] - value(s, truth) for s, a in zip(left[1:], tree.action_ids[1:], strict=True)]
        return type("Credit", (), {"advantages": np.array(credit)})()

    bias = defaultdict(float)
    for chance, steps in episodes(0):
        share = 1 / (1 + failed(steps))
        for state, action, *_ in steps[1:]:
            for a in (0, 1):
                moved = (truth[state, action] - value(state, truth)) * ((a == action) - POLICY[state][a])
                prefix = steps[0][1], steps[0][3]
                bias[prefix, state, a, "x"] += chance * moved
                bias[prefix, state, a, "xy"] += chance * moved * share
        bias["mass", (steps[0][1], steps[0][3])] += chance
        bias["share", (steps[0][1], steps[0][3])] += chance * share
    covariance = np.zeros((3, 2))
    for key, product in list(bias.items()):
        if key[-1] == "xy":
            prefix, state, a, _ = key
            mass = bias["mass", prefix]
            covariance[state, a] += product - bias[prefix, state, a, "x"] * bias["share", prefix] / mass
    assert np.abs(covariance).max() > 0.005
    update = expected_update(perfect, failed, chains=1)
    np.testing.assert_allclose(update, exact_gradient() + covariance, atol=1e-12)


def value(state, truth):
    return sum(p * truth[state, a] for a, p in enumerate(POLICY[state]))


@given(tree=tree_arrays(num_states=2, num_actions=2), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_pooling_equal_steps_with_the_trained_weights_moves_no_gradient(tree, seed):
    """Steps that are equal have equal gradients: averaging among them with their weights changes no update."""
    weights = np.random.default_rng(seed).random(len(tree))
    for kind in ("occupancy", "counts", "unique", weights):
        own = step_weights(tree, kind)
        plain, pooled = grpo_advantages(tree, weights=kind), salt_advantages(tree, weights=kind)
        keys = [
            (int(tree.tree_ids[i]), int(tree.state_ids[max(tree.parents[i], 0)]), int(tree.action_ids[i]))
            for i in range(len(tree))
        ]
        sums = defaultdict(lambda: np.zeros(2))
        for i in np.flatnonzero(~tree.is_root):
            sums[keys[i]] += own[i] * np.array([plain.advantages[i], pooled.advantages[i]])
        for before, after in sums.values():
            assert after == pytest.approx(before, abs=1e-9)


@given(tree=tree_arrays(num_states=2, num_actions=2), scale=st.sampled_from([0.5, 3.0, 1e6]))
@settings(max_examples=40, deadline=None)
def test_only_ratios_of_weights_matter_where_there_is_no_prior(tree, scale):
    own = step_weights(tree)
    for estimator in (rloo_advantages, grpo_advantages, partial(rtmc_advantages, prior_count=0.0), vine_ppo_advantages):
        left, right = estimator(tree, weights=own), estimator(tree, weights=own * scale)
        np.testing.assert_allclose(left.advantages, right.advantages, atol=1e-7)


def test_an_estimator_pools_with_the_weights_of_the_loss_unless_it_was_told_otherwise():
    from functools import partial

    from agentenv.credit import pkpo_advantages, rtmc_advantages
    from agentenv.credit.weights import pool_with

    assert pool_with(rtmc_advantages, "counts").keywords == {"weights": "counts"}  # pyright: ignore[reportFunctionMemberAccess]
    assert pool_with(rtmc_advantages, "occupancy") is rtmc_advantages
    told = partial(rtmc_advantages, weights="unique")
    assert pool_with(told, "counts") is told
    assert pool_with(pkpo_advantages, "counts") is pkpo_advantages
