"""Small Markov decision processes where everything is known exactly: the yardstick for estimators.

Letters: `S` states, `A` actions, `N` nodes.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import NO_PARENT, TreeArrays

from .passk_tree import passk_values
from .reachability import reachable

__all__ = ["SampledTrees", "TabularMDP"]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SampledTrees:
    """Trees sampled from a `TabularMDP`, with the true state and action behind every node."""

    tree: TreeArrays
    states: IntArray  # [N] state at node i
    actions: IntArray  # [N] action of the step into node i, -1 at a root

    @property
    def cost(self) -> int:
        """Steps sampled in all: every node but the roots."""
        return len(self.tree) - int(self.tree.is_root.sum())

    @property
    def left(self) -> IntArray:
        """`[N]` state that the step into node i left (the root's own at a root)."""
        return self.states[np.maximum(self.tree.parents, 0)]


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """An episodic decision process with a fixed policy, whose values, Pass@k and reachability are computed exactly.

    An episode starts in state 0 and ends in a terminal state; the reward of a step is that of the state it enters.
    Every state must reach a terminal one.

    Raises:
        ValueError: shapes that do not fit, or rows that are not probabilities.
    """

    transitions: FloatArray  # [S, A, S] P(s' | s, a), rows of terminal states ignored
    policy: FloatArray  # [S, A] pi(a | s)
    rewards: FloatArray  # [S] of entering a state
    terminal: BoolArray  # [S]
    aliases: IntArray | None = None  # [S] what a coarse signature makes of a state; default: the state itself
    name: str = field(default="")

    def __post_init__(self) -> None:
        count, actions = self.policy.shape
        if self.transitions.shape != (count, actions, count) or self.rewards.shape != (count,):
            msg = f"transitions must be [S, A, S] and rewards [S] for policy [S, A] = [{count}, {actions}]"
            raise ValueError(msg)
        live = ~self.terminal
        for name, rows in (("policy", self.policy[live]), ("transitions", self.transitions[live])):
            if (rows < 0).any() or not np.allclose(rows.sum(axis=-1), 1.0):
                msg = f"{name} must hold probabilities that sum to 1 in every state that is not terminal"
                raise ValueError(msg)

    @cached_property
    def step(self) -> FloatArray:
        """`[S, S]` probability of the next state under the policy, 0 from terminal states."""
        step = np.einsum("sa,sat->st", self.policy, self.transitions)
        step[self.terminal] = 0.0
        return step

    def values(self, *, discount: float = 1.0) -> FloatArray:
        """Solves `V = P (r + discount V)` exactly: `[S]`, 0 at terminal states."""
        system = np.eye(len(self.rewards)) - discount * self.step
        return np.asarray(np.linalg.solve(system, self.step @ self.rewards), dtype=np.float64)

    def action_values(self, *, discount: float = 1.0) -> FloatArray:
        """Computes `Q(s, a) = sum over s' of P(s' | s, a) (r(s') + discount V(s'))`: `[S, A]`."""
        return self.transitions @ (self.rewards + discount * self.values(discount=discount))

    def advantages(self, *, discount: float = 1.0) -> FloatArray:
        """Computes `Q - V`: `[S, A]`."""
        return self.action_values(discount=discount) - self.values(discount=discount)[:, None]

    def passk(self, k: float) -> FloatArray:
        """Computes Pass@k of every state, for rewards 0 and 1 on entering terminal states: `[S]`."""
        own = np.where(self.terminal, self.rewards, 0.0)
        return passk_values(np.clip(self.values() + own, 0.0, 1.0), k)

    def reachable(self) -> BoolArray:
        """Tells from which states the policy can reach a terminal state with positive reward: `[S]`."""
        return reachable(np.argwhere(self.step > 0), self.terminal & (self.rewards > 0))

    @cached_property
    def remaining(self) -> FloatArray:
        """`[S]` expected steps until the end of the episode."""
        live = (~self.terminal).astype(np.float64)
        return np.asarray(np.linalg.solve(np.eye(len(live)) - self.step, live), dtype=np.float64)

    @cached_property
    def occupancy(self) -> FloatArray:
        """`[S]` expected visits per episode."""
        start = np.zeros(len(self.rewards))
        start[0] = 1.0
        return np.asarray(np.linalg.solve(np.eye(len(self.rewards)) - self.step.T, start), dtype=np.float64)

    def gradient(self) -> FloatArray:
        """Computes the exact gradient of the expected return in the logits of a softmax policy: `[S, A]`.

        d J / d theta(s, a) = visits(s) pi(a | s) A(s, a)
        """
        return self.occupancy[:, None] * self.policy * self.advantages()

    def sample(self, rng: np.random.Generator, *, groups: int, group_size: int) -> SampledTrees:
        """Samples independent episodes: `groups` trees of `group_size` chains from one root each."""
        roots = np.zeros(groups, dtype=np.int64)
        empty = np.full(groups, NO_PARENT)
        start = _Nodes(empty, roots, empty, np.arange(groups))
        return self._assemble(self._continue(rng, start, np.repeat(np.arange(groups), group_size)))

    def extend(
        self, rng: np.random.Generator, sampled: SampledTrees, anchors: ArrayLike, counts: ArrayLike
    ) -> SampledTrees:
        """Samples continuations from nodes: real forks. Returns the larger trees; nodes may be renumbered."""
        parents, tree = sampled.tree.parents, sampled.tree
        start = _Nodes(parents, sampled.states, sampled.actions, tree.tree_ids)
        return self._assemble(self._continue(rng, start, np.repeat(np.asarray(anchors), np.asarray(counts))))

    def _continue(self, rng: np.random.Generator, nodes: "_Nodes", heads: IntArray) -> "_Nodes":
        """Runs one episode to its end from every entry of `heads`, all in lock step."""
        policy, moves = np.cumsum(self.policy, axis=1), np.cumsum(self.transitions, axis=2)
        columns = [[column] for column in (nodes.parents, nodes.states, nodes.actions, nodes.trees)]
        size, states, trees = len(nodes.parents), nodes.states[heads], nodes.trees[heads]
        live = ~self.terminal[states]
        heads, states, trees = heads[live], states[live], trees[live]
        while len(heads):
            actions = _draw(rng, policy[states])
            states = _draw(rng, moves[states, actions])
            for column, entries in zip(columns, (heads, states, actions, trees), strict=True):
                column.append(entries)
            heads = np.arange(size, size + len(states))
            size += len(states)
            live = ~self.terminal[states]
            heads, states, trees = heads[live], states[live], trees[live]
        return _Nodes(*(np.concatenate(column) for column in columns))

    def _assemble(self, nodes: "_Nodes") -> SampledTrees:
        order = np.argsort(nodes.trees, kind="stable")
        place = np.empty(len(order) + 1, dtype=np.int64)
        place[order], place[-1] = np.arange(len(order)), NO_PARENT
        parents, states, actions = place[nodes.parents[order]], nodes.states[order], nodes.actions[order]
        root = parents == NO_PARENT
        tree = TreeArrays.build(
            parents,
            np.where(root, 0.0, self.rewards[states]),
            tree_ids=nodes.trees[order],
            state_ids=states,
            action_ids=actions,
        )
        return SampledTrees(tree, states, actions)


@dataclass(frozen=True, eq=False)
class _Nodes:
    parents: IntArray
    states: IntArray
    actions: IntArray
    trees: IntArray


def _draw(rng: np.random.Generator, cumulative: FloatArray) -> IntArray:
    """Draws one index per row of cumulative probabilities."""
    drawn = (rng.random(len(cumulative))[:, None] > cumulative).sum(axis=1)
    return np.minimum(drawn, cumulative.shape[1] - 1)
