"""Laws that hold for every tree: Hypothesis looks for a counterexample."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import copies, doubled, drop_invalid, reorder, tree_arrays

from agentenv.credit import (
    crbc_advantages,
    dr_grpo_advantages,
    gigpo_advantages,
    grpo_advantages,
    passk_advantages,
    passk_training_advantages,
    pkpo_advantages,
    reachability_advantages,
    reinforce_advantages,
    rloo_advantages,
    rtmc_advantages,
    salt_advantages,
    step_reward_advantages,
    step_weights,
    tree_grpo_advantages,
    tree_rl_advantages,
    vine_ppo_advantages,
)
from agentenv.credit.passk_tree import passk_values

BY_TRAJECTORY = {
    "dr_grpo": dr_grpo_advantages,
    "grpo": grpo_advantages,
    "reinforce": partial(reinforce_advantages, discount=0.9),
    "gigpo": gigpo_advantages,
    "crbc": crbc_advantages,
    "gigpo_scaled_steps": partial(gigpo_advantages, scale=True, episode_mean="steps"),
    "pkpo": partial(pkpo_advantages, k=1),
    "passk_training": partial(passk_training_advantages, k=1),
}
BY_SIGNATURE = {
    "rtmc": rtmc_advantages,
    "rtmc_discounted_prior": partial(rtmc_advantages, prior_mean="discounted"),
    "rtmc_graph": partial(rtmc_advantages, values="graph", prior_count=0.5),
    "rtmc_normalized": partial(rtmc_advantages, normalize=True),
    "salt": salt_advantages,
    "crbc_closure": partial(crbc_advantages, episode_weight=0.0),
    "crbc_depth": partial(crbc_advantages, episode_weight=0.0, depth=2, discount=0.9),
    "reachability": reachability_advantages,
    "passk_merged": partial(passk_advantages, merge=True, prior_count=1.0),
}
BY_BRANCH = {
    "rloo": rloo_advantages,
    "step_reward": partial(step_reward_advantages, discount=0.9),
    "vine_ppo": partial(vine_ppo_advantages, discount=0.9),
    "rtmc_others": partial(rtmc_advantages, baseline="others"),
}
BY_NODE = {
    "passk": passk_advantages,
    "passk_unbiased": partial(passk_advantages, unbiased=True, k=2),
    "passk_inf": partial(passk_advantages, k=np.inf),
    "tree_grpo": tree_grpo_advantages,
    "tree_rl": tree_rl_advantages,
    "vine_ppo_parent": partial(vine_ppo_advantages, baseline="parent"),
}
ALL: dict[str, Any] = BY_TRAJECTORY | BY_SIGNATURE | BY_BRANCH | BY_NODE
WEIGHTLESS = {"pkpo", "passk_training", "reachability"}  # they count every leaf once, or only ask what was seen
COUNTED = {name: f if name in WEIGHTLESS else partial(f, weights="counts") for name, f in ALL.items()}
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
    left, right = COUNTED[name](chains), take(COUNTED[name](tree), source)
    counted = chains.leaf_counts > 0  # a trunk's copies on broken rollouts carry no credit
    np.testing.assert_allclose(left.advantages[counted], right.advantages[counted], atol=1e-9)
    np.testing.assert_allclose(left.values[counted], right.values[counted], atol=1e-9)


@pytest.mark.parametrize("name", BY_TRAJECTORY | BY_SIGNATURE)
@given(tree=tree_arrays())
@settings(max_examples=40, deadline=None)
def test_splitting_a_trunk_changes_no_sum_over_rollouts(name, tree):
    chains, source = copies(tree)
    merged, split = COUNTED[name](tree), COUNTED[name](chains)
    total = np.bincount(source, split.advantages * split.counts, minlength=len(tree))
    np.testing.assert_allclose(total, merged.advantages * merged.counts, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
@given(tree=tree_arrays(outcomes=True))
@settings(max_examples=25, deadline=None)
def test_groups_where_all_fail_give_exactly_zero(name, tree):
    won = np.bincount(tree.tree_ids, tree.rewards, tree.num_trees) > 0
    result = ALL[name](tree)
    assert not result.advantages[~won[tree.tree_ids]].any()


LINEAR = sorted(
    {
        "dr_grpo",
        "reinforce",
        "gigpo",
        "rtmc",
        "rtmc_graph",
        "rtmc_others",
        "rloo",
        "vine_ppo",
        "vine_ppo_parent",
        "tree_rl",
    }
    | {"rtmc_discounted_prior", "pkpo"}
)


@pytest.mark.parametrize("name", LINEAR)
@given(tree=tree_arrays(), factor=st.sampled_from([1e-12, 1e-3, 1e9]))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_rewards_is_the_unit_of_credit(name, tree, factor):
    """Rewards of a millionth are told apart as well as rewards of 1: no tolerance is absolute."""
    left, right = ALL[name](replace(tree, rewards=factor * tree.rewards)), ALL[name](tree)
    for field in ("advantages", "values", "action_values"):
        np.testing.assert_allclose(getattr(left, field) / factor, getattr(right, field), atol=1e-9, err_msg=field)


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
    vine = vine_ppo_advantages(tree, baseline="parent")
    same(rtmc_advantages(tree, discount=1.0, prior_count=0.0), vine)
    same(rtmc_advantages(tree, discount=1.0, prior_count=0.0, values="graph"), vine)
    same(passk_advantages(tree, k=1), vine)
    same(reinforce_advantages(tree), dr_grpo_advantages(tree))


@given(tree=tree_arrays(outcomes=True, invalid=False, forks=False))
@settings(max_examples=40, deadline=None)
def test_without_forks_every_weight_is_one_and_vine_is_rloo(tree):
    inner = ~tree.is_root
    for weights in ("occupancy", "graph", "counts", "unique"):
        assert (step_weights(tree, weights)[inner] == 1).all()
    vine, rloo = vine_ppo_advantages(tree), rloo_advantages(tree)
    lone = np.bincount(tree.tree_ids[tree.depths == 1], minlength=tree.num_trees)[tree.tree_ids] == 1
    np.testing.assert_allclose(vine.advantages, rloo.advantages, atol=1e-9)
    assert not rloo.advantages[lone].any()


@pytest.mark.parametrize("name", sorted(set(ALL) - WEIGHTLESS))
@given(tree=tree_arrays())
@settings(max_examples=15, deadline=None)
def test_a_name_of_weights_and_its_numbers_are_the_same(name, tree):
    for weights in ("occupancy", "counts", "unique"):
        same(ALL[name](tree, weights=weights), ALL[name](tree, weights=step_weights(tree, weights)))


@pytest.mark.parametrize("name", sorted(set(ALL) - WEIGHTLESS - {"vine_ppo"}))
@given(tree=tree_arrays(num_states=3, num_actions=0), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_asking_again_and_hearing_the_same_changes_nothing_by_occupancy(name, tree, seed):
    """Every child of one node twice: the forks say nothing new, so no mean moves. Deviations do: more samples."""
    inner = np.flatnonzero(~tree.is_root & ~tree.is_leaf)
    assume(len(inner) > 0)
    grown, source = doubled(tree, int(np.random.default_rng(seed).choice(inner)))
    options = {"gigpo_scaled_steps": {"scale": False}, "tree_rl": {"weighted": False}, "grpo": {"ddof": 0}}
    options |= {"salt": {"ddof": 0}, "passk_unbiased": {"unbiased": False}}
    if name in {"tree_grpo", "crbc"}:
        return  # sample deviations only
    estimator = partial(ALL[name], **options.get(name, {}))
    left, right = estimator(grown), take(estimator(tree), source)
    np.testing.assert_allclose(left.advantages, right.advantages, atol=1e-9)
    np.testing.assert_allclose(left.values, right.values, atol=1e-9)


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
