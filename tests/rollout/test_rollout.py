"""Rollout: the same seed gives the same tree whatever the timing; failures of infrastructure are never zeros."""

from typing import Any

import pytest
from envs_for_tests import (
    Counted,
    Dice,
    Guess,
    GuessingAgent,
    Notes,
    SlowGuessingAgent,
    call,
    signature,
)
from growing import TASKS, grow
from hypothesis import given, settings
from hypothesis import strategies as st

import agentenv as ae
from agentenv.errors import TreeError
from agentenv.protocols import Agent, AsyncAgent
from agentenv.rollout import Rollout, derive_seed, rollout_trees
from agentenv.tree import Anchor

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


def anchors_of(trees, count=2):
    return [Anchor(i, node, count) for i, tree in enumerate(trees) for node in tree.snapshots]


# ---------------------------------------------------------------------- what is grown


def test_a_tree_has_the_task_the_rollouts_and_what_the_environment_answered():
    trees, rollout = grow()
    assert [tree.task["goal"] for tree in trees] == [5, 30, 20]
    assert [len(tree.children(0)) for tree in trees] == [4, 4, 4]
    assert rollout.failures == 0
    for tree in trees:
        assert (tree.env_id, tree.num_rollouts) == ("Counted-v0", 4)
        assert all(tree.nodes[leaf].ended for leaf in tree.leaves())
        for i, node in enumerate(tree.nodes[1:], 1):
            assert (i in tree.snapshots) == (not node.ended)
            assert node.info["step_count"] == len(tree.path(i)) - 1
            assert node.state_signature
            assert node.action_signature


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=10)
def test_the_same_seed_gives_the_same_trees_and_another_seed_others(seed, num_rollouts):
    first, second, other = (
        [signature(tree) for tree in grow(seed=s, num_rollouts=num_rollouts)[0]] for s in (seed, seed, seed + 1)
    )
    assert first == second
    assert first != other


def test_threads_with_random_delays_give_the_same_trees_as_one_batch():
    agent = SlowGuessingAgent()
    together, _ = grow()
    for _ in range(2):
        alone, _ = grow(agent)
        assert [signature(tree) for tree in alone] == [signature(tree) for tree in together]
        extra = anchors_of(together)
        assert extra
        with Rollout(Counted, agent) as threaded, Rollout(Counted, GuessingAgent()) as batched:
            for rollout, trees in ((threaded, alone), (batched, grow()[0])):
                rollout.extend(trees, extra)
                extended = [signature(tree) for tree in trees]
                assert len(extended[0][4]) > len(signature(together[0])[4])
                if rollout is threaded:
                    expected = extended
            assert extended == expected  # pyright: ignore[reportPossiblyUnboundVariable]
    assert agent.most_waiting > 1


def test_the_two_agents_are_what_rollout_takes_them_for():
    assert isinstance(SlowGuessingAgent(), AsyncAgent)
    assert isinstance(GuessingAgent(), Agent)
    assert not isinstance(GuessingAgent(), AsyncAgent)


def test_the_whole_frontier_goes_to_the_agent_in_one_call():
    class Counting(GuessingAgent):
        sizes: list[int] = []

        def act(self, contexts):
            self.sizes.append(len(contexts))
            return super().act(contexts)

    trees, _ = grow(Counting())
    alive = [sum(len(tree.path(leaf)) - 1 > step for tree in trees for leaf in tree.leaves()) for step in range(8)]
    assert Counting.sizes == [size for size in alive if size]
    assert Counting.sizes[0] == 12


def test_a_context_has_the_whole_conversation_the_tools_and_the_exact_tokens():
    seen = []

    class Recording(GuessingAgent):
        def act(self, contexts):
            seen.extend(contexts)
            return super().act(contexts)

    (tree,), _ = grow(Recording(), tasks=[None], num_rollouts=1)
    path = tree.path(tree.leaves()[0])
    for context, node in zip(seen, path, strict=False):
        assert list(context.messages) == tree.messages(node)
        assert context.tools == Dice().tools
        assert context.token_ids == tree.token_ids(node)
        observed = len(tree.nodes[node].observation)
        assert context.covered == (0 if node == 0 else len(context.messages) - observed)
    assert len({context.seed for context in seen}) == len(seen)


