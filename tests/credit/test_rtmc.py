"""RTMC: worked numbers, brute force, and the effect of every option."""

import math
from collections import defaultdict

import numpy as np
import pytest

from agentenv.arrays import TreeArrays, number_signatures
from agentenv.credit import rtmc_advantages, rtmc_visits


def chains(rollouts, rewards):
    """One tree: rollouts given as lists of (state, action), all from the state of the first, reward at the end."""
    parents, states, actions, step_rewards = [-1], [rollouts[0][0][0]], [None], [0.0]
    for rollout, reward in zip(rollouts, rewards, strict=True):
        above = 0
        for t, (_, action) in enumerate(rollout):
            last = t + 1 == len(rollout)
            parents.append(above)
            above = len(parents) - 1
            states.append("end" if last else rollout[t + 1][0])
            actions.append(action)
            step_rewards.append(reward if last else 0.0)
    zeros = np.zeros(len(parents), dtype=np.int64)
    return TreeArrays.build(
        parents, step_rewards, state_ids=number_signatures(zeros, states), action_ids=number_signatures(zeros, actions)
    )


GROUP = [
    [("s0", "view"), ("s1", "editA"), ("s2", "test")],
    [("s0", "view"), ("s1", "editA"), ("s2", "test")],
    [("s0", "view"), ("s1", "editB"), ("s3", "test")],
    [("s0", "search"), ("s4", "editB"), ("s5", "test")],
]


@pytest.mark.parametrize(
    ("discount", "prior_count", "expected"),
    [
        (1.0, 2.0, [[1 / 6, 0.4, 0.25]] * 2 + [[1 / 6, -0.6, -1 / 3], [-0.5, -1 / 3, -1 / 3]]),
        (0.99, 2.0, [[0.1600, 0.394, 0.25]] * 2 + [[0.1600, -0.596, -1 / 3], [-0.4934, -1 / 3, -1 / 3]]),
        (1.0, 0.0, [[1 / 6, 1 / 3, 0]] * 2 + [[1 / 6, -2 / 3, 0], [-0.5, 0, 0]]),
    ],
)
def test_worked_example(discount, prior_count, expected):
    result = rtmc_advantages(chains(GROUP, [1, 1, 0, 0]), discount=discount, prior_count=prior_count)
    np.testing.assert_allclose(result.advantages[1:].reshape(4, 3), expected, atol=6e-5)
    np.testing.assert_allclose(result.action_values - result.values, result.advantages, atol=1e-12)
    assert result.counts.tolist() == [0] + [1] * 12


def test_two_one_step_rollouts():
    result = rtmc_advantages(chains([[("", "A")], [("", "B")]], [1, 0]), discount=1.0)
    assert result.advantages.tolist() == [0, 0.5, -0.5]


def test_prior_weight_at_a_singleton_is_two_thirds():
    rollouts = [[("s", f"a{i}"), (f"t{i}", "x")] for i in range(4)]
    result = rtmc_advantages(chains(rollouts, [1, 0, 0, 0]), discount=1.0, prior_count=2.0)
    last = result.advantages[1:].reshape(4, 2)[:, 1]
    np.testing.assert_allclose(last, 2 / 3 * (np.array([1, 0, 0, 0]) - 0.25))


def test_all_success_example_of_the_notes():
    rollout = [(f"s{t}", "a") for t in range(50)]
    result = rtmc_advantages(chains([rollout] * 8, [1] * 8), discount=0.99)
    advantages = result.advantages[1:].reshape(8, 50)[0]
    assert advantages[0] == pytest.approx(-0.078, abs=5e-4)
    assert advantages[-1] == 0


@pytest.mark.parametrize(("rate", "turns"), [((7, 1), 14), ((3, 1), 29), ((1, 1), 69), ((1, 3), 138)])
def test_sign_flips_on_long_successes_unless_the_prior_is_discounted(rate, turns):
    wins, losses = rate
    length = 220
    rollouts = [[("s0", f"r{i}")] + [(f"s{i}.{t}", "a") for t in range(1, length)] for i in range(wins + losses)]
    tree = chains(rollouts, [1] * wins + [0] * losses)
    paper = rtmc_advantages(tree, discount=0.99).advantages[1:].reshape(-1, length)[0]
    negative = np.flatnonzero(paper[1:] < 0) + 1
    assert length - 1 - negative.max() == turns  # the first turn, counted from the end, with 0.99**turns < rate
    repaired = rtmc_advantages(tree, discount=0.99, prior_mean="discounted").advantages[1:].reshape(-1, length)
    assert (repaired[:wins] >= 0).all()
    assert (repaired[wins:] <= 0).all()


def brute_force(rollouts, rewards, discount, prior_count):
    """The paper's dictionaries, one rollout after another."""
    returns, pair_returns, first = [], defaultdict(list), None
    for rollout, reward in zip(rollouts, rewards, strict=True):
        seen = set()
        for t, pair in enumerate(rollout):
            if pair not in seen:
                seen.add(pair)
                pair_returns[pair].append(discount ** (len(rollout) - 1 - t) * reward)
    state_returns = defaultdict(list)
    for (state, _), values in pair_returns.items():
        state_returns[state] += values
    prior = sum(rewards) / len(rewards)
    for rollout in rollouts:
        first = []
        for state, action in rollout:
            q = sum(pair_returns[state, action]) / len(pair_returns[state, action])
            total, count = sum(state_returns[state]), len(state_returns[state])
            first.append(q - (total + prior_count * prior) / (count + prior_count))
        returns.append(first)
    return returns


