"""Rollout when something breaks: failures are retried and counted, never zeros; bugs propagate; nothing stays open."""

import pytest
from envs_for_tests import (
    Boxed,
    BrokenModel,
    Counted,
    Flaky,
    GuessingAgent,
    SlowGuessingAgent,
    signature,
)
from growing import grow

import agentenv as ae
from agentenv.errors import InfrastructureError
from agentenv.protocols import AsyncAgent
from agentenv.rollout import Rollout

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


def failed_nodes(tree):
    return [i for i, node in enumerate(tree.nodes) if node.reward is None]


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
def test_a_failure_of_the_environment_has_no_reward_is_counted_and_tried_again(agent):
    trees, rollout = grow(agent(), Flaky, tasks=[{"goal": 30}] * 3, num_rollouts=6, retries=50)
    broken = [node for tree in trees for node in failed_nodes(tree)]
    assert rollout.failures == len(broken) > 5
    for tree in trees:
        good = [leaf for leaf in tree.leaves() if tree.nodes[leaf].reward is not None]
        assert len(good) == 6, "every rollout ended in the end"
        for node in failed_nodes(tree):
            assert tree.nodes[node].info == {"failure": "VerifierError: the verifier did not answer"}
            assert not tree.children(node)
            assert node not in tree.snapshots
            assert tree.episode_return(node) is None
        arrays = tree.arrays()
        assert (~arrays.valid).sum() == len(failed_nodes(tree))
        assert arrays.leaf_counts[0] == 6, "a failure is no trajectory"
    in_step, _ = grow(GuessingAgent(), Flaky, tasks=[{"goal": 30}] * 3, num_rollouts=6, retries=50)
    assert [signature(tree) for tree in in_step] == [signature(tree) for tree in trees]


def test_retries_end_and_leave_no_reward():
    class AlwaysDown(Flaky):
        share = 2.0

    class Rolls:
        def act(self, contexts):
            return [ae.Action("", (ae.ToolCall("roll", {}),)) for _ in contexts]

    ended = []
    (tree,), rollout = grow(Rolls(), AlwaysDown, tasks=[None], retries=2, on_end=lambda: ended.append(1))
    assert len(tree.children(0)) == len(failed_nodes(tree)) == 12 == rollout.failures
    assert len(ended) == 4
    assert not tree.arrays().is_trajectory.any()


def test_a_failure_of_the_agent_on_a_batch_is_the_matter_of_those_that_fail_alone():
    (whole,), _ = grow(BrokenModel({}), tasks=[{"goal": 30}], num_rollouts=4)
    (tree,), rollout = grow(BrokenModel({1}), tasks=[{"goal": 30}], num_rollouts=4)
    assert rollout.failures == 0 and signature(tree) == signature(whole), "each was asked for once more, alone"
    (tree,), rollout = grow(BrokenModel({1, 3}), tasks=[{"goal": 30}], num_rollouts=4)
    assert rollout.failures == len(failed_nodes(tree)) == 1
    assert tree.arrays().leaf_counts[0] == 4


def test_an_agent_that_fails_alone_too_is_away_and_the_whole_batch_is_tried_again():
    model = BrokenModel({1, 2, 3})
    trees, rollout = grow(model, tasks=[{"goal": 30}], num_rollouts=8)
    (tree,) = trees
    broken = failed_nodes(tree)
    assert rollout.failures == len(broken) > 2, "after two in a row nobody is asked for"
    for node in broken:
        assert tree.nodes[node].info == {"failure": "AgentError: the model server did not answer"}
        assert tree.nodes[node].action == ae.Action()
        assert len(tree.path(node)) == 3, "the step before was taken"
    assert tree.arrays().leaf_counts[0] == 8


def test_an_agent_that_goes_away_after_a_step_leaves_that_step_in_failures_only():
    (tree,), rollout = grow(BrokenModel(range(1, 100)), tasks=[{"goal": 30}], retries=0)
    ended = sum(node.ended and node.reward is not None for node in tree.nodes)
    assert rollout.failures == len(failed_nodes(tree)) == 4 - ended > 0
    assert tree.arrays().leaf_counts[0] == ended
    assert [i for i in tree.leaves() if not tree.nodes[i].ended] == [], "no half of a rollout looks like a whole one"


def test_another_attempt_gets_other_random_numbers():
    seeds = []

    class Recording(BrokenModel):
        def act(self, contexts):
            seeds.append([context.seed for context in contexts])
            return super().act(contexts)

    grow(Recording({0, 1, 2}), tasks=[None])
    assert [*map(len, seeds[:4])] == [4, 1, 1, 4]
    assert not set(seeds[0]) & set(seeds[3])


def test_a_failure_of_a_server_fails_one_episode_and_is_tried_again():
    class Server(AsyncAgent):
        model = BrokenModel({0, 2})

        async def respond(self, context):
            return self.model.act([context])[0]

    (tree,), rollout = grow(Server(), tasks=[None])
    assert rollout.failures == 2 == len(failed_nodes(tree))
    assert tree.arrays().leaf_counts[0] == 4


