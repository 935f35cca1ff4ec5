"""CRBC against the formulas of its paper, written out with dictionaries and a dense solve, and its two theorems."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import tree_arrays

from agentenv.arrays import TreeArrays
from agentenv.credit import crbc_advantages, grpo_advantages, rtmc_advantages
from agentenv.errors import TreeError

BETA = 0.9
CHAINS = tree_arrays(outcomes=True, invalid=False, forks=False, num_states=3, num_actions=2)


class Process:
    """The empirical process of one group, as the paper defines it: outcomes 0 or 1 at the end, every visit counted."""

    def __init__(self, tree: TreeArrays, number: int = 0):
        own = np.flatnonzero((tree.tree_ids == number) & ~tree.is_root)
        self.steps = [(int(tree.state_ids[tree.parents[i]]), int(tree.action_ids[i]), int(i)) for i in own]
        self.states = sorted({s for s, _, _ in self.steps})
        self.pairs = sorted({(s, a) for s, a, _ in self.steps})
        self.after: dict[Any, Any] = {
            i: "+-"[not tree.rewards[i]] if tree.is_leaf[i] else tree.state_ids[i] for i in own
        }
        self.returns = {}
        for i in own[::-1]:
            below = [j for j in own if tree.parents[j] == i]
            self.returns[i] = BETA * (self.returns[below[0]] if below else tree.rewards[i])
        self.mu = {(s, a): self._share(s, a) for s, a in self.pairs}

    def _share(self, state, action):
        from_state = [a for s, a, _ in self.steps if s == state]
        return from_state.count(action) / len(from_state)

    def actions(self, state):
        return [a for s, a in self.pairs if s == state]

    def backup(self, values):
        """B: Q(s, a) = beta sum_x P(x | s, a) V(x)."""
        known = {**values, "+": 1.0, "-": 0.0}
        return {
            pair: BETA * np.mean([known[self.after[i]] for s, a, i in self.steps if (s, a) == pair])
            for pair in self.pairs
        }

    def mix(self, action_values, mu=None):
        mu = mu or self.mu
        return {s: sum(mu[s, a] * action_values[s, a] for a in self.actions(s)) for s in self.states}

    def start(self):
        """V and Q at K = 0: mean suffix returns over visits."""
        visits = {s: np.mean([self.returns[i] for t, _, i in self.steps if t == s]) for s in self.states}
        pairs = {p: np.mean([self.returns[i] for s, a, i in self.steps if (s, a) == p]) for p in self.pairs}
        return visits, pairs

    def closure(self, mu=None):
        """V = (I - beta M)^-1 b."""
        mu = mu or self.mu
        index = {s: n for n, s in enumerate(self.states)}
        matrix, ends = np.eye(len(index)), np.zeros(len(index))
        for s, a in self.pairs:
            rows = [i for t, b, i in self.steps if (t, b) == (s, a)]
            for i in rows:
                share = BETA * mu[s, a] / len(rows)
                if self.after[i] == "+":
                    ends[index[s]] += share
                elif self.after[i] != "-":
                    matrix[index[s], index[self.after[i]]] -= share
        return dict(zip(self.states, np.linalg.solve(matrix, ends), strict=True))

    def deep(self, depth):
        values, action_values = self.start()
        for _ in range(depth):
            action_values = self.backup(values)
            values = self.mix(action_values)
        return values, action_values

    def step_advantages(self, values, action_values):
        gaps = {(s, a): action_values[s, a] - values[s] for s, a in self.pairs}
        sigma = {s: np.sqrt(sum(self.mu[s, a] * gaps[s, a] ** 2 for a in self.actions(s))) for s in self.states}
        return {i: (len(self.actions(s)) > 1) * gaps[s, a] / max(sigma[s], 0.1) for s, a, i in self.steps}


@given(tree=CHAINS, depth=st.sampled_from([None, 0, 1, 2, 5]))
@settings(max_examples=60, deadline=None)
def test_the_formulas_of_the_paper(tree, depth):
    result = crbc_advantages(tree, discount=BETA, depth=depth)
    episode = grpo_advantages(tree).advantages
    for number in range(tree.num_trees):
        process = Process(tree, number)
        values = process.closure() if depth is None else None
        values, action_values = (values, process.backup(values)) if values is not None else process.deep(depth)
        expected = process.step_advantages(values, action_values)
        for s, a, i in process.steps:
            assert result.values[i] == pytest.approx(values[s], abs=1e-8)
            assert result.action_values[i] == pytest.approx(action_values[s, a], abs=1e-8)
            assert result.advantages[i] == pytest.approx(episode[i] + 5.0 * expected[i], abs=1e-6)


@given(tree=CHAINS, depth=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_depth_converges_as_the_paper_bounds_it(tree, depth):
    def gaps(depth):
        result = crbc_advantages(tree, discount=BETA, depth=depth)
        return result.action_values - result.values

    for number in range(tree.num_trees):
        process = Process(tree, number)
        values, _ = process.start()
        moved = process.mix(process.backup(values))
        residual = max(abs(moved[s] - values[s]) for s in process.states)
        own = tree.tree_ids == number
        assert np.abs(gaps(None) - gaps(depth))[own].max() <= 2 * BETA**depth / (1 - BETA) * residual + 1e-9


@given(tree=CHAINS, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_small_step_along_the_advantages_lowers_no_value_of_the_empirical_process(tree, seed):
    process = Process(tree)
    before = process.closure()
    action_values = process.backup(before)
    weights = dict(zip(process.states, np.random.default_rng(seed).random(len(process.states)), strict=True))
    moved = {
        (s, a): process.mu[s, a] * (1 + 0.5 * weights[s] * (action_values[s, a] - before[s])) for s, a in process.pairs
    }
    after = process.closure(moved)
    assert all(after[s] >= before[s] - 1e-9 for s in process.states)


def test_a_success_one_step_ahead_is_worth_the_discount():
    tree = TreeArrays.build([-1, 0, 0], [0, 1, 0], state_ids=[0, 1, 1], action_ids=[0, 1, 2])
    result = crbc_advantages(tree, discount=0.98)
    np.testing.assert_allclose(result.action_values, [0, 0.98, 0])
    np.testing.assert_allclose(result.values, [0, 0.49, 0.49])
    np.testing.assert_allclose(result.advantages[1], 0.5 / (0.5**0.5 + 1e-4) + 5.0)  # sigma is the gap itself, 0.49


def test_the_gate_silences_states_with_one_action():
    # Two rollouts share (s0, a), and part at s1.
    tree = TreeArrays.build([-1, 0, 1, 0, 3], [0, 0, 1, 0, 0], state_ids=[0, 1, 2, 1, 3], action_ids=[0, 7, 1, 7, 2])
    gated = crbc_advantages(tree, episode_weight=0.0, min_deviation=1e-300)
    assert gated.advantages[[1, 3]].tolist() == [0, 0]
    assert gated.advantages[2] == -gated.advantages[4] == pytest.approx(5.0)


@given(tree=tree_arrays(outcomes=True))
@settings(max_examples=40, deadline=None)
def test_parts_and_relatives(tree):
    alone = crbc_advantages(tree, step_weight=0.0).advantages
    np.testing.assert_allclose(alone, grpo_advantages(tree).advantages, atol=1e-12)
    ours = rtmc_advantages(tree, discount=0.98, prior_count=0.0, values="graph")
    theirs = crbc_advantages(tree, min_deviation=1e9, episode_weight=0.0, step_weight=1e9)
    np.testing.assert_allclose(theirs.action_values, 0.98 * ours.action_values, atol=1e-8)
    np.testing.assert_allclose(theirs.advantages, 0.98 * ours.advantages, atol=1e-7)


@given(tree=CHAINS)
@settings(max_examples=20, deadline=None)
def test_ids_may_be_given(tree):
    assume(len(tree) > 2)
    result = crbc_advantages(tree, state_ids=tree.state_ids * 3 + 1, action_ids=tree.action_ids + 5)
    np.testing.assert_allclose(result.advantages, crbc_advantages(tree).advantages, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"discount": 1.5}, r"discount must be in \[0, 1\], got 1.5"),
        ({"depth": -1}, "depth must be None .* got -1"),
        ({"depth": 1.5}, "depth must be None .* got 1.5"),
        ({"step_weight": -1}, "step_weight must be at least 0"),
        ({"episode_weight": float("nan")}, "episode_weight must be at least 0 and finite"),
        ({"min_deviation": 0}, "min_deviation must be above 0"),
        ({"state_ids": [1]}, "state_ids must have shape"),
    ],
)
def test_wrong_arguments(options, words):
    tree = TreeArrays.build([-1, 0], [0, 1])
    with pytest.raises((ValueError, TreeError), match=words):
        crbc_advantages(tree, **options)