@pytest.mark.parametrize("seed", range(20))
def test_brute_force_with_revisits(seed):
    rng = np.random.default_rng(seed)
    rollouts = [
        [("s0", int(rng.integers(2)))] + [(f"s{rng.integers(3)}", int(rng.integers(2))) for _ in range(rng.integers(6))]
        for _ in range(6)
    ]
    rewards = rng.integers(0, 2, 6).astype(float)
    result = rtmc_advantages(chains(rollouts, rewards), discount=0.9, prior_count=1.5)
    expected = [a for rollout in brute_force(rollouts, rewards, 0.9, 1.5) for a in rollout]
    np.testing.assert_allclose(result.advantages[1:], expected, atol=1e-12)


def test_graph_values_bootstrap_through_a_shared_state():
    # Two rollouts meet in m: one fails after it, one succeeds. Bootstrapping says that both first actions are equal.
    rollouts = [[("s", "a"), ("m", "x")], [("s", "b"), ("m", "y")]]
    tree = chains(rollouts, [1, 0])
    monte_carlo = rtmc_advantages(tree, discount=1.0, prior_count=0.0).advantages
    graph = rtmc_advantages(tree, discount=1.0, prior_count=0.0, values="graph").advantages
    np.testing.assert_allclose(monte_carlo[[1, 3]], [0.5, -0.5])
    np.testing.assert_allclose(graph[[1, 3]], [0, 0], atol=1e-9)
    np.testing.assert_allclose(graph[[2, 4]], [0.5, -0.5])


def test_graph_values_with_a_long_cycle_match_the_linear_system():
    # s -> s many times, then out: V = r / leaving share, needs the factorization.
    rollout = [("s", "stay")] * 400 + [("s", "go")]
    tree = chains([rollout], [1])
    result = rtmc_advantages(tree, discount=1.0, prior_count=0.0, values="graph")
    np.testing.assert_allclose(result.values[1:], 1.0, atol=1e-6)
    discounted = rtmc_advantages(tree, discount=0.999, prior_count=0.0, values="graph")
    share = 1 / 401
    np.testing.assert_allclose(discounted.values[1:], share / (1 - 0.999 * (1 - share)), rtol=1e-6)


def test_normalize_divides_by_the_population_deviation_without_centering():
    tree = chains(GROUP, [1, 1, 0, 0])
    plain, scaled = rtmc_advantages(tree), rtmc_advantages(tree, normalize=True)
    np.testing.assert_allclose(scaled.advantages, plain.advantages / plain.advantages[1:].std())


def test_a_baseline_of_others_leaves_the_branch_out():
    result = rtmc_advantages(chains(GROUP, [1, 1, 0, 0]), discount=1.0, prior_count=2.0, baseline="others")
    # Third rollout: at s0 the others returned 1, 1, 0 and v0 is 2/3; at s1 1, 1; at s3 nobody was.
    values = result.values[1:].reshape(4, 3)
    np.testing.assert_allclose(values[2], [(2 + 2 * 2 / 3) / 5, (2 + 2 * 2 / 3) / 4, 2 / 3])
    np.testing.assert_allclose(values[3], [(2 + 2 * 2 / 3) / 5, 2 / 3, 2 / 3])
    np.testing.assert_allclose(result.action_values[1:].reshape(4, 3)[2], [2 / 3, 0, 0])


def test_ids_of_the_caller_replace_signatures():
    tree = chains(GROUP, [1, 1, 0, 0])
    clusters = np.where(tree.state_ids == tree.state_ids[9], tree.state_ids[3], tree.state_ids)
    assert rtmc_visits(tree).state[6] == 2
    merged = rtmc_visits(tree, state_ids=clusters)
    assert merged.state.max() >= rtmc_visits(tree).state.max()
    with pytest.raises(ValueError, match=r"state_ids must have shape \[N\] = \[13\]"):
        rtmc_advantages(tree, state_ids=[0, 1])
    with pytest.raises(ValueError, match="action_ids must be integers"):
        rtmc_advantages(tree, action_ids=np.zeros(13))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 1.5}, r"discount must be in \[0, 1\], got 1.5"),
        ({"discount": math.nan}, "discount must be in"),
        ({"prior_count": -1}, "prior_count must be at least 0"),
        ({"prior_mean": "median"}, "prior_mean must be one of 'return', 'discounted', got 'median'"),
        ({"values": "td"}, "values must be one of"),
        ({"baseline": "none"}, "baseline must be one of 'all', 'others', got 'none'"),
        ({"baseline": "others", "values": "graph"}, "baseline must be one of 'all', got 'others'"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        rtmc_advantages(chains(GROUP, [1, 1, 0, 0]), **options)


def test_refuses_trees_without_a_leaf():
    with pytest.raises(ValueError, match="tree must have a leaf"):
        rtmc_advantages(TreeArrays.build([-1], [0]))
    with pytest.raises(ValueError, match="tree must have a leaf"):
        rtmc_advantages(TreeArrays.build([-1, 0, -1], [0, 1, 0], tree_ids=[0, 0, 1]))
