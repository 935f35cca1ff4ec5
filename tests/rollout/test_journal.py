"""What a journal promises: no finished rollout is lost or invented, whatever ends the run, and a run can go on."""

import copy
import errno
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from envs_for_tests import Counted, Dice, GuessingAgent, SlowGuessingAgent, signature
from growing import TASKS
from rollout_faults import Buggy, Sleepy, slow_run

import agentenv as ae
from agentenv.errors import SnapshotError, TreeError, TreeFileError
from agentenv.rollout import Rollout, revisit
from agentenv.serialize import Journal, TreeWriter, read_trees, write_trees
from agentenv.tree import Anchor
from agentenv.wrappers import RecordTree, TransformReward, Wrapper

pytestmark = pytest.mark.usefixtures("nothing_stays_open")
TESTS = Path(__file__).parent.parent


def chains(trees):
    """What every rollout did, by tree and number."""
    found: dict[tuple[int, int], list[Any]] = {}
    for i, tree in enumerate(trees):
        for index, node in enumerate(tree.nodes[1:], 1):
            prompt = tree.prompt_token_ids(node.parent)
            entry = (node.attempt, node.action, node.observation, node.reward, tree.token_ids(index), prompt)
            found.setdefault((i, node.rollout), []).append(entry)
    return found


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
def test_the_journal_holds_the_trees_that_were_grown(tmp_path, agent):
    path = tmp_path / "new" / "trees.jsonl"
    with Rollout(Counted, agent(), record=path) as rollout:
        trees = rollout.grow(TASKS, 4)
        rollout.extend(trees, [Anchor(i, node, 2) for i, tree in enumerate(trees) for node in sorted(tree.snapshots)])
        more = rollout.grow([{"goal": 11}], 2)
    again = read_trees(path)
    assert [signature(tree) for tree in again] == [signature(tree) for tree in (*trees, *more)]
    write_trees(tmp_path / "copy.jsonl", again)
    assert [signature(tree) for tree in read_trees(tmp_path / "copy.jsonl")] == [signature(tree) for tree in again]


def test_every_rollout_is_written_as_it_ends(tmp_path):
    path = tmp_path / "trees.jsonl"
    seen = []

    def on_end():
        seen.append(len(chains(read_trees(path))))

    with Rollout(Counted, GuessingAgent(), record=path, max_envs=2, on_end=on_end) as rollout:
        rollout.grow(TASKS, 3)
    assert seen == list(range(1, 10))


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
def test_a_bug_in_one_environment_loses_no_rollout_that_ended(tmp_path, agent):
    Buggy.goals = set()
    with Rollout(Buggy, agent(), max_envs=2) as rollout:
        whole = chains(rollout.grow(TASKS[:2], 6))
    Buggy.goals = {30}
    path = tmp_path / "trees.jsonl"
    with pytest.raises(KeyError, match="a bug"), Rollout(Buggy, agent(), max_envs=2, record=path) as rollout:
        rollout.grow(TASKS[:2], 6)
    kept = chains(rollout.trees)
    assert len(kept) >= 6, "the six rollouts of the first task ended before, or in the same round"
    assert kept == {key: whole[key] for key in kept}
    assert chains(read_trees(path)) == kept


def test_what_ends_beside_a_bug_is_kept():
    class OneBug(Counted):
        @ae.tool
        def hold(self) -> str:
            """Ends, or breaks."""
            if self.task.goal == 30:
                msg = "a bug"
                raise KeyError(msg)
            return self.finish("held", reward=1.0)

    class Holds:
        def act(self, contexts):
            return [ae.Action("", (ae.ToolCall("hold", {}),)) for _ in contexts]

    with pytest.raises(KeyError), Rollout(OneBug, Holds()) as rollout:
        rollout.grow([{"goal": 5}, {"goal": 30}, {"goal": 7}], 3)
    assert [len(tree) - 1 for tree in rollout.trees] == [3, 0, 3]


class NoNumber(Wrapper):
    """Gives a reward that is none at its sixth step."""

    reward = math.nan

    def after_step(self, taken):
        return replace(taken, reward=self.reward) if taken.info["step_count"] == 6 else taken


class NoLimit(NoNumber):
    reward = -math.inf


