"""Agents that show their model something else at one node: what is kept is what was seen, in memory and in the file."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from envs_for_tests import Counted, Dice, Flaky, GuessingAgent, SlowGuessingAgent, signature

from agentenv.errors import TreeError, VerifierError
from agentenv.rollout import Rollout
from agentenv.serialize import read_trees
from agentenv.tree import Anchor, EpisodeTree

pytestmark = pytest.mark.usefixtures("nothing_stays_open")
TASKS = [{"goal": 30}, {"goal": 25}]


class Dated:
    """Shows the model the day, another one in a share of the calls; notes what it showed for which answer."""

    share = 4

    def __init__(self):
        super().__init__()
        self.shown: dict[Any, Any] = {}

    def choose(self, context):
        action = GuessingAgent().choose(context)
        day = 9000 + (context.seed % self.share == 0)
        action = replace(action, prompt_token_ids=(*(action.prompt_token_ids or ()), day))
        self.shown[action.logprobs] = action.prompt_token_ids
        return action


class DatedAgent(Dated, GuessingAgent):
    """Is asked for all at once."""


class SlowDatedAgent(Dated, SlowGuessingAgent):
    """Answers in any order."""


def rollouts(trees: list[EpisodeTree]):
    return {(i, node.rollout) for i, tree in enumerate(trees) for node in tree.nodes[1:]}


def check_what_was_shown(trees: list[EpisodeTree], shown):
    for tree in trees:
        for node in tree.nodes[1:]:
            if node.action is not None and node.action.token_ids is not None and node.reward is not None:
                assert tree.prompt_token_ids(node.parent) == shown[node.action.logprobs]


@pytest.mark.parametrize("agent", [DatedAgent, SlowDatedAgent])
@pytest.mark.parametrize("make_env", [Counted, Flaky])
def test_a_rollout_that_saw_something_else_costs_itself_alone(tmp_path, make_env, agent):
    path = tmp_path / "trees.jsonl"
    actor = agent()
    with Rollout(make_env, actor, seed=2, record=path, retries=1) as rollout:
        with pytest.raises(TreeError, match=r"(\d+) of 20 rollouts could not be kept, the others are in their trees"):
            rollout.grow(TASKS, 10)
        trees = rollout.trees
        kept = rollouts(trees)
        assert 2 < len(kept) < 20
        assert rollout.ledger.episodes == 20, "they were played, and cost something"
        anchors = [Anchor(i, max(tree.snapshots), 8) for i, tree in enumerate(trees)]
        words = (
            r"of 16 rollouts could not be kept.* two actions from node " + f"({anchors[0].node}|{anchors[1].node}) of"
        )
        with pytest.raises(TreeError, match=words):
            rollout.extend(trees, anchors)
        assert kept < rollouts(trees)
        assert rollout.ledger.episodes == 36
    check_what_was_shown(trees, actor.shown)
    assert [signature(tree) for tree in read_trees(path)] == [signature(tree) for tree in trees]


def test_a_run_that_goes_on_on_another_day_keeps_what_there_was_and_says_so(tmp_path):
    class Monday(DatedAgent):
        share = 1 << 64

    class Tuesday(DatedAgent):
        share = 1

    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, Monday(), record=path) as rollout:
        rollout.grow(TASKS, 2)
    with (
        pytest.raises(
            TreeError, match=r"4 of 8 rollouts could not be kept.*tree 0, rollout 2: two actions from node 0"
        ),
        Rollout(Dice, Tuesday(), record=path, resume=True) as other,
    ):
        other.grow(TASKS, 4)
    assert rollouts(other.trees) == rollouts(read_trees(path)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    with Rollout(Dice, Monday(), record=path, resume=True) as again:
        trees = again.grow(TASKS, 4)
    with Rollout(Dice, Monday()) as whole:
        assert [signature(tree) for tree in trees] == [signature(tree) for tree in whole.grow(TASKS, 4)]
    assert [signature(tree) for tree in read_trees(path)] == [signature(tree) for tree in trees]


def test_a_rollout_whose_attempts_differ_leaves_no_prompt_to_the_others():
    class FirstDay(DatedAgent):
        """The very first answer is of another day."""

        def choose(self, context):
            self.share = 1 << 64 if self.shown else 1
            return super().choose(context)

    class BreaksOnce(Dice):
        """The second step of all breaks."""

        steps = 0

        def advance(self, action, /, *, snapshot=False):
            BreaksOnce.steps += 1
            if BreaksOnce.steps == 2:
                msg = "the verifier did not answer"
                raise VerifierError(msg)
            return super().advance(action, snapshot=snapshot)

    with (
        pytest.raises(TreeError, match=r"1 of 5 rollouts could not be kept.*tree 0, rollout 0"),
        Rollout(BreaksOnce, FirstDay(), seed=1, max_envs=1) as rollout,
    ):
        rollout.grow([{"goal": 30}], 5)
    assert rollout.failures == 1
    assert rollouts(rollout.trees) == {(0, 1), (0, 2), (0, 3), (0, 4)}


def test_a_recorded_rollout_that_fits_no_tree_costs_itself_alone(tmp_path):
    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, GuessingAgent(), record=path) as rollout:
        rollout.grow([{"goal": 30}], 4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(line for line in lines if line.get("rollout") == 2)["reward"] = math.nan
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with (
        pytest.raises(TreeError, match=r"1 of 6 rollouts .* tree 0, rollout 2: reward must be a finite number"),
        Rollout(Dice, GuessingAgent(), record=path, resume=True) as other,
    ):
        other.grow([{"goal": 30}], 6)
    assert rollouts(other.trees) == {(0, i) for i in (0, 1, 3, 4, 5)}
    assert other.ledger.episodes == 2