def test_siblings_of_a_stochastic_environment_differ_though_they_act_alike():
    class Rolls:
        def act(self, contexts):
            return [ae.Action("", (ae.ToolCall("roll", {"sides": 10**6}),)) for _ in contexts]

    (tree,), _ = grow(Rolls(), tasks=[None])
    answers = [tree.nodes[child].observation for child in tree.children(0)]
    assert len({str(answer) for answer in answers}) == 4
    assert len({tree.nodes[child].action_signature for child in tree.children(0)}) == 1
    assert all(tree.nodes[leaf].truncated for leaf in tree.leaves())


def test_seeds_depend_on_every_part_and_their_order():
    seeds = {derive_seed(1, 2), derive_seed(2, 1), derive_seed(12), derive_seed("1", 2), derive_seed(1, "2")}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2) == 7777801250388762567


# ---------------------------------------------------------------------- branching


def test_continuations_start_where_the_anchor_was_and_see_what_it_saw():
    trees, _ = grow(tasks=[{"goal": 30}])
    (tree,) = trees
    anchor = next(node for node in tree.snapshots if node and len(tree.path(node)) > 2)
    before = [signature(tree)[4][i] for i in range(len(tree))]
    old = list(tree.children(anchor))
    seen = []

    class Recording(GuessingAgent):
        def act(self, contexts):
            seen.extend(contexts)
            return super().act(contexts)

    with Rollout(Counted, Recording()) as rollout:
        rollout.extend(trees, [Anchor(0, anchor, 3)])
    assert list(tree.nodes[: len(before)]) == before
    new = [child for child in tree.children(anchor) if child not in old]
    assert len(new) == 3
    assert tree.num_rollouts == 7
    for context in seen[:3]:
        assert list(context.messages) == tree.messages(anchor)
        assert context.token_ids == tree.token_ids(anchor)
        assert context.covered == len(context.messages) - 1
    steps = len(tree.path(anchor)) - 1
    assert [tree.nodes[child].info["step_count"] for child in new] == [steps + 1] * 3


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_a_continuation_equals_a_replay_of_its_actions(seed):
    trees, _ = grow(make_env=Guess, agent=Hints(), tasks=[None], seed=seed, extend=())
    (tree,) = trees
    with Rollout(Guess, Hints()) as rollout:
        rollout.extend(trees, anchors_of(trees))
    for leaf in tree.leaves():
        env = Guess()
        env.reset(seed=tree.metadata["seed"])
        for node in tree.path(leaf)[1:]:
            recorded = tree.nodes[node]
            answer = env.step(recorded.action)[:4]
            assert answer == (recorded.observation, recorded.reward, recorded.terminated, recorded.truncated)
            assert env.state_signature() == recorded.state_signature


class Hints:
    """Guesses by its seed, in `Guess`."""

    def act(self, contexts):
        return [ae.Action("", (ae.ToolCall("guess", {"number": context.seed % 100 + 1}),)) for context in contexts]


def test_continuations_of_a_tree_recorded_by_hand():
    from agentenv.wrappers import RecordTree

    env: Any = RecordTree(Dice())
    env.reset(seed=3)
    env.step(call("roll"))
    with Rollout(Dice, GuessingAgent()) as rollout:
        rollout.extend([env.tree], [Anchor(0, 1, 2)])
    assert len(env.tree.children(1)) == 2


