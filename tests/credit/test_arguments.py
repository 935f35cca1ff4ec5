"""Who gives a function of arrays the episode trees themselves is told how to make the arrays."""

import inspect
from typing import Any

import numpy as np
import pytest

from agentenv import credit
from agentenv.arrays import TreeArrays
from agentenv.credit import matching, rtmc, trace, weights
from agentenv.tree import EpisodeTree
from agentenv.types import Action

OTHERS: dict[str, Any] = {"rng": np.random.default_rng(0), "nodes": 1, "discount": 1.0}
FUNCTIONS = {name: getattr(module, name) for module in (credit, rtmc, trace, weights) for name in module.__all__}
FUNCTIONS["match_steps"] = matching.match_steps
TAKE_TREES = {
    name: function
    for name, function in FUNCTIONS.items()
    if inspect.isfunction(function)
    and next(iter(inspect.signature(function).parameters.values())).annotation is TreeArrays
    and name not in {"weigh", "is_chains"}  # parts of others
}


def episode_tree():
    tree = EpisodeTree(({"role": "user", "content": "?"},))
    tree.add(0, Action("!"), reward=1.0, terminated=True)
    return tree


@pytest.mark.parametrize("name", TAKE_TREES)
def test_episode_trees_are_refused_with_the_remedy(name):
    function, tree = TAKE_TREES[name], episode_tree()
    others = {
        parameter.name: OTHERS[parameter.name]
        for parameter in list(inspect.signature(function).parameters.values())[1:]
        if parameter.default is parameter.empty
    }
    with pytest.raises(TypeError, match=r"tree must be TreeArrays, got EpisodeTree: tree\.arrays\(\) makes them"):
        function(tree, **others)
    with pytest.raises(TypeError, match=r"got list: TreeArrays\.from_trees\(\[tree, \.\.\.\]\) makes them"):
        function([tree], **others)


def test_the_remedies_are_right():
    tree = episode_tree()
    for arrays in (tree.arrays(), TreeArrays.from_trees([tree])):
        assert credit.reinforce_advantages(arrays).counts.tolist() == [0, 1]


def test_there_are_many():
    assert len(TAKE_TREES) >= 20


def test_estimators_have_the_names_of_their_functions():
    tree = TreeArrays.build([-1, 0, 0], [0.0, 1.0, 0.0])
    every = {name for name in credit.__all__ if name.endswith("_advantages")} - {
        "check_advantages",
        "sr_ppo_advantages",
    }
    assert {f"{name}_advantages" for name in credit.ESTIMATORS} == every
    for name, function in credit.ESTIMATORS.items():
        assert function.__name__ == f"{name}_advantages"
        assert credit.make_estimator(name) is credit.make_estimator(f"{name}_advantages") is function
    assert credit.make_estimator("Dr-GRPO")(tree).advantages.tolist() == [0.0, 0.5, -0.5]
    own = credit.make_estimator(credit.rloo_advantages)
    assert own(tree).advantages.tolist() == [0.0, 1.0, -1.0]


@pytest.mark.parametrize("wrong", [None, 3, credit.StepAdvantages])
def test_what_is_no_estimator_is_refused(wrong):
    with pytest.raises(TypeError, match="estimator must be a name or a function of trees"):
        credit.make_estimator(wrong)
    with pytest.raises(ValueError, match=r"one of 'crbc'.*'vine_ppo', got 'sr_ppo'"):
        credit.make_estimator("sr_ppo")
