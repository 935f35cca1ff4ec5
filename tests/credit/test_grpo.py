"""GRPO, Dr.GRPO and RLOO by hand."""

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import dr_grpo_advantages, grpo_advantages, rloo_advantages

REWARDS = [1.0, 0.0, 0.0, 3.0]
TWO_GROUPS = TreeArrays.build(
    parents=[-1, 0, 0, 0, 0, -1, 5, 5],
    rewards=[0, *REWARDS, 0, 1, 1],
    tree_ids=[0] * 5 + [1] * 3,
)
FORK = TreeArrays.build(parents=[-1, 0, 1, 1, 0], rewards=[0, 0.5, 1, 0, 0])  # trunk with two leaves, and one chain


def test_grpo_conventions():
    rewards = np.array(REWARDS)
    for ddof, epsilon in [(1, 1e-4), (1, 1e-6), (0, 1e-8)]:
        result = grpo_advantages(TWO_GROUPS, ddof=ddof, epsilon=epsilon)
        expected = (rewards - 1) / (rewards.std(ddof=ddof) + epsilon)
        np.testing.assert_allclose(result.advantages, [0, *expected, 0, 0, 0], rtol=1e-12)


def test_dr_grpo_and_rloo():
    result = dr_grpo_advantages(TWO_GROUPS)
    np.testing.assert_allclose(result.advantages, [0, 0, -1, -1, 2, 0, 0, 0])
    np.testing.assert_allclose(rloo_advantages(TWO_GROUPS).advantages, 4 / 3 * result.advantages)


def test_a_shared_step_gets_the_mean_of_its_trajectories():
    # Returns 1.5, 0.5 and 0; mean 2/3.
    result = dr_grpo_advantages(FORK, weights="counts")
    np.testing.assert_allclose(result.advantages, [0, 1 - 2 / 3, 1.5 - 2 / 3, 0.5 - 2 / 3, -2 / 3])
    assert result.counts.tolist() == [0, 2, 1, 1, 1]
    # By occupancy the fork's two returns share the weight of one rollout: the mean is 1/2.
    np.testing.assert_allclose(dr_grpo_advantages(FORK).advantages, [0, 1 / 2, 1, 0, -1 / 2])
    others = rloo_advantages(FORK).advantages  # the others are the other branch, whatever its forks
    np.testing.assert_allclose(others, [0, 1, 1.5, 0.5, -1])
    assert others[1] == pytest.approx(np.mean(others[2:4]))


def test_weighted_deviations_by_hand():
    # Weights 1/2, 1/2, 1 of returns 1.5, 0.5, 0: mean 1/2, spread 3/4, freedom 2 - (1/4 + 1/4 + 1) / 2.
    result = grpo_advantages(FORK, epsilon=0.0)
    np.testing.assert_allclose(result.advantages[1:], np.array([0.5, 1, 0, -0.5]) / np.sqrt(0.75 / 1.25))
    population = grpo_advantages(FORK, epsilon=0.0, ddof=0)
    np.testing.assert_allclose(population.advantages[1:], np.array([0.5, 1, 0, -0.5]) / np.sqrt(0.75 / 2))


def test_a_group_of_one_gets_zero():
    tree = TreeArrays.build([-1, 0], [0, 1])
    for estimator in (grpo_advantages, rloo_advantages, dr_grpo_advantages):
        assert estimator(tree).advantages.tolist() == [0, 0]
    assert grpo_advantages(tree, epsilon=0).advantages.tolist() == [0, 0]


def test_refuses():
    with pytest.raises(ValueError, match=r"ddof must be 0 .* got 2"):
        grpo_advantages(TWO_GROUPS, ddof=2)
    with pytest.raises(ValueError, match="epsilon must be at least 0"):
        grpo_advantages(TWO_GROUPS, epsilon=-1)
