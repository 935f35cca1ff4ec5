"""The remaining baselines by hand and by loop, and bad input everywhere."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import copies, tree_arrays

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    gigpo_advantages,
    grpo_advantages,
    passk_advantages,
    reinforce_advantages,
    rloo_advantages,
    salt_advantages,
    step_reward_advantages,
    tree_grpo_advantages,
    tree_rl_advantages,
    vine_ppo_advantages,
)

# root -> a -> (win | lose), root -> b -> lose
FORK = TreeArrays.build(
    [-1, 0, 1, 1, 0, 4], [0, 0, 1, 0, 0, 0], state_ids=[0, 1, 2, 2, 1, 2], action_ids=[0, 1, 2, 3, 4, 3]
)


def test_tree_rl_by_hand():
    root, a = 1 / 3, 1 / 2
    result = tree_rl_advantages(FORK, weights="counts")
    expected = [0, 2 * (a - root) / np.sqrt(2), (1 - root) + (1 - a), -root - a, -2 * root, -root]
    np.testing.assert_allclose(result.advantages, expected)
    root = 1 / 4  # each branch of the root is one draw
    np.testing.assert_allclose(tree_rl_advantages(FORK, weighted=False).advantages[1], 2 * (a - root))


def test_vine_ppo_by_hand():
    vine = partial(vine_ppo_advantages, FORK, baseline="parent", weights="counts")
    np.testing.assert_allclose(vine().advantages, [0, 1 / 6, 1 / 2, -1 / 2, -1 / 3, 0])
    even = vine(weights="occupancy")
    np.testing.assert_allclose(even.advantages, [0, 1 / 4, 1 / 2, -1 / 2, -1 / 4, 0])
    half = vine(discount=0.5)
    np.testing.assert_allclose(half.advantages, [0, 1 / 4 - 1 / 6, 1 / 2, -1 / 2, -1 / 6, 0])
    myopic = vine(discount=0.0)
    np.testing.assert_allclose(myopic.advantages, [0, 0, 1 / 2, -1 / 2, 0, 0])


def test_vine_ppo_compares_with_what_siblings_brought():
    # a (win | lose) against b (lose); the step below b has no sibling, so it is compared with b's.
    result = vine_ppo_advantages(FORK)
    np.testing.assert_allclose(result.advantages, [0, 1 / 2 - 0, 1 - 0, 0 - 1, 0 - 1 / 2, 0 - 1 / 2])
    np.testing.assert_allclose(result.values, [0, 0, 0, 1, 1 / 2, 1 / 2])
    # Rewards on the way: a baseline from above is less what was collected since.
    paid = TreeArrays.build([-1, 0, 1, 0, 3], [0, 2, 3, 0.5, 1])
    np.testing.assert_allclose(vine_ppo_advantages(paid).advantages, [0, 5 - 1.5, 3 - (1.5 - 2), -3.5, 1 - (5 - 0.5)])
    # A chain alone has nothing to be compared with; below its fork there is.
    lone = TreeArrays.build([-1, 0, 1, 1], [0, 0, 1, 0])
    np.testing.assert_allclose(vine_ppo_advantages(lone).advantages, [0, 0, 1, -1])


def test_rloo_leaves_out_the_whole_branch():
    result = rloo_advantages(FORK)
    np.testing.assert_allclose(result.advantages, [0, 1 / 2, 1, 0, -1 / 2, -1 / 2])
    np.testing.assert_allclose(result.values, [0, 0, 0, 0, 1 / 2, 1 / 2])
    by_step = step_reward_advantages(FORK, scale=False)
    np.testing.assert_allclose(by_step.advantages, result.advantages)


def test_tree_passk_by_hand():
    v = lambda p: 1 - (1 - p) ** 4
    passk = partial(passk_advantages, FORK, weights="counts")
    result = passk(k=4)
    root, a = v(1 / 3), v(1 / 2)
    np.testing.assert_allclose(result.advantages, [0, a - root, 1 - a, -a, -root, 0])
    # Unbiased where n >= k: root 1 - C(2,2)/C(3,2), node a 1 - C(1,2)/C(2,2); b has one leaf and keeps the plug-in.
    unbiased = passk(k=2, unbiased=True)
    np.testing.assert_allclose(unbiased.advantages, [0, 1 - 2 / 3, 0, -1, -2 / 3, 0])
    # Merged: a and b are one state, with one success in three.
    even = passk_advantages(FORK, k=4)
    np.testing.assert_allclose(even.advantages, [0, a - v(1 / 4), 1 - a, -a, -v(1 / 4), 0])
    merged = passk(k=1, merge=True)
    np.testing.assert_allclose(merged.advantages, [0, 0, 2 / 3, -1 / 3, 0, -1 / 3])
    # Smoothed toward the success rate of the tree.
    smooth = passk(k=1, prior_count=1.0)
    np.testing.assert_allclose(smooth.action_values[[1, 4]], [(1 + 1 / 3) / 3, (0 + 1 / 3) / 2])
    given_p = passk_advantages(FORK, k=1, success=[0.5, 0.75, 0.1, 0.1, 0.25, 0.1])
    np.testing.assert_allclose(given_p.advantages, [0, 0.25, 0.25, -0.75, -0.25, -0.25])


def test_salt_by_hand():
    # Steps 3 and 5 are the same transition (state 1, action 3, state 2); both belong to failures.
    plain, result = grpo_advantages(FORK, weights="counts"), salt_advantages(FORK, weights="counts")
    np.testing.assert_allclose(result.advantages, plain.advantages)
    same = salt_advantages(FORK, action_ids=[0, 1, 2, 2, 4, 2], weights="counts")
    mean = plain.advantages[[2, 3, 5]].mean()
    np.testing.assert_allclose(same.advantages[[2, 3, 5]], mean, atol=1e-12)
    even, plain = salt_advantages(FORK, action_ids=[0, 1, 2, 2, 4, 2]), grpo_advantages(FORK)
    mean = plain.advantages[[2, 3, 5]] @ [1 / 4, 1 / 4, 1 / 2]
    np.testing.assert_allclose(even.advantages[[2, 3, 5]], mean, atol=1e-12)


def test_step_reward_by_hand():
    # Three chains of lengths 1, 2, 3 with a reward of 1 at each step.
    tree = TreeArrays.build([-1, 0, 0, 2, 0, 4, 5], [0, 1, 1, 1, 1, 1, 1])
    result = step_reward_advantages(tree, scale=False)
    # Returns-to-go by step: (1, -, -), (2, 1, -), (3, 2, 1); the ended count 0.
    np.testing.assert_allclose(result.advantages, [0, 1 - 2.5, 2 - 2, 1 - 1, 3 - 1.5, 2 - 0.5, 1 - 0])
    deviation = np.std([1, 2, 1, 3, 2, 1])
    scaled = step_reward_advantages(tree, epsilon=0)
    np.testing.assert_allclose(scaled.advantages, result.advantages / deviation)


def test_reinforce_by_hand():
    tree = TreeArrays.build([-1, 0, 1, 0], [0, 1, 1, 0])
    np.testing.assert_allclose(reinforce_advantages(tree, discount=0.5).advantages, [0, 0.75, 0.25, -0.75])


@given(tree=tree_arrays(invalid=False))
@settings(max_examples=40, deadline=None)
def test_gigpo_equals_rows(tree):
    """A row per trajectory and step, as the reference code holds them; shared steps get the mean of their rows."""
    chains, source = copies(tree)
    rows = np.flatnonzero(~chains.is_root)
    returns, steps = chains.rewards.copy(), np.zeros(len(chains))
    for level in chains.levels[1:]:
        returns[level] += returns[chains.parents[level]]
    for node in rows[::-1]:
        below = np.flatnonzero(chains.parents == node)
        steps[node] = chains.rewards[node] + 0.9 * (steps[below[0]] if len(below) else 0.0)
    end = np.arange(len(chains))
    for node in range(len(chains))[::-1]:
        if chains.parents[node] >= 0 and not chains.is_root[chains.parents[node]]:
            end[chains.parents[node]] = end[node]
    total = np.zeros(len(chains))
    for node in rows:
        group = [r for r in rows if chains.tree_ids[r] == chains.tree_ids[node] and chains.is_leaf[r]]
        anchor = chains.state_ids[chains.parents[node]]
        same = [
            r
            for r in rows
            if chains.tree_ids[r] == chains.tree_ids[node] and chains.state_ids[chains.parents[r]] == anchor
        ]
        total[node] = returns[end[node]] - np.mean(returns[group]) + 2.0 * (steps[node] - np.mean(steps[same]))
    expected = np.bincount(source[rows], total[rows], len(tree)) / np.maximum(
        np.bincount(source[rows], minlength=len(tree)), 1
    )
    result = gigpo_advantages(tree, discount=0.9, step_weight=2.0, weights="counts")
    np.testing.assert_allclose(result.advantages, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TreeArrays.build([-1, 0], [0, np.nan]), r"rewards must be finite; rewards\[1\] is nan"),
        (lambda: TreeArrays.build([-1, 2, 0], [0, 0, 0]), r"parents come before children; parents\[1\] is 2"),
        (lambda: TreeArrays.build([-1, 0], [0, 0, 0]), r"rewards must have shape \[N\] = \[2\]"),
        (lambda: gigpo_advantages(FORK, step_weight=-1), "step_weight must be at least 0"),
        (lambda: gigpo_advantages(FORK, episode_mean="rows"), "episode_mean must be 'trajectories' or 'steps'"),  # pyright: ignore[reportArgumentType]
        (lambda: gigpo_advantages(FORK, state_ids=[0]), r"state_ids must have shape \[N\] = \[6\]"),
        (lambda: vine_ppo_advantages(FORK, baseline="root"), "baseline must be 'siblings' or 'parent'"),  # pyright: ignore[reportArgumentType]
        (lambda: reinforce_advantages(FORK, discount=2), r"discount must be in \[0, 1\], got 2"),
        (lambda: passk_advantages(FORK, k=0.5), "k must be at least 1"),
        (lambda: passk_advantages(FORK, k=2.5, unbiased=True), "k must be whole with unbiased=True"),
        (lambda: passk_advantages(FORK, success=[0.5] * 3), r"success must have shape \[N\] = \[6\]"),
        (lambda: passk_advantages(FORK, success=[1.5] * 6), r"must be probabilities in \[0, 1\]; entry 0 is 1.5"),
        (lambda: passk_advantages(FORK, prior_count=np.inf), "prior_count must be at least 0 and finite"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


EMPTY = TreeArrays.build([-1, -1, 1], [0, 0, 1], tree_ids=[0, 1, 1])


@pytest.mark.parametrize(
    "estimator",
    [
        *[grpo_advantages, gigpo_advantages, passk_advantages, salt_advantages, step_reward_advantages],
        *[tree_grpo_advantages, tree_rl_advantages, vine_ppo_advantages, reinforce_advantages],
    ],
)
def test_every_estimator_refuses_a_tree_without_a_leaf(estimator):
    with pytest.raises(ValueError, match="tree must have a leaf after at least one step; tree 0 of 2 has none"):
        estimator(EMPTY)
