"""Rollout: the same seed gives the same tree whatever the timing; failures of infrastructure are never zeros."""

import time
from typing import Any

import pytest
from envs_for_tests import (
    Boxed,
    BrokenModel,
    Counted,
    Dice,
    Flaky,
    Guess,
    GuessingAgent,
    MemorySandbox,
    Notes,
    SlowGuessingAgent,
    call,
    signature,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import agentenv as ae
from agentenv.errors import InfrastructureError, TreeError
from agentenv.protocols import Agent, ConcurrentAgent
from agentenv.rollout import Anchor, Rollout, derive_seed, rollout_trees

TASKS = [{"goal": 5}, {"goal": 30}, None]


@pytest.fixture(autouse=True)
def _nothing_stays_open():
    Counted.opened.clear()
    Flaky.failing_resets = Flaky.failing_restores = 0
    yield
    assert not Counted.opened
    assert not MemorySandbox.opened


def grow(agent=None, make_env: Any = Counted, *, tasks=TASKS, num_rollouts=4, extend=(), **options) -> Any:
    with Rollout(make_env, agent or GuessingAgent(), **options) as rollout:
        trees = rollout.grow(tasks, num_rollouts)
        if extend:
            rollout.extend(trees, extend)
    return trees, rollout


def anchors_of(trees, count=2):
    return [Anchor(i, node, count) for i, tree in enumerate(trees) for node in tree.snapshots]


# ---------------------------------------------------------------------- what is grown


def test_a_tree_has_the_task_the_rollouts_and_what_the_environment_answered():
    trees, rollout = grow()
    assert [tree.task["goal"] for tree in trees] == [5, 30, 20]
    assert [len(tree.children(0)) for tree in trees] == [4, 4, 4]
    assert rollout.failures == 0
    for tree in trees:
        assert (tree.env_id, tree.metadata["rollouts"]) == ("Counted-v0", 4)
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
    assert len(agent.threads) > 1


def test_the_two_agents_are_what_rollout_takes_them_for():
    assert isinstance(SlowGuessingAgent(), ConcurrentAgent)
    assert isinstance(GuessingAgent(), Agent)
    assert not isinstance(GuessingAgent(), ConcurrentAgent)


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
    assert tree.metadata["rollouts"] == 7
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
    (tree,), _ = grow(tasks=[None], max_tokens=8)
    for leaf in tree.leaves():
        used = [len(tree.token_ids(node)) for node in tree.path(leaf)]
        assert all(count < 8 for count in used[:-1])
        if tree.nodes[leaf].truncated and tree.nodes[leaf].info["step_count"] < 8:
            assert used[-1] >= 8
    assert any(tree.nodes[leaf].truncated and len(tree.path(leaf)) < 9 for leaf in tree.leaves())
    assert not any(tree.nodes[leaf].truncated and tree.nodes[leaf].terminated for leaf in tree.leaves())
    assert set(tree.snapshots).isdisjoint(tree.leaves())


def test_the_end_of_every_rollout_is_reported_once():
    for agent in (GuessingAgent(), SlowGuessingAgent()):
        ended = []
        trees = rollout_trees(Counted, agent, TASKS, 3, seed=1, on_end=lambda ended=ended: ended.append(1))
        assert len(ended) == 9 == sum(len(tree.children(0)) for tree in trees)


# ---------------------------------------------------------------------- infrastructure


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


def test_a_failure_of_the_agent_fails_the_whole_batch_and_is_tried_again():
    trees, rollout = grow(BrokenModel({1}), tasks=[{"goal": 30}], num_rollouts=4)
    (tree,) = trees
    broken = failed_nodes(tree)
    assert rollout.failures == len(broken) > 0
    for node in broken:
        assert tree.nodes[node].info == {"failure": "AgentError: the model server did not answer"}
        assert tree.nodes[node].action == ae.Action()
        assert len(tree.path(node)) == 3, "the step before was taken"
    assert tree.arrays().leaf_counts[0] == 4


def test_a_failure_of_a_server_fails_one_episode_and_is_tried_again():
    class Server(BrokenModel):
        concurrency = 3

    (tree,), rollout = grow(Server({0, 2}), tasks=[None])
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


# ---------------------------------------------------------------------- bugs


class WrongNumber(GuessingAgent):
    def act(self, contexts):
        return super().act(contexts)[:-1]


class Raises(GuessingAgent):
    def act(self, contexts):
        msg = "a bug"
        raise KeyError(msg)


class SlowWrongNumber(WrongNumber):
    concurrency = 3


class SlowRaises(Raises):
    concurrency = 3


@pytest.mark.parametrize(
    ("agent", "error", "words"),
    [
        (WrongNumber, ValueError, r"WrongNumber\.act must return one action per context: got 11 for 12"),
        (SlowWrongNumber, ValueError, "must return one action per context: got 0 for 1"),
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
            time.sleep(0.001)
            return ae.Action("", (ae.ToolCall("roll", {}),), (1,), None, (*context.token_ids, 1))

    with pytest.raises(KeyError, match="a bug"):
        grow(Bug(3), Endless, tasks=[None])
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
