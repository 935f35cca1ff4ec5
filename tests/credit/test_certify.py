"""The yardstick itself: exact values against brute force, and what certification says of known cases."""

from functools import partial

import numpy as np
import pytest

from agentenv.credit import (
    StepAdvantages,
    certify,
    dr_grpo_advantages,
    rloo_advantages,
    rtmc_advantages,
    step_reward_advantages,
    vine_ppo_advantages,
)
from agentenv.credit.certify import sample_forks, sample_random_forks
from agentenv.credit.passk_tree import passk_values
from agentenv.credit.problems import PROBLEMS
from agentenv.credit.tabular import TabularMDP


def truth_of(problem):
    advantages = problem.advantages()

    def estimator(tree):
        left = tree.state_ids[np.maximum(tree.parents, 0)]
        exact = np.where(tree.is_root, 0.0, advantages[left, np.maximum(tree.action_ids, 0)])
        return StepAdvantages(exact, exact, exact, np.where(tree.is_root, 0, tree.leaf_counts))

    return estimator


@pytest.mark.parametrize("name", PROBLEMS)
def test_exact_values_equal_simulation(name):
    problem = PROBLEMS[name]()
    sampled = problem.sample(np.random.default_rng(0), groups=1, group_size=20_000)
    tree = sampled.tree
    rate = tree.rewards.sum() / 20_000
    assert rate == pytest.approx(problem.values()[0], abs=0.015)
    assert sampled.cost / 20_000 == pytest.approx(problem.remaining[0], rel=0.02)
    visits = np.bincount(sampled.left[~tree.is_root], minlength=len(problem.rewards)) / 20_000
    np.testing.assert_allclose(visits, np.where(problem.terminal, 0, problem.occupancy), atol=0.05)


def test_exact_values_by_hand():
    # One coin: action 0 wins with 0.8, action 1 with 0.2, chosen evenly; action 1 may also return to the start.
    transitions = np.zeros((3, 2, 3))
    transitions[0, 0] = [0, 0.8, 0.2]
    transitions[0, 1] = [0.5, 0.1, 0.4]
    problem = TabularMDP(transitions, np.full((3, 2), 0.5), np.array([0, 1.0, 0]), np.array([False, True, True]))
    assert problem.values()[0] == pytest.approx(0.45 / 0.75)
    np.testing.assert_allclose(problem.action_values()[0], [0.8, 0.1 + 0.5 * 0.6])
    assert problem.passk(3)[0] == pytest.approx(1 - 0.4**3)
    assert problem.reachable().tolist() == [True, True, False]
    assert problem.values(discount=0.9)[0] == pytest.approx(0.45 / (1 - 0.9 * 0.25))


@pytest.mark.parametrize("name", PROBLEMS)
def test_reachability_is_the_limit_of_exact_passk(name):
    problem = PROBLEMS[name]()
    np.testing.assert_allclose(problem.passk(1e9), problem.reachable(), atol=1e-9)
    np.testing.assert_allclose(problem.passk(1), passk_values(problem.passk(1), 1))


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradient_equals_finite_differences(name):
    problem = PROBLEMS[name]()
    rng = np.random.default_rng(0)
    logits = np.log(np.maximum(problem.policy, 1e-12))
    gradient, direction = problem.gradient(), rng.normal(size=logits.shape)

    def value(step):
        shifted = np.exp(logits + step * direction)
        policy = np.where(problem.terminal[:, None], problem.policy, shifted / shifted.sum(1, keepdims=True))
        return TabularMDP(problem.transitions, policy, problem.rewards, problem.terminal).values()[0]

    assert (value(1e-5) - value(-1e-5)) / 2e-5 == pytest.approx((gradient * direction).sum(), abs=1e-6)


def test_the_truth_scores_perfectly():
    problem = PROBLEMS["sparse"]()
    score = certify(truth_of(problem), problem, rollouts=2048)
    assert score.bias == score.mse == score.variance == 0
    assert score.correlation == pytest.approx(1)
    assert score.sign == 1


