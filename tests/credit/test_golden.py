"""Small fixed cases against numbers that other projects' reference code computed.

Each entry names the repository, commit and function that was run, and the convention that explains every difference.
"""

import numpy as np
import pytest

from agentenv.arrays import TreeArrays, number_signatures
from agentenv.credit import (
    dr_grpo_advantages,
    gigpo_advantages,
    grpo_advantages,
    pass_at_k,
    pkpo_advantages,
    rloo_advantages,
    rtmc_advantages,
    tree_grpo_advantages,
)

# Two groups of one-step trajectories.
REWARDS = [1.0, 0.0, 0.5, 2.0, 0.0, 1.0]
GROUPS = TreeArrays.build([-1, 0, 0, 0, 0, -1, 5, 5], [0, *REWARDS[:4], 0, *REWARDS[4:]], tree_ids=[0] * 5 + [1] * 3)

# volcengine/verl b178a3cd, verl/trainer/ppo/core_algos.py (float32)
VERL_GRPO = [0.146385, -1.024694, -0.439155, 1.317464, -0.707106, 0.707106]
VERL_GRPO_WITHOUT_STD = [0.125, -0.875, -0.375, 1.125, -0.5, 0.5]
VERL_RLOO = [0.166667, -1.166667, -0.5, 1.5, -1.0, 1.0]
VERL_PASSK_WITHOUT_STD = [0.0, 0.0, 0.0, 1.0, 0.0, 1.0]
# huggingface/trl 1.16: the lines of GRPOTrainer, with its `nanstd`
TRL_GRPO = [0.146368, -1.024575, -0.439104, 1.317311, -0.707007, 0.707007]


def steps(result, tree):
    return result.advantages[~tree.is_root]


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (lambda tree: grpo_advantages(tree, epsilon=1e-6), VERL_GRPO),
        (dr_grpo_advantages, VERL_GRPO_WITHOUT_STD),
        (rloo_advantages, VERL_RLOO),
        (grpo_advantages, TRL_GRPO),
    ],
)
def test_groups(estimator, expected):
    np.testing.assert_allclose(steps(estimator(GROUPS), GROUPS), expected, atol=2e-6)


def test_verl_passk_is_pkpo_at_k_equal_to_the_group():
    four = TreeArrays.build([-1, 0, 0, 0, 0], [0, *REWARDS[:4]])
    two = TreeArrays.build([-1, 0, 0], [0, *REWARDS[4:]])
    result = [*steps(pkpo_advantages(four, k=4), four), *steps(pkpo_advantages(two, k=2), two)]
    np.testing.assert_allclose(np.array(result), VERL_PASSK_WITHOUT_STD, atol=1e-12)


def test_trl_leaves_out_unscorable_trajectories_as_we_do():
    # TRL_GRPO's second group was computed with two more completions whose reward was None (NaN): advantage 0.
    tree = TreeArrays.build([-1, 0, 0, 0, 0], [0, 0, 1, 0, 0], valid=[True, True, True, False, False])
    np.testing.assert_allclose(steps(grpo_advantages(tree), tree), [*TRL_GRPO[4:], 0, 0], atol=2e-6)


def test_tree_grpo():
    # AMAP-ML/Tree-GRPO 90b17099, estimator "tree" of ray_trainer_ts.py: prompt 0 has two trees of two leaves, prompt 1
    # one tree of two leaves.
    tree = TreeArrays.build(
        [-1, 0, 1, 1, 0, 4, 4, -1, 7, 8, 8],
        [0, 0, 1.0, 0.0, 0, 0.5, 2.0, 0, 0, 0.0, 1.0],
        tree_ids=[0] * 7 + [1] * 4,
    )
    expected = [0.853491, -1.7318, -1.146261, 2.02457, -1.414212, 1.414212]
    result = tree_grpo_advantages(tree)
    np.testing.assert_allclose(result.advantages[tree.is_leaf], expected, atol=3e-6)
    # A shared trunk gets the mean of its leaves.
    np.testing.assert_allclose(result.advantages[[1, 4, 8]], np.mean(np.reshape(expected, (3, 2)), axis=1), atol=3e-6)