@pytest.mark.filterwarnings("ignore:the subprocess sandbox isolates nothing")
def test_a_tree_with_real_sandboxes_branches():
    class Appends:
        def act(self, contexts):
            return [ae.Action("", (ae.ToolCall("append", {"number": c.seed % 1000}),)) for c in contexts]

    trees, _ = grow(Appends(), lambda: Notes(max_steps=2), tasks=[None], num_rollouts=1)
    (tree,) = trees
    with Rollout(lambda: Notes(max_steps=2), Appends()) as rollout:
        rollout.extend(trees, [Anchor(0, 1)])
    first, second = (tree.nodes[leaf].observation[0]["content"].split() for leaf in tree.leaves())
    assert first[:-1] == second[:-1] == tree.nodes[1].observation[0]["content"].split()
    assert first[-1] != second[-1]


@pytest.mark.parametrize(
    ("anchor", "words"),
    [
        (lambda tree: Anchor(1, 0), r"anchor\.tree must be an index in \[0, 1\), got 1"),
        (lambda tree: Anchor(-1, 0), r"anchor\.tree must be an index in \[0, 1\), got -1"),
        (lambda tree: Anchor(0, 999), "node 999 cannot be an anchor: the tree has no such node"),
        (lambda tree: Anchor(0, -1), "node -1 cannot be an anchor: the tree has no such node"),
        (lambda tree: Anchor(0, tree.leaves()[0]), "cannot be an anchor: it has ended"),
    ],
)
def test_an_anchor_that_cannot_be_is_refused_before_anything_runs(anchor, words):
    trees, _ = grow(tasks=[None])
    before = signature(trees[0])
    with Rollout(Counted, GuessingAgent()) as rollout, pytest.raises(TreeError, match=words):
        rollout.extend(trees, [Anchor(0, 0), anchor(trees[0])])
    assert signature(trees[0]) == before


def test_an_anchor_without_a_snapshot_says_so():
    trees, _ = grow(tasks=[{"goal": 30}], keep_snapshots=False)
    assert list(trees[0].snapshots) == [0]
    inner = next(i for i, node in enumerate(trees[0].nodes) if i and not node.ended)
    with Rollout(Counted, GuessingAgent()) as rollout:
        with pytest.raises(TreeError, match=f"node {inner} cannot be an anchor: no snapshot was kept there"):
            rollout.extend(trees, [Anchor(0, inner)])
        rollout.extend(trees, [Anchor(0, 0), Anchor(0, 0, count=0)])
    assert len(trees[0].children(0)) == 5


def test_numbers_must_make_sense():
    with pytest.raises(ValueError, match="num_rollouts must be at least 1, got 0"):
        grow(num_rollouts=0)
    with pytest.raises(ValueError, match="retries must be at least 0, got -1"):
        grow(retries=-1)


# ---------------------------------------------------------------------- limits


def test_an_episode_with_too_many_tokens_is_truncated():
    (free,), _ = grow(tasks=[{"goal": 30}], num_rollouts=1, seed=4)
    path = free.path(free.leaves()[0])
    lengths = [len(free.token_ids(node)) for node in path]
    for step in range(1, len(path) - 1):
        (cut,), _ = grow(tasks=[{"goal": 30}], num_rollouts=1, seed=4, max_tokens=lengths[step])
        assert len(cut) == step + 1
        last = cut.nodes[step]
        assert (last.truncated, last.terminated, last.action) == (True, False, free.nodes[step].action)
        assert list(cut.snapshots) == list(range(step)), "nothing goes on from there"
        (longer,), _ = grow(tasks=[{"goal": 30}], num_rollouts=1, seed=4, max_tokens=lengths[step] + 1)
        assert len(longer) == step + 2
    (whole,), _ = grow(tasks=[{"goal": 30}], num_rollouts=1, seed=4, max_tokens=lengths[-1])
    assert signature(whole) == signature(free), "the end of the task wins"
    assert len(path) == 8


def test_the_end_of_every_rollout_is_reported_once():
    for agent in (GuessingAgent(), SlowGuessingAgent()):
        ended = []
        trees = rollout_trees(Counted, agent, TASKS, 3, seed=1, on_end=lambda ended=ended: ended.append(1))
        assert len(ended) == 9 == sum(len(tree.children(0)) for tree in trees)