def test_an_agent_that_stays_away_leaves_failures_only():
    (tree,), rollout = grow(BrokenModel(range(100)), tasks=[None], retries=1)
    assert rollout.failures == len(failed_nodes(tree)) == 8
    assert len(tree) == 9


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
def test_a_failure_of_restore_is_counted_and_tried_again(agent):
    Flaky.failing_restores = 3

    class Steady(Flaky):
        share = 0.0

    (tree,), rollout = grow(agent(), Steady, tasks=[None], retries=3)
    assert rollout.failures == 3 == len(failed_nodes(tree))
    assert {tree.nodes[node].info["failure"] for node in failed_nodes(tree)} == {
        "SandboxError: the sandbox did not come back"
    }
    assert tree.arrays().leaf_counts[0] == 4


def test_a_failure_of_reset_is_tried_again_and_is_a_failed_tree_when_it_stays():
    Flaky.failing_resets = 2
    (tree,), rollout = grow(make_env=Flaky, tasks=[None], retries=20)
    assert rollout.failures == 2 + len(failed_nodes(tree))
    Flaky.failing_resets = 10
    (tree,), rollout = grow(make_env=Flaky, tasks=[None], retries=2)
    assert Flaky.failing_resets == 7
    assert rollout.failures == 3
    assert [node.reward for node in tree.nodes] == [0.0, None]
    assert tree.nodes[1].info == {"failure": "reset: VerifierError: no verifier yet"}
    assert not tree.arrays().valid[1]


def test_a_sandbox_that_died_is_opened_afresh():
    class Dies(Boxed):
        deaths = 2

        @ae.tool
        def write(self, text: str) -> str:
            """Append to the log."""
            if Dies.deaths and self.step_count == 1:
                Dies.deaths -= 1
                self.sandbox.dead = True
            return super().write(text)

    class Writes:
        def act(self, contexts):
            return [ae.Action("", (ae.ToolCall("write", {"text": "a"}),)) for _ in contexts]

    (tree,), rollout = grow(Writes(), Dies, tasks=[None], num_rollouts=2)
    assert rollout.failures == 2
    assert tree.arrays().leaf_counts[0] == 2
    good = [leaf for leaf in tree.leaves() if tree.nodes[leaf].reward is not None]
    assert {tree.nodes[leaf].observation[0]["content"] for leaf in good} == {"aaaaa"}


# ---------------------------------------------------------------------- bugs


class WrongNumber(GuessingAgent):
    def act(self, contexts):
        return super().act(contexts)[:-1]


class Raises(GuessingAgent):
    def act(self, contexts):
        msg = "a bug"
        raise KeyError(msg)


class SlowRaises(SlowGuessingAgent):
    def choose(self, context):
        return Raises().act([context])[0]


@pytest.mark.parametrize(
    ("agent", "error", "words"),
    [
        (WrongNumber, ValueError, r"WrongNumber\.act must return one action per context: got 11 for 12"),
        (Raises, KeyError, "a bug"),
        (SlowRaises, KeyError, "a bug"),
    ],
)
def test_a_bug_of_the_agent_propagates_and_leaves_nothing_open(agent, error, words):
    with pytest.raises(error, match=words):
        grow(agent())
    assert not Counted.opened


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
def test_a_bug_of_the_environment_propagates_and_leaves_nothing_open(agent):
    class Buggy(Counted):
        @ae.tool
        def hold(self) -> str:
            """Stop."""
            return str(1 // 0)

    with pytest.raises(ZeroDivisionError):
        grow(agent(), Buggy)
    assert not Counted.opened


def test_the_first_bug_stops_the_other_threads():
    class Endless(Counted):
        max_steps = None

    class Bug(SlowGuessingAgent):
        raised = False

        def choose(self, context):
            if len(context.messages) > 10 and not self.raised:
                self.raised = True
                msg = "a bug"
                raise KeyError(msg)
            return ae.Action("", (ae.ToolCall("roll", {}),), (1,), None, (*context.token_ids, 1))

    with pytest.raises(KeyError, match="a bug"):
        grow(Bug(), Endless, tasks=[None])
    assert not Counted.opened


def test_the_pool_is_reused_and_closed_twice():
    rollout = Rollout(Counted, GuessingAgent())
    rollout.grow([None], 3)
    assert len(Counted.opened) == 3
    rollout.grow([None, None], 1)
    assert len(Counted.opened) == 3
    rollout.close()
    rollout.close()
    assert not Counted.opened
    rollout.grow([None], 1)
    rollout.close()


def test_infrastructure_failures_are_not_bugs_and_bugs_are_not_failures():
    assert not issubclass(KeyError, InfrastructureError)
    with pytest.raises(KeyError):
        grow(Raises(), retries=100)
