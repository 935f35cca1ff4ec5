"""The whole loop on a live environment: grow trees, learn where outcomes are open, fork there, assign credit."""

import random

import numpy as np

import agentenv as ae
from agentenv.arrays import TreeArrays
from agentenv.credit import (
    HashedPredictor,
    allocate_prefixes,
    allocate_roots,
    effective_ratio,
    rtmc_advantages,
    rtmc_visits,
)
from agentenv.credit.predictor import predictor_targets, prefix_at
from agentenv.credit.trace import prefixes_of
from agentenv.rollout import Rollout
from agentenv.tree import Anchor
from agentenv.types import Action, ToolCall


class Lock(ae.ToolEnv):
    """Open a lock: three digits from 0 to 2, the wrong one jams it for good."""

    max_steps = 3

    class State(ae.State):
        code: list[int] = []
        entered: int = 0
        jammed: bool = False

    def start(self, task):
        self.state.code = [1, 2, 0]
        return "locked"

    @ae.tool
    def turn(self, digit: int) -> str:
        """Enter one digit.

        Args:
            digit: from 0 to 2.
        """
        self.state.jammed |= digit != self.state.code[self.state.entered]
        self.state.entered += 1
        if self.state.entered == 3:
            return self.finish("open" if not self.state.jammed else "shut", reward=float(not self.state.jammed))
        return "click"


class Guesser:
    """Turns to digits at random, the right one half of the time."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    def act(self, contexts):
        return [
            Action(
                tool_calls=(ToolCall("turn", {"digit": self.random.choice([1, 2, 0, (1, 2, 0)[self.place(context)]])}),)
            )
            for context in contexts
        ]

    def place(self, context):
        return sum(message["role"] == "tool" for message in context.messages)


def test_trace_finds_the_open_prefixes_of_a_live_environment():
    rollout = Rollout(Lock, Guesser(), seed=0)
    trees = rollout.grow([None] * 6, num_rollouts=6)
    predictor = HashedPredictor()
    for _ in range(20):
        predictor.update(*predictor_targets(trees))
    before = TreeArrays.from_trees(trees)
    found = prefixes_of(before)
    success = predictor.predict([prefix_at(trees[t], int(i)) for t, i in zip(found.trees, found.local, strict=True)])
    jammed = np.array([not _alive(trees[t], int(i)) for t, i in zip(found.trees, found.local, strict=True)])
    assert success[jammed].mean() < success[~jammed].mean()
    plan = allocate_prefixes(success, found.outcomes, budget=24, maximum=6, anchors=found.nodes)
    rollout.extend(trees, [Anchor(*entry) for entry in plan.in_trees(before)])
    after = TreeArrays.from_trees(trees)
    assert after.is_trajectory.sum() == before.is_trajectory.sum() + plan.total == 36 + 24
    assert effective_ratio(after) >= effective_ratio(before)
    result = rtmc_advantages(after, discount=1.0, prior_count=0.5, values="graph")
    states = [not _alive(tree, i) for tree in trees for i in range(len(tree))]
    fatal = np.array(states) & ~np.array([states[p] if p >= 0 else False for p in after.parents])
    assert (result.advantages[fatal] <= 0).all()
    assert result.advantages[fatal].min() < -0.1
    assert (rtmc_visits(after).state >= 2).mean() > 0.5
    assert allocate_roots(predictor.predict([prefix_at(tree, 0) for tree in trees]), budget=12).total == 12


def _alive(tree, node):
    steps = [tree.nodes[i].action for i in tree.path(node)[1:]]
    digits = [action.tool_calls[0].arguments["digit"] for action in steps]
    return digits == [1, 2, 0][: len(digits)]
