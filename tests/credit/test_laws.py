"""Laws that hold for every tree: Hypothesis looks for a counterexample."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import copies, drop_invalid, reorder, tree_arrays

from agentenv.credit import (
    dr_grpo_advantages,
    gigpo_advantages,
    grpo_advantages,
    passk_advantages,
    passk_training_advantages,
    passk_values,
    pkpo_advantages,
    reachability_advantages,
    reinforce_advantages,
    rloo_advantages,
    rtmc_advantages,
    salt_advantages,
    step_reward_advantages,
    tree_grpo_advantages,
    tree_rl_advantages,
    vine_ppo_advantages,
)

BY_TRAJECTORY = {
    "dr_grpo": dr_grpo_advantages,
    "grpo": grpo_advantages,
    "rloo": rloo_advantages,
    "reinforce": lambda tree: reinforce_advantages(tree, discount=0.9),
    "step_reward": lambda tree: step_reward_advantages(tree, discount=0.9),
    "gigpo": gigpo_advantages,
    "gigpo_scaled_steps": lambda tree: gigpo_advantages(tree, scale=True, episode_mean="steps"),
    "pkpo": lambda tree: pkpo_advantages(tree, k=1),
    "passk_training": lambda tree: passk_training_advantages(tree, k=1),
}
BY_SIGNATURE = {
    "rtmc": rtmc_advantages,
    "rtmc_discounted_prior": lambda tree: rtmc_advantages(tree, prior_mean="discounted"),
    "rtmc_graph": lambda tree: rtmc_advantages(tree, values="graph", prior_count=0.5),
    "rtmc_normalized": lambda tree: rtmc_advantages(tree, normalize=True),
    "salt": salt_advantages,
    "reachability": reachability_advantages,
    "passk_merged": lambda tree: passk_advantages(tree, merge=True, prior_count=1.0),
}
BY_NODE = {
    "passk": passk_advantages,
    "passk_unbiased": lambda tree: passk_advantages(tree, unbiased=True, k=2),
    "passk_inf": lambda tree: passk_advantages(tree, k=np.inf),
    "tree_grpo": tree_grpo_advantages,
    "tree_rl": tree_rl_advantages,
    "vine_ppo": lambda tree: vine_ppo_advantages(tree, discount=0.9),
    "vine_ppo_children": lambda tree: vine_ppo_advantages(tree, weighting="children"),
}
ALL = BY_TRAJECTORY | BY_SIGNATURE | BY_NODE
FIELDS = ("advantages", "values", "action_values", "counts")


def same(left, right, **tolerance):
    for field in FIELDS:
        np.testing.assert_allclose(getattr(left, field), getattr(right, field), atol=1e-9, err_msg=field, **tolerance)


def take(result, index):
    return type(result)(*(getattr(result, field)[index] for field in FIELDS))


@pytest.mark.parametrize("name", ALL)
@given(tree=tree_arrays(), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_order_of_rollouts_changes_nothing(name, tree, seed):
    shuffled, source = reorder(tree, np.random.default_rng(seed))
    same(ALL[name](shuffled), take(ALL[name](tree), source))


@pytest.mark.parametrize("name", ALL)
@given(tree=tree_arrays())
@settings(max_examples=25, deadline=None)
def test_broken_rollouts_change_nobody_elses_credit(name, tree):
    smaller, kept = drop_invalid(tree)
    assume(set(smaller.tree_ids[~smaller.is_root]) == set(range(tree.num_trees)))
    result = ALL[name](tree)
    same(ALL[name](smaller), take(result, kept))
    gone = tree.leaf_counts == 0
    assert not result.advantages[gone].any()
    assert not result.counts[gone].any()


@pytest.mark.parametrize("name", BY_SIGNATURE)
@given(tree=tree_arrays())
@settings(max_examples=40, deadline=None)
def test_splitting_a_trunk_changes_no_step(name, tree):
    chains, source = copies(tree)
    left, right = BY_SIGNATURE[name](chains), take(BY_SIGNATURE[name](tree), source)
    counted = chains.leaf_counts > 0  # a trunk's copies on broken rollouts carry no credit
    np.testing.assert_allclose(left.advantages[counted], right.advantages[counted], atol=1e-9)
    np.testing.assert_allclose(left.values[counted], right.values[counted], atol=1e-9)


@pytest.mark.parametrize("name", BY_TRAJECTORY | BY_SIGNATURE)
@given(tree=tree_arrays())
@settings(max_examples=40, deadline=None)
def test_splitting_a_trunk_changes_no_sum_over_rollouts(name, tree):
    chains, source = copies(tree)
    merged, split = ALL[name](tree), ALL[name](chains)
    total = np.bincount(source, split.advantages * split.counts, minlength=len(tree))
    np.testing.assert_allclose(total, merged.advantages * merged.counts, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
@given(tree=tree_arrays(outcomes=True))
@settings(max_examples=25, deadline=None)
def test_groups_where_all_fail_give_exactly_zero(name, tree):
    won = np.bincount(tree.tree_ids, tree.rewards, tree.num_trees) > 0
    result = ALL[name](tree)
    assert not result.advantages[~won[tree.tree_ids]].any()


@pytest.mark.parametrize("name", ALL)
@given(tree=tree_arrays())
@settings(max_examples=15, deadline=None)
def test_counts_are_the_valid_leaves_below(name, tree):
    expected = np.zeros(len(tree), dtype=np.int64)
    for leaf in np.flatnonzero(tree.is_leaf & tree.valid & ~tree.is_root):
        node = leaf
        while node != -1:
            expected[node] += 1
            node = tree.parents[node]
    expected[tree.is_root] = 0
    result = ALL[name](tree)
    assert result.counts.tolist() == expected.tolist()
    assert result.counts.dtype == np.int64
    for field in FIELDS:
        assert getattr(result, field).shape == (len(tree),)
        assert not getattr(result, field)[tree.is_root].any()
        assert np.isfinite(getattr(result, field)).all()


@given(tree=tree_arrays(outcomes=True), k=st.sampled_from([1, 2.5, 4, 128, np.inf]), merge=st.booleans())
@settings(max_examples=60, deadline=None)
def test_passk_credit_telescopes_to_outcome_minus_root_value(tree, k, merge):
    result = passk_advantages(tree, k=k, merge=merge, prior_count=0.5)
    for leaf in np.flatnonzero(tree.is_trajectory):
        total, node, first = 0.0, leaf, leaf
        while tree.parents[node] != -1:
            total, first, node = total + result.advantages[node], node, tree.parents[node]
        assert total == pytest.approx(tree.rewards[leaf] - result.values[first], abs=1e-9)


@given(tree=tree_arrays(outcomes=True))
@settings(max_examples=60, deadline=None)
def test_reachability_is_the_limit_of_passk(tree):
    limit = passk_advantages(tree, k=np.inf)
    np.testing.assert_allclose(passk_advantages(tree, k=1e6).advantages, limit.advantages, atol=1e-9)
    own = np.arange(len(tree))
    same(reachability_advantages(tree, state_ids=own), limit)
    assert set(limit.advantages.tolist()) <= {0.0, -1.0}


@given(tree=tree_arrays(outcomes=True, invalid=False, num_states=0, num_actions=0))
@settings(max_examples=40, deadline=None)
def test_special_cases_agree(tree):
    # Every node a state of its own: RTMC without prior is the Monte Carlo value difference of VinePPO.
    vine = vine_ppo_advantages(tree)
    same(rtmc_advantages(tree, discount=1.0, prior_count=0.0), vine)
    same(rtmc_advantages(tree, discount=1.0, prior_count=0.0, values="graph"), vine)
    same(passk_advantages(tree, k=1), vine)
    same(reinforce_advantages(tree), dr_grpo_advantages(tree))


@given(tree=tree_arrays(max_steps=8, outcomes=True, forks=False))
@settings(max_examples=40, deadline=None)
def test_discounted_prior_never_flips_the_sign_of_a_lone_success(tree):
    own = np.arange(len(tree))
    ids = np.where(tree.is_root, 0, own)
    result = rtmc_advantages(tree, discount=0.5, prior_mean="discounted", state_ids=ids, action_ids=own)
    deep = (tree.depths > 1) & (tree.leaf_counts == 1)
    for node in np.flatnonzero(deep):
        leaf = node
        while not tree.is_leaf[leaf]:
            leaf = int(np.flatnonzero(tree.parents == leaf)[0])
        assert result.advantages[node] >= 0 if tree.rewards[leaf] else result.advantages[node] <= 0


@given(p=st.floats(0, 1), k=st.floats(1, 1e6))
def test_passk_values_are_between_p_and_one(p, k):
    value = float(passk_values(p, k))
    assert p <= value * (1 + 1e-12) + 1e-300
    assert value <= 1