# One group of four trajectories: states left, and rewards, step by step.
STATES = [["s0", "s1", "s2"], ["s0", "s1", "s1", "s3"], ["s0", "s4"], ["s0", "s1"]]
STEP_REWARDS = [[0, 0, 1.0], [0, 0.5, 0, 0], [0, 0], [0, 2.0]]

# vanzll/verl-agent d0b97244, gigpo/core_gigpo.py: episode_norm_reward (over trajectories, or over step rows) plus
# step_norm_reward of the discounted returns at 0.95.
GIGPO = {
    (False, "trajectories"): [
        *[0.208125, 0.2125, 0.125, -0.719375, -0.7375, -1.2375, -0.375],
        *[-1.694375, -0.875, 2.205625, 2.2625],
    ],
    (False, "steps"): [
        *[0.264943, 0.269318, 0.181818, -0.662557, -0.680682, -1.180682, -0.318182],
        *[-1.637557, -0.818182, 2.262443, 2.319318],
    ],
    (True, "trajectories"): [
        *[0.249104, 0.249104, 0.146385, -0.864705, -0.864705, -1.451672, -0.439155],
        *[-2.037211, -1.024694, 2.652812, 2.652812],
    ],
    (True, "steps"): [
        *[0.369742, 0.369742, 0.267023, -0.89284, -0.89284, -1.479807, -0.467289],
        *[-2.214118, -1.201601, 3.070996, 3.070996],
    ],
}


def rollouts(states, rewards, actions=None):
    """One tree of independent chains from one root."""
    parents, names, taken, step_rewards = [-1], [states[0][0]], [""], [0.0]
    for i, path in enumerate(states):
        above = 0
        for t in range(len(path)):
            parents.append(above)
            above = len(parents) - 1
            names.append(path[t + 1] if t + 1 < len(path) else "end")
            taken.append(actions[i][t] if actions else f"{i}.{t}")
            step_rewards.append(rewards[i][t])
    zeros = [0] * len(parents)
    return TreeArrays.build(
        parents, step_rewards, state_ids=number_signatures(zeros, names), action_ids=number_signatures(zeros, taken)
    )


@pytest.mark.parametrize(("scale", "over"), GIGPO)
def test_gigpo(scale, over):
    tree = rollouts(STATES, STEP_REWARDS)
    result = gigpo_advantages(tree, discount=0.95, scale=scale, episode_mean=over)
    np.testing.assert_allclose(steps(result, tree), GIGPO[scale, over], atol=5e-6)


def test_rtmc():
    # alexngai/prime-rl-fork 60d8d488, rtmc_sig.advantages with its defaults: discount 0.99, prior 2, normalized. The
    # second rollout meets (s1, b) twice, the third meets (s2, c) twice.
    states = [["s0", "s1", "s1", "s2"], ["s0", "s1"], ["s0", "s2", "s1", "s2"]]
    actions = [["a", "b", "b", "c"], ["a", "c"], ["b", "c", "c", "c"]]
    tree = rollouts(states, [[0, 0, 0, 1.0], [0, 0.0], [0, 0, 0, 1.0]], actions)
    expected = [
        *[-0.812984, 1.530788, 1.530788, 0.774907, -0.812984, -0.794053],
        *[1.512094, 0.774907, -0.794053, 0.774907],
    ]
    np.testing.assert_allclose(steps(rtmc_advantages(tree, normalize=True), tree), expected, atol=1e-6)


def test_pass_at_k():
    # openai/human-eval, estimate_pass_at_k: 1 - prod(1 - k / arange(n - c + 1, n + 1)).
    for n, c, k in [(200, 7, 10), (200, 150, 100), (10, 3, 5), (50, 1, 50)]:
        expected = 1.0 if n - c < k else 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
        assert pass_at_k(n, c, k) == pytest.approx(expected, rel=1e-12)
