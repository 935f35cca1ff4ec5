"""Success is what the tree says it is: everything that asks for it asks the arrays, unless it is given a threshold."""

from functools import partial

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    effective_ratio,
    passk_advantages,
    passk_training_advantages,
    reachability_advantages,
)
from agentenv.credit.predictor import predictor_targets
from agentenv.credit.trace import prefixes_of, success_shares
from agentenv.tree import EpisodeTree
from agentenv.types import Action, to_observation

F1 = [0.9, 0.7, 0.6, 0.0]  # three above 0.5, one above 0.8, four above -1


def chains(threshold):
    above = np.array([-1, 0, 1, 0, 3, 0, 5, 0, 7])
    rewards = np.zeros(9)
    rewards[[2, 4, 6, 8]] = F1
    return TreeArrays.build(above, rewards, thresholds=threshold, state_ids=range(9))


ASKS = {
    "passk": lambda tree, **o: passk_advantages(tree, k=2, **o).action_values,
    "passk_training": lambda tree, **o: passk_training_advantages(tree, k=2, **o).advantages,
    "reachability": lambda tree, **o: reachability_advantages(tree, **o).action_values,
    "success_shares": success_shares,
    "prefixes_of": lambda tree, **o: prefixes_of(tree, **o).outcomes,
    "effective_ratio": lambda tree, **o: np.array(effective_ratio(tree, **o)),
}


@pytest.mark.parametrize("name", ASKS)
def test_the_threshold_of_the_tree_is_the_default(name):
    ask = ASKS[name]
    for threshold in (0.5, 0.8, -1.0, 0.7):
        own, given = ask(chains(threshold)), ask(chains(0.5), threshold=threshold)
        np.testing.assert_array_equal(own, given)
        np.testing.assert_array_equal(own, ask(chains(99.0), threshold=threshold))
    assert not np.array_equal(ask(chains(0.8)), ask(chains(-1.0)))


def test_each_tree_has_its_own():
    both = TreeArrays.build(
        [-1, 0, 0, -1, 3, 3], [0, 0.6, 0.9, 0, 0.6, 0.9], tree_ids=[0] * 3 + [1] * 3, thresholds=[0.5] * 3 + [0.8] * 3
    )
    assert success_shares(both)[[0, 3]].tolist() == [1.0, 0.5]
    assert effective_ratio(both) == 0.5


def test_episode_trees_carry_it_to_the_targets_of_a_predictor():
    def grown(threshold):
        tree = EpisodeTree(to_observation("?"), success_threshold=threshold)
        for reward in (0.4, 0.6):
            tree.add(0, Action("!"), reward=reward, terminated=True)
        return tree

    targets = [predictor_targets([grown(t)])[1].tolist() for t in (0.3, 0.5, 0.7)]
    assert targets == [[1.0], [0.5], [0.0]]


@pytest.mark.parametrize("ask", [success_shares, partial(passk_advantages, k=1)])
def test_a_return_at_the_threshold_is_no_success(ask):
    result = ask(chains(0.9))
    values = getattr(result, "action_values", result)
    assert not np.asarray(values).any()