def shaped(env):
    return TransformReward(env, lambda given, info: math.nan if info["step_count"] == 6 else given)


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (NoNumber, "reward must be a finite number, got nan; where it is unknown raise"),
        (NoLimit, "reward must be a finite number, got -inf; where it is unknown raise"),
        (shaped, "transform must return a finite number, got nan"),
    ],
    ids=["nan", "inf", "transform"],
)
def test_a_reward_that_no_tree_takes_is_a_bug_that_costs_no_rollout_that_ended(tmp_path, agent, wrap, said):
    path = tmp_path / "trees.jsonl"
    with (
        pytest.raises(ValueError, match=said),
        Rollout(lambda: wrap(Dice()), agent(), seed=1, record=path) as rollout,
    ):
        rollout.grow([{"goal": 30}], 12)
    assert 0 < len(chains(rollout.trees)) < 12
    assert all(tree.nodes[leaf].ended for tree in rollout.trees for leaf in tree.leaves()), "no half of a rollout"
    assert chains(read_trees(path)) == chains(rollout.trees)
    assert rollout.ledger.episodes == len(chains(rollout.trees))


def test_control_c_loses_nothing_and_the_run_goes_on(tmp_path):
    path = tmp_path / "trees.jsonl"
    count = 0

    def on_end():
        nonlocal count
        count += 1
        if count == 13:
            raise KeyboardInterrupt

    Sleepy.seconds = 0.0
    whole, _ = slow_run(tmp_path / "whole.jsonl", seconds=0.0)
    with (
        pytest.raises(KeyboardInterrupt),
        Rollout(Sleepy, GuessingAgent(), seed=3, max_envs=4, record=path, on_end=on_end) as rollout,
    ):
        rollout.grow([{"goal": 30}, {"goal": 25}], 20)
    assert not Counted.opened
    assert 13 <= len(chains(read_trees(path))) == len(chains(rollout.trees)) < 40
    resumed, again = slow_run(path, resume=True, seconds=0.0)
    assert [signature(tree) for tree in resumed] == [signature(tree) for tree in whole]
    assert again.ledger.episodes < 50 - 12, "what had ended was not played again"
    assert [signature(tree) for tree in read_trees(path)] == [signature(tree) for tree in whole]


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(tmp_path, which):
    path = tmp_path / "trees.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, "-P", str(TESTS / "rollout_faults.py"), str(path)], env=environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b'"last":true') < 12):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(which)
    _, error = process.communicate(timeout=20)
    assert process.returncode != 0
    assert which is signal.SIGKILL or b"KeyboardInterrupt" in error
    ended = len(chains(read_trees(path)))
    assert 12 <= ended < 50
    resumed, rollout = slow_run(path, resume=True, seconds=0.0)
    whole, _ = slow_run(tmp_path / "whole.jsonl", seconds=0.0)
    assert [signature(tree) for tree in resumed] == [signature(tree) for tree in whole]
    assert [signature(tree) for tree in read_trees(path)] == [signature(tree) for tree in whole]
    assert rollout.ledger.episodes == 50 - ended


@pytest.mark.parametrize("cut", [1, 7, 40, 150, 400])
def test_wherever_a_crash_cuts_the_file_what_is_left_is_read_and_completed(tmp_path, cut):
    path = tmp_path / "trees.jsonl"

    def run(**options):
        with Rollout(Dice, GuessingAgent(), seed=2, record=path, **options) as rollout:
            return rollout.grow(TASKS, 3)

    whole = chains(run())
    path.write_bytes(path.read_bytes()[:-cut])
    left = chains(read_trees(path, live=True))
    assert left == {key: whole[key] for key in left}
    assert len(left) == len(whole) - 1 if cut < 40 else len(left) < len(whole)
    assert chains(run(resume=True)) == whole == chains(read_trees(path))


