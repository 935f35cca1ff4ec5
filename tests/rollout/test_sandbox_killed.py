"""A sandbox that is killed in mid-rollout costs its own episode one step, and no other anything."""

import os
import signal
from typing import Any, ClassVar

import pytest
from envs_for_tests import call

import agentenv as ae
from agentenv.rollout import Concurrent, InStep, Rollout
from agentenv.sandboxes import SandboxSpec, open_sandbox
from agentenv.sandboxes.namespace_host import pid_of
from agentenv.stats import episode_stats
from agentenv.types import message_text


class Notes(ae.ToolEnv):
    """Appends to a file; the second step of the rollouts ordered here kills its own sandbox from outside, once."""

    max_steps = 3
    sandbox: Any
    to_kill: ClassVar[set[int]] = set()

    def make_sandbox(self) -> Any:
        return open_sandbox(SandboxSpec(base={"note": "0\n"}), backend="namespace")

    def start(self, task):
        return "There is a file called note."

    @ae.tool
    def append(self, number: int) -> str:
        """Append a number.

        Args:
            number: what to append.
        """
        if self.step_count == 1 and number in self.to_kill:
            self.to_kill.remove(number)
            os.kill(pid_of(self.sandbox._held.pidfd), signal.SIGKILL)
        return self.sandbox.exec(["sh", "-c", f"echo {number} >> note; cat note"]).stdout


class Numbers:
    """Appends numbers that depend on the rollout's seed alone."""

    def act(self, contexts):
        return [ae.Action.parse(call("append", number=context.seed % 1000)) for context in contexts]


def grow(executor, **options):
    with Rollout(Notes, Numbers(), executor=executor, seed=3, **options) as rollout:
        (tree,) = rollout.grow([None], 6)
    return tree, rollout


@pytest.mark.parametrize("make_executor", [InStep, lambda: Concurrent(agent_threads=4)])
def test_a_killed_sandbox_costs_one_step_of_its_own_episode(make_executor):
    executor = make_executor()
    whole, _ = grow(executor)
    second = [node for node in whole.nodes if node.info.get("step_count") == 2]
    victims = [node for node in second if node.rollout in {1, 4}]
    actions: Any = [node.action for node in victims]
    Notes.to_kill = {int(action.tool_calls[0].arguments["number"]) for action in actions}
    assert len(Notes.to_kill) == 2
    tree, rollout = grow(executor)
    executor.close()
    broken = [node for node in tree.nodes if node.info.get("breakages")]
    assert (rollout.failures, len(broken), episode_stats([tree]).breakages) == (0, 2, 2)
    assert {(node.rollout, node.info["step_count"], node.reward) for node in broken} == {(1, 2, 0.0), (4, 2, 0.0)}
    untouched = [[n for n in t.nodes if n.rollout not in {1, 4}] for t in (whole, tree)]
    assert [(n.action, n.observation, n.reward) for n in untouched[0]] == [
        (n.action, n.observation, n.reward) for n in untouched[1]
    ]
    ends = [tree.nodes[leaf] for leaf in tree.leaves()]
    assert len(ends) == 6, "no episode failed"
    for node in broken:
        first, last = (next(n for n in tree.nodes if (n.rollout, n.info.get("step_count")) == (node.rollout, step))
                       for step in (1, 3))  # fmt: skip
        assert message_text(last.observation[0]).startswith(message_text(first.observation[0]))
        assert len(message_text(last.observation[0]).split()) == 3, "the lost step is not in the file"