def test_credit_that_cancels_at_every_state_and_action_is_no_update():
    """Each pair of a state and an action has credit of 0.1, 0.2 and -0.3 in turn, which floats do not sum to 0."""

    def cancelling(tree):
        left = tree.state_ids[np.maximum(tree.parents, 0)]
        credit, seen = np.zeros(len(tree)), {}
        for group in range(0, tree.num_trees, 8):  # an update
            seen.clear()
            for i in np.flatnonzero(~tree.is_root & (tree.tree_ids // 8 == group // 8)):
                seen.setdefault((left[i], tree.action_ids[i]), []).append(i)
            for steps in seen.values():
                for three in zip(*[iter(steps)] * 3, strict=False):
                    credit[list(three)] = 0.1, 0.2, -0.3
        return StepAdvantages(credit, credit, credit, np.ones(len(tree), dtype=np.int64))

    score = certify(cancelling, PROBLEMS["sparse"](), rollouts=2048, weights="unique")
    assert score.active > 0.5
    assert score.cosine == 0


def test_bias_and_variance_add_up_and_are_found():
    problem = PROBLEMS["sparse"]()
    truth, rng = truth_of(problem), np.random.default_rng(0)

    def off(tree):
        result = truth(tree)
        noisy = result.advantages + 0.1 + rng.normal(0, 0.5, len(tree))
        return StepAdvantages(np.where(tree.is_root, 0, noisy), noisy, noisy, result.counts)

    score = certify(off, problem, rollouts=8192)
    assert score.bias_low <= 0.1 <= score.bias_high
    assert score.bias == pytest.approx(0.1, abs=0.02)
    assert abs(score.mean_error - 0.1) < 2 * score.mean_error_bound
    assert score.variance == pytest.approx(0.25, rel=0.05)
    assert score.mse == pytest.approx(0.26, rel=0.05)


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("sampler", [sample_forks, partial(sample_forks, outcomes="unseen"), sample_random_forks])
def test_fork_sampling_costs_the_same_and_keeps_the_dynamics(sampler, share):
    problem = PROBLEMS["decisive"]()
    chains = problem.sample(np.random.default_rng(0), groups=200, group_size=8)
    forks = sampler(problem, np.random.default_rng(0), 200, 8, share=share)
    assert forks.cost == pytest.approx(chains.cost, rel=0.03)
    starts = np.bincount(forks.tree.tree_ids[forks.tree.depths == 1])
    assert (starts == 8 * (1 - share)).all()
    assert (np.bincount(forks.tree.parents[forks.tree.depths > 1]) > 1).sum() > 200
    steps = ~forks.tree.is_root
    assert (problem.transitions[forks.left[steps], forks.actions[steps], forks.states[steps]] > 0).all()
    assert (forks.tree.is_leaf == problem.terminal[forks.states]).all()
    with pytest.raises(ValueError, match="share must leave at least one of 8 chains, got 1"):
        sampler(problem, np.random.default_rng(0), 200, 8, share=1)


def gradient_of(problem, sampled, credit, weights):
    tree = sampled.tree
    steps = np.flatnonzero(~tree.is_root)
    size = problem.policy.shape
    taken = np.zeros(size)
    np.add.at(taken, (sampled.left[steps], sampled.actions[steps]), (weights * credit)[steps])
    return (taken - taken.sum(1, keepdims=True) * problem.policy) / tree.is_trajectory.sum()


def chatty():
    """Talk (reward 0.3 a step, up to three times) or stop; stopping succeeds or not. Intermediate rewards matter."""
    states = 6
    transitions, rewards = np.zeros((states, 2, states)), np.array([0, 0.3, 0.3, 0.3, 1.0, 0])
    for s in range(4):
        transitions[s, 0, min(s + 1, 3) if s < 3 else 5] = 1.0
        transitions[s, 1, 4], transitions[s, 1, 5] = 0.5, 0.5
    policy = np.tile([0.6, 0.4], (states, 1))
    return TabularMDP(transitions, policy, rewards, np.array([False] * 4 + [True] * 2))


def naive_step_reward(tree):
    """The construction that verl issue 7244 warns about: normalize each step's reward among those still running."""
    number = tree.tree_ids * 100 + tree.depths
    mean = np.bincount(number, tree.rewards) / np.maximum(np.bincount(number), 1)
    centered = np.where(tree.is_root, 0.0, tree.rewards - mean[number])
    for level in reversed(tree.levels[1:]):
        np.add.at(centered, tree.parents[level], centered[level])
    return np.where(tree.is_root, 0.0, centered)


@pytest.mark.parametrize("make", [chatty, PROBLEMS["sparse"], PROBLEMS["irrecoverable"]])
def test_leave_one_out_estimators_have_an_unbiased_policy_gradient(make):
    problem = make()
    exact = problem.gradient()
    for estimator in (rloo_advantages, lambda tree: step_reward_advantages(tree, scale=False)):
        parts = []
        for seed in range(30):
            sampled = problem.sample(np.random.default_rng(seed), groups=400, group_size=4)
            parts.append(gradient_of(problem, sampled, estimator(sampled.tree).advantages, sampled.tree.leaf_counts))
        error = np.mean(parts, axis=0) - exact
        bound = np.std(parts, axis=0, ddof=1) / np.sqrt(len(parts))
        assert (np.abs(error) <= 4.5 * bound + 1e-12).all()


def test_naive_normalization_per_step_is_biased_as_the_issue_says():
    problem = chatty()
    parts = []
    for seed in range(30):
        sampled = problem.sample(np.random.default_rng(seed), groups=400, group_size=16)
        parts.append(gradient_of(problem, sampled, naive_step_reward(sampled.tree), sampled.tree.leaf_counts))
    error = np.mean(parts, axis=0) - problem.gradient()
    bound = np.std(parts, axis=0, ddof=1) / np.sqrt(len(parts))
    assert error[0, 0] < -10 * bound[0, 0]  # it discourages talking on


def test_scores_weigh_steps_as_training_does():
    problem = PROBLEMS["sparse"]()
    truth = truth_of(problem)
    even = certify(truth, problem, rollouts=8192, sampler=sample_forks)
    counts = certify(truth, problem, rollouts=8192, sampler=sample_forks, weights="counts")
    assert even.direction > 0.99 > counts.direction + 0.01
    assert even.direction_bound < 0.01
    assert certify(truth, problem, rollouts=2048) == certify(truth, problem, rollouts=2048, weights="counts")
    with pytest.raises(ValueError, match="weights must be a name"):
        certify(truth, problem, weights=np.ones(3))


def test_rtmc_beats_dr_grpo_where_states_are_shared_and_graph_values_beat_both():
    problem = PROBLEMS["long"]()
    scores = [
        certify(estimator, problem, rollouts=1024)
        for estimator in (
            dr_grpo_advantages,
            rtmc_advantages,
            lambda tree: rtmc_advantages(tree, discount=1.0, prior_count=0.5, values="graph"),
        )
    ]
    assert scores[0].mse > 5 * scores[1].mse > 5 * scores[2].mse
    assert scores[0].correlation < scores[1].correlation < scores[2].correlation


def test_fork_values_are_unbiased_where_every_child_is_sampled_alike():
    # Four fresh continuations from every node of a chain: VinePPO's own design. Continuations are independent of the
    # chain, so the mean advantage at each (state, action) is the truth.
    problem = PROBLEMS["irrecoverable"]()
    errors, counts = np.zeros(problem.policy.size), np.zeros(problem.policy.size)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        chain = problem.sample(rng, groups=300, group_size=1)
        inner = np.flatnonzero(~chain.tree.is_leaf)
        grown = problem.extend(rng, chain, inner, np.full(len(inner), 4))
        result = vine_ppo_advantages(grown.tree)
        steps = np.flatnonzero(~grown.tree.is_root & (grown.tree.depths == 1))
        pairs = grown.left[steps] * problem.policy.shape[1] + grown.actions[steps]
        errors += np.bincount(pairs, result.action_values[steps] - problem.action_values().ravel()[pairs], len(errors))
        counts += np.bincount(pairs, minlength=len(counts))
    assert (np.abs(errors[counts > 500] / counts[counts > 500]) < 0.02).all()


def test_refuses_what_is_no_decision_process():
    with pytest.raises(ValueError, match="policy must hold probabilities that sum to 1"):
        TabularMDP(np.zeros((1, 1, 1)), np.array([[0.5]]), np.zeros(1), np.array([False]))
    with pytest.raises(ValueError, match=r"transitions must be \[S, A, S\]"):
        TabularMDP(np.zeros((2, 1, 1)), np.ones((2, 1)), np.zeros(2), np.array([False, True]))
