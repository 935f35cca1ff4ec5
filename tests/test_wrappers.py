"""Wrappers pass everything on and stay branchable; `RecordTree` grows a tree by hand."""

import math
import pickle
import re
from typing import Any

import pytest
from envs_for_tests import Counted, Dice, Flaky, Guess, call, guess, texts

import agentenv as ae
from agentenv.errors import InfrastructureError, SnapshotError, TreeError
from agentenv.protocols import SteppableEnv
from agentenv.wrappers import LimitObservation, RecordTree, TransformReward, Wrapper


def test_a_wrapper_passes_everything_on():
    inner = Dice()
    env = Wrapper(Wrapper(inner))
    assert isinstance(env, SteppableEnv)
    observation, info = env.reset(seed=0, options={"task": {"goal": 3}})
    assert (texts(observation), info["step_count"]) == ("Reach 3.", 0)
    assert (env.env_id, env.task, env.tools) == (inner.env_id, inner.task, inner.tools)
    assert env.unwrapped is inner
    snapshot = env.snapshot()
    first = env.step(call("roll", sides=1000))
    assert env.state_signature() == inner.state_signature()
    action = ae.Action.parse(call("roll"))
    assert env.action_signature(action) == inner.action_signature(action)
    env.restore(snapshot)
    env.reseed(5)
    assert env.step(call("roll", sides=1000)) != first
    env.restore(snapshot)
    twins = env.fork(2)
    assert [type(twin) for twin in twins] == [Wrapper, Wrapper]
    assert twins[0].step(call("roll", sides=1000)) == first == twins[1].step(call("roll", sides=1000))
    assert len({id(e) for e in (inner, twins[0].unwrapped, twins[1].unwrapped)}) == 3


def test_closing_a_wrapper_closes_what_is_inside():
    Counted.opened.clear()
    env = Wrapper(Counted())
    env.reset()
    (twin,) = env.fork(1)
    assert len(Counted.opened) == 2
    twin.close()
    env.close()
    assert not Counted.opened


def test_rewards_are_transformed_and_the_raw_one_is_kept():
    env = TransformReward(Dice(), lambda reward, info: reward - info["step_count"])
    env.reset(seed=0)
    (twin,) = env.fork(1)
    for each in (env, twin):
        _, reward, _, _, info = each.step(call("roll"))
        assert (reward, info["raw_reward"], info["rewards"]) == (-1.125, -0.125, {"cost": -0.125})
    assert twin.transform is env.transform


@pytest.mark.parametrize("returned", ["1", None, math.nan, -math.inf, [1.0]])
def test_a_transformed_reward_that_is_no_finite_number_is_refused(returned):
    env = TransformReward(Dice(), lambda reward, info: returned)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=rf"transform must return a finite number, got {re.escape(repr(returned))}"):
        env.step(call("roll"))


@pytest.mark.parametrize("wrong", [0, True, 2.5, "4"])
def test_how_long_messages_may_be_is_a_count(wrong):
    with pytest.raises(ValueError, match=r"^max_chars must be (an integer|at least 1), got "):
        LimitObservation(Guess(), wrong)


def test_long_messages_are_cut_in_the_middle_and_say_so():
    class Long(ae.Env):
        def start(self, task):
            return "0123456789" * 2

        def respond(self, action) -> Any:
            return [{"role": "user", "content": action.content}, {"role": "user", "content": "short"}]

    env = LimitObservation(Long(), 5)
    assert texts(env.reset()[0]) == "012\n[15 characters cut]\n89"
    observation = env.step("abcdef")[0]
    assert [message["content"] for message in observation] == ["abc\n[1 characters cut]\nef", "short"]
    assert env.step("abcde")[0][0]["content"] == "abcde"
    assert LimitObservation(Long(), 1).reset()[0][0]["content"] == "0\n[19 characters cut]\n"
    (twin,) = env.fork(1)
    assert "characters cut" in twin.step("abcdef")[0][0]["content"]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "abc"}, image, {"type": "text", "text": "def"}]
    assert env._cut_message({"role": "user", "content": parts})["content"] == [
        {"type": "text", "text": "abc\n[1 characters cut]\nef"},
        image,
    ]
    with pytest.raises(ValueError, match="max_chars must be at least 1, got 0"):
        LimitObservation(Long(), 0)


# ---------------------------------------------------------------------- RecordTree


def recorder(cls: Any = Guess, **kwargs) -> Any:
    env = RecordTree(cls(**kwargs))
    env.reset(seed=0)
    return env


