"""Reachability against the transitive closure, as a limit of V_k, and the credit it gives."""

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import passk_advantages, reachability_advantages, reachable


@pytest.mark.parametrize("seed", range(30))
def test_equals_transitive_closure_with_cycles(seed):
    rng = np.random.default_rng(seed)
    size, count = int(rng.integers(1, 12)), int(rng.integers(0, 25))
    edges, success = rng.integers(0, size, (count, 2)), rng.random(size) < 0.2
    closure = np.eye(size, dtype=bool)
    closure[edges[:, 0], edges[:, 1]] = True
    for via in range(size):
        closure |= closure[:, [via]] & closure[[via], :]
    expected = (closure & success).any(axis=1)
    np.testing.assert_array_equal(reachable(edges, success), expected)
    np.testing.assert_array_equal(reachable(edges, np.flatnonzero(success), num_states=size), expected)


@pytest.mark.parametrize("seed", range(10))
def test_is_the_limit_of_passk_values_on_a_random_chain_with_cycles(seed):
    rng = np.random.default_rng(seed)
    policy = rng.random((8, 8)) * (rng.random((8, 8)) < 0.3)
    policy[6:] = 0
    total = policy.sum(1, keepdims=True)
    policy = np.divide(policy, total, out=np.zeros_like(policy), where=total > 0) * 0.95
    goal = np.eye(8)[7]
    p = np.linalg.solve(np.eye(8) - policy, goal)  # chance to reach state 7, 6 is a dead end
    edges = np.argwhere(policy > 0)
    limit = -np.expm1(1e12 * np.log1p(-np.clip(p, 0, 1 - 1e-16)))
    np.testing.assert_allclose(reachable(edges, [7], num_states=8), limit, atol=1e-6)


def test_floor_cuts_unlikely_edges():
    edges, p = [[0, 1], [1, 2], [0, 2]], [0.9, 0.9, 1e-6]
    assert reachable(edges, [2], probabilities=p).tolist() == [True, True, True]
    assert reachable([[0, 1], [0, 2]], [2], probabilities=[1, 1e-6], floor=1e-3).tolist() == [False, False, True]
    assert reachable([[0, 1]], [1], probabilities=[0.0]).tolist() == [False, True]


def test_long_chains_do_not_recurse():
    size = 300_000
    edges = np.stack([np.arange(size - 1), np.arange(1, size)], axis=1)
    assert reachable(edges, [size - 1]).all()
    assert reachable(edges, [0]).sum() == 1


# root -> a -> (success | b -> fail), root -> c -> d -> fail
FATAL = TreeArrays.build(
    parents=[-1, 0, 1, 1, 3, 0, 5, 6], rewards=[0, 0, 1, 0, 0, 0, 0, 0], state_ids=[0, 1, 2, 3, 4, 5, 3, 4]
)


def test_credit_marks_the_first_fatal_step():
    result = reachability_advantages(FATAL)
    assert result.advantages.tolist() == [0, 0, 0, -1, 0, -1, 0, 0]
    assert result.values.tolist() == [0, 1, 1, 1, 0, 1, 0, 0]


def test_equal_states_share_reachability():
    # The failing chain passes through the state from which the other one succeeded: it was not lost yet.
    tree = TreeArrays.build([-1, 0, 1, 0, 3, 4], [0, 0, 1, 0, 0, 0], state_ids=[0, 1, 2, 3, 1, 4])
    assert reachability_advantages(tree).advantages.tolist() == [0, 0, 0, 0, 0, -1]
    assert passk_advantages(tree, k=np.inf).advantages.tolist() == [0, 0, 0, -1, 0, 0]


def test_an_explicit_graph_decides_instead():
    alive = [True, True, True, True, False, True, True, False]
    assert reachability_advantages(FATAL, alive=alive).advantages.tolist() == [0, 0, 0, 0, -1, 0, 0, -1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reachable([[0, 5]], [1], num_states=3), r"edges must name states in \[0, 3\), got 0 to 5"),
        (lambda: reachable([0, 1], [1]), r"edges must be integers of shape \[E, 2\]"),
        (lambda: reachable([[0.5, 1.0]], [1]), "edges must be integers"),
        (lambda: reachable([[0, 1]], [True, False, False], num_states=2), r"success must have shape \[V\] = \[2\]"),
        (lambda: reachable([[0, 1]], [7], num_states=2), "success must name states"),
        (lambda: reachable([[0, 1]], [1], probabilities=[1.5]), "probabilities must be"),
        (lambda: reachability_advantages(FATAL, alive=[True]), "alive must have shape"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
