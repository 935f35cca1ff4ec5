"""Equal returns are no deviation, whatever rounding makes of their mean; and small differences of large ones are."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    ESTIMATORS,
    crbc_advantages,
    gigpo_advantages,
    grpo_advantages,
    rtmc_advantages,
    salt_advantages,
    step_reward_advantages,
    tree_grpo_advantages,
)
from agentenv.credit.weights import graph_weights

STANDARDIZE: dict[str, Any] = {
    "grpo": grpo_advantages,
    "grpo population": partial(grpo_advantages, ddof=0),
    "salt": salt_advantages,
    "gigpo": partial(gigpo_advantages, scale=True, discount=1.0),
    "gigpo steps": partial(gigpo_advantages, scale=True, discount=1.0, episode_mean="steps"),
    "tree_grpo": tree_grpo_advantages,
    "step_reward": step_reward_advantages,
}


def episodes(returns, fork=False):
    """Two steps each, all from one state and by way of three others; with `fork`, three ends below the first step."""
    parents, rewards, states, actions = [-1], [0.0], [0], [0]
    for i, value in enumerate(returns):
        first = len(parents)
        ends = 3 if fork and i == 0 else 1
        parents += [0] + [first] * ends
        rewards += [0.0] + [value] * ends
        states += [i % 3 + 1] + [9] * ends
        actions += [i % 3] + [0] * ends
    return TreeArrays.build(parents, rewards, state_ids=states, action_ids=actions)


@pytest.mark.parametrize("name", STANDARDIZE)
@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, -1e-9 / 3, 1e9 / 7, -1e12 / 3, 1e-200, 0.0])
def test_equal_returns_get_nothing(name, fork, value):
    for count in (1, 2, 3, 6, 7, 11):
        for epsilon in (0.0, 1e-12, 1e-4):
            result = STANDARDIZE[name](episodes([value] * count, fork), epsilon=epsilon)
            assert not result.advantages.any()


@pytest.mark.parametrize("value", [0.1, 1e9 / 7, 1e12 / 3])
def test_what_rounding_leaves_is_not_scaled_up(value):
    for count in (3, 7, 11):
        tree = episodes([value] * count, fork=True)
        for weights in ("occupancy", "counts"):
            scaled = rtmc_advantages(tree, discount=1.0, normalize=True, weights=weights).advantages
            assert np.abs(scaled).max() <= 1e-14 * value
            assert not crbc_advantages(tree, discount=1.0, weights=weights).advantages.any()


@pytest.mark.parametrize("name", STANDARDIZE)
@pytest.mark.parametrize(("shift", "factor"), [(1e9, 1.0), (0.0, 1e-9), (0.0, 1e-30), (0.0, 1e30), (-1e6, 1e-3)])
def test_what_deviates_is_standardized_wherever_it_lies(name, shift, factor):
    returns = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    plain, moved = (STANDARDIZE[name](episodes(x), epsilon=0.0).advantages for x in (returns, shift + factor * returns))
    assert plain.any()
    np.testing.assert_allclose(moved, plain, atol=1e-5)


@pytest.mark.parametrize("name", STANDARDIZE)
@pytest.mark.parametrize("epsilon", [-0.5, -1e-9, np.nan, np.inf])
def test_epsilon_is_at_least_0(name, epsilon):
    with pytest.raises(ValueError, match=rf"epsilon must be at least 0 and finite, got {epsilon}"):
        STANDARDIZE[name](episodes([1, 0, 0]), epsilon=epsilon)


def test_states_that_one_step_leaves_get_nothing_without_epsilon():
    result = gigpo_advantages(TreeArrays.build([-1, 0, 0, 0], [0, 1, 1, 1]), scale=True, epsilon=0.0)
    assert result.advantages.tolist() == [0, 0, 0, 0]
    uneven = gigpo_advantages(TreeArrays.build([-1, 0, 1, 0, 3], [0, 0, 1, 0, 0]), scale=True, epsilon=0.0)
    assert np.isfinite(uneven.advantages).all()
    assert uneven.advantages[1] > 0 > uneven.advantages[3]


def beside(neighbours):
    """Twelve steps round and round three states to a success, and a step away from them; then other trees."""
    parents, rewards = [-1, *range(12), 0], [0.0] * 12 + [1.0, 0.0]
    states, actions = [*(i % 3 for i in range(12)), 7, 8], [0] * 13 + [1]
    ids = [0] * 14
    for i, large in enumerate(neighbours, start=1):
        root = len(parents)
        parents, rewards = [*parents, -1, root, root, root, root], [*rewards, 0.0, large, 0.0, -large, large / 3]
        states, actions, ids = [*states, *range(5)], [*actions, 0, 0, 1, 1, 2], [*ids, *[i] * 5]
    return TreeArrays.build(parents, rewards, tree_ids=ids, state_ids=states, action_ids=actions)


OPTIONS: dict[str, dict[str, Any]] = {
    "pkpo": {"k": 2},
    "passk_training": {"k": 2},
    "passk": {"merge": True},
    "gigpo": {"scale": True},
}


@pytest.mark.parametrize("name", [*ESTIMATORS, "rtmc graph", "graph_weights"])
@pytest.mark.parametrize("large", [1e6, 1e12, 1e15])
def test_no_tree_changes_the_precision_of_another(name, large):
    ask: Any
    if name == "rtmc graph":
        ask = partial(rtmc_advantages, values="graph", discount=1.0)
    else:
        ask = graph_weights if name == "graph_weights" else partial(ESTIMATORS[name], **OPTIONS.get(name, {}))
    alone, together = (getattr(x, "advantages", x) for x in (ask(beside([])), ask(beside([large, -large]))))
    np.testing.assert_allclose(together[:14], alone, rtol=1e-12, atol=1e-12)