def test_a_full_disk_ends_the_run_and_leaves_a_file_that_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "trees.jsonl"
    rollout = Rollout(Counted, GuessingAgent(), record=path, seed=1, max_envs=2)
    recorder: Any = rollout._recorder
    written = 0

    class Full:
        """A file on a disk that has room for some bytes more, and then for half of a write."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            nonlocal written
            if written > 4000:
                self.file.write(bytes(data[: len(data) // 2]))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += len(data)
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    recorder._writer._file = Full(recorder._writer._file)
    with pytest.raises(OSError, match="No space left"), rollout:
        rollout.grow([{"goal": 30}, {"goal": 25}], 12)
    assert path.read_bytes().endswith(b"\n")
    on_disk, in_memory = chains(read_trees(path)), chains(rollout.trees)
    assert 0 < len(on_disk) < 24
    assert on_disk == {key: in_memory[key] for key in on_disk}
    assert len(in_memory) >= len(on_disk) + 1, "what could not be written is in memory"
    with Rollout(Counted, GuessingAgent(), record=path, seed=1, resume=True) as again:
        trees = again.grow([{"goal": 30}, {"goal": 25}], 12)
    with Rollout(Counted, GuessingAgent(), seed=1) as other:
        assert [signature(tree) for tree in trees] == [
            signature(tree) for tree in other.grow([{"goal": 30}, {"goal": 25}], 12)
        ]


def test_a_real_full_disk(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space left"):
        TreeWriter("/dev/full")


def test_a_run_that_goes_on_must_be_the_same(tmp_path):
    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, GuessingAgent(), record=path) as rollout:
        rollout.grow([{"goal": 5}], 2)
    with pytest.raises(ValueError, match=r"record must name a new file, .* exists: set resume=True"):
        Rollout(Dice, GuessingAgent(), record=path)
    with pytest.raises(ValueError, match="resume needs record=PATH"):
        Rollout(Dice, GuessingAgent(), resume=True)
    for tasks, seed, told in (
        ([{"goal": 6}], 0, r"task \(.*5.* there, .*6.* here\):"),
        ([{"goal": 5}], 1, "seed:"),
    ):
        with (
            pytest.raises(TreeFileError, match=rf"tree 0 .* was grown from another {told}.* or record to another file"),
            Rollout(Dice, GuessingAgent(), record=path, seed=seed, resume=True) as other,
        ):
            other.grow(tasks, 2)
    (tmp_path / "other.jsonl").write_text('{"format": "something"}\n')
    with pytest.raises(TreeFileError, match="expected a header"):
        Rollout(Dice, GuessingAgent(), record=tmp_path / "other.jsonl", resume=True)


@pytest.mark.parametrize(
    ("first", "anchors", "words"),
    [
        (2, [Anchor(0, 0, 1)], "rollout 2 of tree 0 .* (0, 0, 1) there, (0, 0, 0) here"),
        (2, [Anchor(0, 2, 1)], "rollout 2 of tree 0 .* (0, 0, 1) there, (0, 0, 2) here"),
        (2, [Anchor(0, 1, 2), Anchor(1, 1, 1)], "rollout 2 of tree 1 .* (0, 0, 0) there, (0, 0, 1) here"),
        (3, [Anchor(0, 1, 1)], "rollout 2 of tree 0 .* (0, 0, 1) there, (0, 0, 0) here"),
        (1, [Anchor(0, 1, 1)], "rollout 1 of tree 0 .* (0, 0, 0) there, (0, 0, 1) here"),
    ],
)
def test_a_run_that_goes_on_must_ask_for_the_same_anchors(tmp_path, first, anchors, words):
    path = tmp_path / "trees.jsonl"

    def run(count, anchors, **options):
        with Rollout(Dice, GuessingAgent(), seed=4, record=path, **options) as rollout:
            rollout.extend(rollout.grow([{"goal": 30}] * 2, count), anchors)
        return rollout.trees

    asked = [Anchor(0, 1, 2), Anchor(1, 0, 1)]
    whole = chains(run(2, asked))
    with pytest.raises(TreeFileError, match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        run(first, anchors, resume=True)
    assert "ask for the anchors that it was grown from, or record to another file" in str(caught.value)
    assert chains(run(2, asked, resume=True)) == whole == chains(read_trees(path)), "and nothing was written"


@pytest.mark.parametrize("resume", [False, True])
def test_a_tree_that_another_rollout_began_is_refused_before_anything_is_played(tmp_path, resume):
    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, GuessingAgent(), seed=4) as other:
        elsewhere = other.grow([{"goal": 30}], 2)
    if resume:
        with Rollout(Dice, GuessingAgent(), seed=4, record=path) as rollout:
            rollout.grow([{"goal": 30}], 2)
    with Rollout(Dice, GuessingAgent(), seed=4, record=path, resume=resume) as rollout:
        own = rollout.grow([{"goal": 30}], 2)
        before = path.read_bytes(), rollout.ledger
        for stranger in (elsewhere[0], copy.deepcopy(own[0])):
            size = len(stranger)
            with pytest.raises(
                TreeError, match=r"trees\[1\] was not begun by this Rollout, and .*trees\.jsonl has no root"
            ):
                rollout.extend([own[0], stranger], [Anchor(0, 0, 1), Anchor(1, 0, 1)])
            assert (path.read_bytes(), rollout.ledger, len(stranger)) == (*before, size)
        rollout.extend([elsewhere[0], own[0]], [Anchor(1, 0, 1)])
    assert [signature(tree) for tree in read_trees(path)] == [signature(own[0])]
    with Rollout(Dice, GuessingAgent(), seed=4) as rollout:
        rollout.extend(elsewhere, [Anchor(0, 0, 1)])
    assert signature(elsewhere[0]) == signature(own[0])


def test_rollouts_that_failed_are_in_the_journal(tmp_path):
    from envs_for_tests import Flaky

    path = tmp_path / "trees.jsonl"
    with Rollout(Flaky, GuessingAgent(), record=path, retries=1) as rollout:
        trees = rollout.grow([None, None], 6)
    assert rollout.failures > 0
    assert [signature(tree) for tree in read_trees(path)] == [signature(tree) for tree in trees]


# ---------------------------------------------------------------------- going back without a snapshot


def test_a_node_is_revisited_by_its_actions():
    with Rollout(Dice, GuessingAgent()) as rollout:
        (tree,) = rollout.grow([{"goal": 1000}], 3)
        node = max(tree.snapshots, key=lambda i: len(tree.path(i)))
        rollout.extend([tree], [Anchor(0, node, 2)])
    deepest = max(tree.snapshots, key=lambda i: len(tree.path(i)))
    env = Dice()
    snapshot = revisit(env, tree, deepest)
    assert snapshot.state == tree.snapshots[deepest].state
    assert env.state_signature() == tree.nodes[deepest].state_signature


def test_an_environment_that_does_not_repeat_itself_is_named():
    class Drifting(Dice):
        rolls = 0

        @ae.tool
        def roll(self, sides: int = 6) -> str:
            """Roll one die."""
            Drifting.rolls += 1
            return f"{super().roll(sides)} ({Drifting.rolls})"

    with Rollout(Drifting, GuessingAgent()) as rollout:
        (tree,) = rollout.grow([{"goal": 1000}], 3)
    with pytest.raises(SnapshotError, match=r"Drifting-v0 did not repeat itself: task .*, step 1: observation was"):
        revisit(Drifting(), tree, max(tree.snapshots))


# ---------------------------------------------------------------------- stepping by hand


def test_what_is_stepped_by_hand_is_written_step_by_step(tmp_path):
    path = tmp_path / "trees.jsonl"
    with TreeWriter(path) as writer:
        env: Any = RecordTree(Dice(), record=writer)
        for seed in (1, 2):
            env.reset(seed=seed)
            for _ in range(3):
                env.step({"role": "assistant", "tool_calls": [{"function": {"name": "roll", "arguments": "{}"}}]})
                assert len(read_trees(path)[-1]) == len(env.tree)
            env.goto(1)
            env.step("nonsense")
            env.goto(3)
            env.step('<tool_call>{"name": "hold", "arguments": {}}</tool_call>')
            assert [signature(tree) for tree in read_trees(path)[-1:]] == [signature(env.tree)]
    assert len(read_trees(path)) == 2


def test_an_empty_journal_holds_nothing(tmp_path):
    journal = Journal(tmp_path / "none.jsonl")
    assert journal.root(0) is None
    assert journal.attempts(0, 0) is None


def test_a_file_has_one_writer_at_a_time(tmp_path):
    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, GuessingAgent(), record=path) as rollout:
        trees = rollout.grow([{"goal": 5}], 2)
        with pytest.raises(TreeFileError, match="is being written by another rollout"):
            Rollout(Dice, GuessingAgent(), record=path, resume=True)
        with pytest.raises(TreeFileError, match="is being written by another rollout"):
            write_trees(path, trees, append=True)
    write_trees(path, trees, append=True)
    assert len(read_trees(path)) == 2


def test_a_tree_that_begins_twice_is_named(tmp_path):
    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, GuessingAgent()) as rollout:
        write_trees(path, rollout.grow([None], 2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, *lines[1:]]))
    with pytest.raises(TreeFileError, match="tree 0 begins twice"):
        read_trees(path)
