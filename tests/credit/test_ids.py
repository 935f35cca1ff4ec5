"""Ids are names: any integers of 64 bits give what small ones give, and what is no such integer is refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    crbc_advantages,
    gigpo_advantages,
    passk_advantages,
    reachability_advantages,
    rtmc_advantages,
    salt_advantages,
)
from agentenv.credit.weights import graph_weights

BY_STATES: dict[str, Any] = {
    "gigpo": partial(gigpo_advantages, scale=True),
    "passk": partial(passk_advantages, merge=True),
    "reachability": reachability_advantages,
}
BY_PAIRS: dict[str, Any] = {
    "rtmc": rtmc_advantages,
    "rtmc graph": partial(rtmc_advantages, values="graph", normalize=True),
    "rtmc others": partial(rtmc_advantages, baseline="others"),
    "salt": salt_advantages,
    "crbc": crbc_advantages,
}
ENDS = [-(2**63), -(2**63) + 1, -(2**62), -1, 0, 1, 2**62, 2**63 - 2, 2**63 - 1]


def grown(rng, trees=3, nodes=14):
    """Random trees, and small ids of states and actions."""
    above = [t * nodes + (int(rng.integers(0, i)) if i else -t * nodes - 1) for t in range(trees) for i in range(nodes)]
    rewards = np.where(np.array(above) < 0, 0.0, rng.integers(0, 2, trees * nodes))
    small = rng.integers(0, 5, (2, trees * nodes))
    ids = np.repeat(np.arange(trees), nodes)
    return TreeArrays.build(above, rewards, tree_ids=ids, state_ids=small[0], action_ids=small[1])


def names(rng, kind):
    """Five different integers: at the ends of 64 bits, anywhere within, or far out and close together."""
    if kind == "ends":
        return rng.permutation(ENDS)[:5]
    if kind == "close":
        return int(rng.choice([*ENDS[:2], 2**63 - 40])) + rng.permutation(9)[:5]
    return np.unique(rng.integers(-(2**63), 2**63, 9))[:5]


@pytest.mark.parametrize("kind", ["ends", "anywhere", "close"])
@pytest.mark.parametrize("seed", range(8))
def test_large_ids_give_what_small_ones_give(kind, seed):
    rng = np.random.default_rng(seed)
    tree = grown(rng)
    states, actions = names(rng, kind)[tree.state_ids], names(rng, kind)[tree.action_ids]
    own = TreeArrays.build(tree.parents, tree.rewards, tree_ids=tree.tree_ids, state_ids=states, action_ids=actions)
    for name, estimator in (BY_STATES | BY_PAIRS).items():
        given: dict[str, Any] = {"state_ids": states} | ({"action_ids": actions} if name in BY_PAIRS else {})
        for result in (estimator(tree, **given), estimator(own)):
            np.testing.assert_allclose(result.advantages, estimator(tree).advantages, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(graph_weights(own), graph_weights(tree))


def test_numbers_beyond_are_refused():
    tree = TreeArrays.build([-1, 0, 1, 0, 3], [0, 0, 1, 0, 0])
    large = np.array([1, 2, 2**63, 4, 5], dtype=np.uint64)
    for estimator in (BY_STATES | BY_PAIRS).values():
        with pytest.raises(
            ValueError, match=r"state_ids must be integers in \[-2\^63, 2\^63\), got 9223372036854775808"
        ):
            estimator(tree, state_ids=large)
        np.testing.assert_array_equal(
            estimator(tree, state_ids=large // 2).advantages, estimator(tree, state_ids=[0, 1, 7, 2, 2]).advantages
        )


@pytest.mark.parametrize("name", ["parents", "tree_ids", "state_ids", "action_ids"])
def test_arrays_refuse_what_is_no_integer(name):
    fine = {"parents": [-1, 0, 0], "rewards": [0, 1, 0]}
    for wrong in ([0.1, 0.6, 0.9], [0.0, 0.0, 0.0], ["0", "0", "0"], [2**70, 0, 0], [True, False, False]):
        with pytest.raises(ValueError, match=f"{name} must be integers"):
            TreeArrays.build(**(fine | {name: wrong}))


@pytest.mark.parametrize("name", ["terminated", "truncated", "valid"])
def test_arrays_refuse_what_is_no_flag(name):
    for wrong in (0.5, 2, np.nan):
        with pytest.raises(ValueError, match=rf"{name} must be True or False \(1 or 0\); entry 2 is {wrong}"):
            TreeArrays.build([-1, 0, 0], [0, 1, 0], **{name: [0, 0, wrong]})
    ones = TreeArrays.build([-1, 0, 0], [0, 1, 0], **{name: [0.0, 1.0, 1.0]} | {"valid": [1, 1, 1]})
    assert getattr(ones, name).dtype == np.bool_