def test_an_episode_is_recorded_and_branches_where_it_is_restored():
    env = recorder()
    target = env.unwrapped.state.target
    env.step(guess(1))
    env.step(guess(2))
    env.goto(1)
    observation, reward, *_ = env.step(guess(target))
    tree = env.tree
    assert [node.parent for node in tree.nodes] == [-1, 0, 1, 1]
    assert (tree.nodes[3].observation, tree.nodes[3].reward, tree.nodes[3].terminated) == (observation, reward, True)
    assert tree.nodes[3].info["step_count"] == 2
    assert tree.nodes[1].action_signature == '[["guess", {"mapping": [["number", 1]]}]]'
    assert tree.nodes[0].state_signature == tree.nodes[1].state_signature != tree.nodes[3].state_signature
    assert (tree.env_id, tree.metadata) == ("Guess-v0", {"seed": 0})
    env.goto(2)
    assert env.unwrapped.step_count == 2
    env.goto(3)
    assert env.node == 3


def test_one_episode_is_forked_at_every_step_and_all_record_into_one_tree():
    env = recorder(Dice)
    for _ in range(3):
        left, right = env.fork(2)
        left.reseed(1)
        right.reseed(2)
        answers = [each.step(call("roll", sides=10**6))[0] for each in (left, right)]
        assert answers[0] != answers[1]
        assert left.tree is right.tree is env.tree
        env.step(call("roll"))
    assert [node.parent for node in env.tree.nodes] == [-1, 0, 0, 0, 3, 3, 3, 6, 6, 6]
    assert len(env.tree.leaves()) == 7
    assert env.node == 9


def test_a_snapshot_of_the_tree_is_restored_to_its_node():
    env = recorder(Dice)
    first = env.snapshot()
    env.step(call("roll"))
    second = env.snapshot()
    env.step(call("roll"))
    env.restore(first)
    assert env.node == 0
    env.restore(pickle.loads(pickle.dumps(second)))
    assert env.node == 1
    env.restore(env.tree.snapshots[2])
    assert env.node == 2


def test_a_snapshot_after_reseed_is_known_too():
    env = recorder(Dice)
    env.reseed(5)
    snapshot = env.snapshot()
    answer = env.step(call("roll", sides=10**6))[0]
    env.restore(snapshot)
    assert env.node == 0
    assert env.step(call("roll", sides=10**6))[0] == answer
    assert [node.parent for node in env.tree.nodes] == [-1, 0, 0]


def test_equal_states_at_two_nodes_are_told_apart():
    env = recorder(Dice)
    left, right = env.fork(2)
    for each in (left, right):
        each.step(call("roll"))
    snapshots = [left.snapshot(), right.snapshot()]
    assert snapshots[0] == snapshots[1]
    assert [left.node, right.node] == [1, 2]
    env.restore(snapshots[0])
    assert env.node == 1
    env.restore(snapshots[1])
    assert env.node == 2


def test_a_foreign_snapshot_is_refused():
    env = recorder(Dice)
    with pytest.raises(SnapshotError, match="RecordTree restores only snapshots of its own tree"):
        env.restore(recorder(Guess).snapshot())
    with pytest.raises(SnapshotError, match="its own tree"):
        RecordTree(Dice()).restore(env.snapshot())


@pytest.mark.parametrize("node", [-1, 7])
def test_a_node_that_is_not_there_is_named(node):
    with pytest.raises(TreeError, match=f"node {node} cannot be restored: there is no such node"):
        recorder().goto(node)
    with pytest.raises(TreeError, match=rf"node {node} cannot be restored: call reset\(\) first"):
        RecordTree(Guess()).goto(node)


def test_a_failure_is_recorded_without_a_reward_and_undone_by_going_back():
    class Down(Flaky):
        share = 2.0

    env = recorder(Down)
    with pytest.raises(InfrastructureError):
        env.step(call("roll"))
    assert (env.node, env.tree.nodes[1].reward) == (1, None)
    assert env.tree.nodes[1].info == {"failure": "VerifierError: the verifier did not answer"}
    with pytest.raises(TreeError, match="node 1 cannot be restored: infrastructure failed there"):
        env.goto(1)
    env.goto(0)
    assert env.step(call("hold"))[2]
    assert [node.parent for node in env.tree.nodes] == [-1, 0, 0]


def test_a_reset_starts_a_new_tree_and_forgets_the_old_snapshots():
    env = recorder()
    old, snapshot = env.tree, env.snapshot()
    env.reset(seed=1)
    assert env.tree is not old
    assert len(env.tree) == 1
    with pytest.raises(SnapshotError):
        env.restore(snapshot)


def test_recording_goes_through_other_wrappers():
    env: Any = RecordTree(TransformReward(LimitObservation(Guess(), 4), lambda reward, info: reward + 1))
    env.reset(seed=0)
    env.step(guess(0))
    assert env.tree.nodes[1].reward == 1.0
    assert env.tree.nodes[0].observation[0]["content"] == "I \n[36 characters cut]\n0."
    assert isinstance(env.unwrapped, Guess)
