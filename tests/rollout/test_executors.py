"""Executors: the same trees on each of them, whatever the timing; caps, limits, and what one straggler holds up."""

import asyncio
import math
import threading
import time
from typing import Any

import numpy as np
import pytest
from envs_for_tests import Counted, Guess, GuessingAgent, SlowGuessingAgent, signature
from growing import TASKS, grow
from rollout_faults import Gate, Hanging, Outage, Sleepy

import agentenv as ae
from agentenv.protocols import AsyncAgent
from agentenv.rollout import Concurrent, InStep, Rollout, cost_of
from agentenv.rollout.episode import Limits
from agentenv.rollout.workers import Job, Workers
from agentenv.tree import Anchor

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

EXECUTORS = {
    "in step, one thread": lambda: InStep(workers=0),
    "in step": InStep,
    "in step, few": lambda: InStep(workers=2),
    "concurrent": Concurrent,
    "concurrent, few": lambda: Concurrent(workers=2),
}


@pytest.fixture(params=EXECUTORS)
def executor(request):
    executor = EXECUTORS[request.param]()
    yield executor
    executor.close()


def grow_and_extend(agent, executor=None, **options):
    with Rollout(Counted, agent, executor=executor, seed=5, **options) as rollout:
        trees = rollout.grow(TASKS, 4)
        rollout.extend(trees, [Anchor(i, node, 2) for i, tree in enumerate(trees) for node in sorted(tree.snapshots)])
    return [signature(tree) for tree in trees]


@pytest.fixture(scope="module")
def expected():
    return grow_and_extend(GuessingAgent())


@pytest.mark.parametrize("max_envs", [None, 1, 3])
def test_every_executor_grows_the_same_trees(executor, expected, max_envs):
    assert grow_and_extend(SlowGuessingAgent(), executor, max_envs=max_envs) == expected


def test_an_executor_that_is_given_serves_several_rollouts(executor, expected):
    for _ in range(2):
        assert grow_and_extend(SlowGuessingAgent(), executor) == expected


def test_it_runs_inside_an_event_loop_as_in_a_notebook(expected):
    async def cell():
        return grow_and_extend(SlowGuessingAgent()), grow_and_extend(GuessingAgent())

    assert asyncio.run(cell()) == (expected, expected)


def test_an_agent_for_threads_is_called_from_so_many(expected):
    class Threaded(GuessingAgent):
        names: set[str] = set()

        def act(self, contexts):
            assert len(contexts) == 1
            self.names.add(threading.current_thread().name)
            time.sleep(0.002)
            return super().act(contexts)

    agent = Threaded()
    executor = Concurrent(agent_threads=3)
    assert grow_and_extend(agent, executor) == expected
    executor.close()
    with pytest.raises(TypeError, match=r"agent must be an AsyncAgent .* got GuessingAgent: pass agent_threads=N"):
        grow_and_extend(GuessingAgent(), Concurrent())


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
def test_never_more_environments_are_open_than_allowed(agent):
    most = []

    class Watched(Counted):
        def respond(self, action):
            most.append(len(self.opened))
            return super().respond(action)

    with Rollout(Watched, agent(), max_envs=3) as rollout:
        rollout.grow([None] * 3, 6)
    assert max(most) <= 3
    with pytest.raises(ValueError, match="max_envs must be at least 1"):
        Rollout(Counted, GuessingAgent(), max_envs=0)


@pytest.mark.parametrize("agent", [GuessingAgent, SlowGuessingAgent])
def test_environments_step_at_the_same_time(agent):
    class Meeting(Counted):
        meeting = threading.Barrier(6)

        def start(self, task):
            return "go"

        def respond(self, action):
            self.meeting.wait(20)  # breaks unless six steps run at once
            return self.finish("done", reward=1.0)

    with Rollout(Meeting, agent()) as rollout:
        (tree,) = rollout.grow([None], 6)
    assert [tree.nodes[leaf].reward for leaf in tree.leaves()] == [1.0] * 6


def test_a_thousand_waiting_episodes_are_not_a_thousand_threads():
    class Waiting(AsyncAgent):
        waiting = most_waiting = most_threads = 0

        async def respond(self, context):
            type(self).waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            self.most_threads = max(self.most_threads, threading.active_count() - before)
            await asyncio.sleep(0.5)
            type(self).waiting -= 1
            return ae.Action("", (ae.ToolCall("hold", {}),))

    agent, before = Waiting(), threading.active_count()
    with Rollout(Counted, agent) as rollout:
        rollout.grow([None], 1000)
    assert agent.most_waiting > 500
    assert agent.most_threads < 60


def test_an_episode_goes_on_whatever_the_stragglers_do():
    ended = []
    agent = Gate(lambda context: context.messages[0]["content"].endswith("30"))

    def on_end():
        ended.append(agent.open.is_set())
        if len(ended) == 6:
            agent.open.set()

    class Named(Counted):
        def start(self, task):
            super().start(task)
            return f"goal {task.goal}"

    with Rollout(Named, agent, on_end=on_end) as rollout:
        rollout.grow([{"goal": 5}, {"goal": 30}], 6)
    assert ended[:6] == [False] * 6, "the six fast episodes ended while the six slow ones waited"
    assert len(ended) == 12


# ---------------------------------------------------------------------- limits


@pytest.fixture
def hanging():
    Hanging.goals, Hanging.hung = {1000}, []
    Hanging.release.clear()
    yield
    Hanging.release.set()
    for _ in range(200):
        if not Counted.opened:
            break
        time.sleep(0.02)


class Rolling(GuessingAgent):
    def choose(self, context):
        return ae.Action("", (ae.ToolCall("roll", {}),))


class SlowRolling(SlowGuessingAgent):
    def choose(self, context):
        return Rolling().choose(context)


@pytest.mark.parametrize("agent", [Rolling, SlowRolling])
def test_an_environment_that_hangs_is_given_up_counted_and_harms_no_other(agent, hanging):
    tasks = [{"goal": 1000}, {"goal": 30}]
    began = time.monotonic()
    with Rollout(Hanging, agent(), retries=1, step_seconds=0.3) as rollout:
        trees = rollout.grow(tasks, 3)
    assert time.monotonic() - began < 10
    assert len(Hanging.hung) == 6 == rollout.failures, "three rollouts, tried twice"
    broken = [node for node in trees[0].nodes if node.reward is None]
    assert len(broken) == 6
    assert all("TimeoutError" in node.info["failure"] and "step_seconds=0.3" in node.info["failure"] for node in broken)
    Hanging.goals = set()
    with Rollout(Hanging, agent()) as rollout:
        (_, healthy) = rollout.grow(tasks, 3)
    assert signature(trees[1]) == signature(healthy)


def test_an_episode_that_takes_too_long_is_truncated():
    Sleepy.seconds = 0.2
    with Rollout(Sleepy, Rolling(), max_seconds=0.5) as rollout:
        (tree,) = rollout.grow([{"goal": 1000}], 2)
    for leaf in tree.leaves():
        assert tree.nodes[leaf].truncated
        assert 2 <= len(tree.path(leaf)) - 1 <= 4
        assert leaf not in tree.snapshots


def test_an_episode_without_an_end_is_truncated_after_so_many_steps():
    class Endless(Counted):
        max_steps = None

    with Rollout(Endless, Rolling(), max_steps=5) as rollout:
        (tree,) = rollout.grow([{"goal": 1000}], 2)
        rollout.extend([tree], [Anchor(0, 3, 1)])
    assert [len(tree.path(leaf)) - 1 for leaf in tree.leaves()] == [5, 5, 5]
    assert all(tree.nodes[leaf].truncated for leaf in tree.leaves())


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("max_steps", 0, "at least 1"),
        ("max_steps", True, "an integer"),
        ("max_tokens", 0, "at least 1"),
        ("max_seconds", -1.0, "a number above 0, or None for no limit"),
        ("step_seconds", 0, "a number above 0"),
        ("step_seconds", math.nan, "a number above 0"),
    ],
)
def test_a_limit_out_of_range_is_named(name, value, rule):
    with pytest.raises(ValueError, match=rf"^{name} must be {rule}.* got {value}$"):
        grow(**{name: value})


def test_limits_may_be_anybodys_numbers():
    numbers: dict[str, Any] = {"max_steps": np.int64(3), "max_seconds": np.float32(0.5), "step_seconds": math.inf}
    Limits(**numbers)


def test_a_limit_that_an_agent_cannot_honor_is_refused():
    from agentenv.agents import ScriptedAgent

    with pytest.raises(ValueError, match=r"max_tokens must be None for a ScriptedAgent, got 9.*honors"):
        Rollout(Counted, ScriptedAgent(["hello"]), max_tokens=9)


def test_tokens_that_a_server_counts_are_counted():
    from agentenv.types import Usage

    class Server(AsyncAgent):
        honors = frozenset({"max_tokens"})
        rooms: list[Any] = []

        async def respond(self, context):
            self.rooms.append(context.max_tokens)
            used = Usage(prompt_tokens=10 * len(context.messages), cached_tokens=4, completion_tokens=5)
            return ae.Action("", (ae.ToolCall("roll", {}),), usage=used)

    agent = Server()
    with Rollout(Counted, agent, max_tokens=35) as rollout:
        (tree,) = rollout.grow([{"goal": 1000}], 1)
    assert [node.truncated for node in tree.nodes] == [False, False, True]
    assert agent.rooms == [35, 20]
    cost = cost_of([tree])
    assert (cost.tokens_sampled, cost.tokens_read, cost.tokens_cached) == (10, 40, 8)


# ---------------------------------------------------------------------- what agents return


@pytest.mark.parametrize(
    "answer",
    [
        "I say <nothing>",
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "hold", "arguments": "{}"}}]},
        ae.Action("", (ae.ToolCall("hold", {}),)),
    ],
)
def test_an_agent_may_return_text_a_message_or_an_action(answer):
    class Plain:
        def act(self, contexts):
            return [answer for _ in contexts]

    agent: Any = Plain()
    with Rollout(Counted, agent) as rollout:
        (tree,) = rollout.grow([None], 2)
    assert isinstance(tree.nodes[1].action, ae.Action)


@pytest.mark.parametrize("answer", [7, None, ["hold"], {"role": "user", "content": "x"}])
def test_what_is_no_action_is_named_with_the_agent(answer):
    class Odd:
        def act(self, contexts):
            return [answer for _ in contexts]

    agent: Any = Odd()
    with (
        pytest.raises(ValueError, match=r"Odd must return actions \(Action, text or an assistant message\)"),
        Rollout(Counted, agent) as rollout,
    ):
        rollout.grow([None], 2)


@pytest.mark.parametrize("returned", [None, "hold", {"a": 1}, 3])
def test_an_agent_that_returns_no_list_is_named(returned):
    class Forgot:
        def act(self, contexts):
            return returned

    agent: Any = Forgot()
    with (
        pytest.raises(ValueError, match=r"Forgot\.act must return a list with one action per context, got"),
        Rollout(Counted, agent) as rollout,
    ):
        rollout.grow([None], 2)


def test_an_agent_that_edits_what_it_sees_changes_no_tree_and_no_other_episode():
    class Editor(GuessingAgent):
        def act(self, contexts):
            for context in contexts:
                assert not any(message.get("edited") for message in context.messages[context.covered :])
                context.messages[-1]["content"] = "HACK"
                context.messages[-1]["edited"] = True
            return super().act(contexts)

    trees, _ = grow(Editor(), num_rollouts=3)
    said = [message["content"] for tree in trees for node in tree.nodes for message in node.observation]
    assert "HACK" not in said


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"make_env": "id"}, "make_env must be a function that returns a new environment, such as its class, got 'id'"),
        ({"make_env": Guess()}, "make_env must be a function that returns a new environment"),
        ({"agent": None}, "agent must be anything with act"),
        ({"agent": GuessingAgent}, "agent must be anything with act"),
        ({"executor": "InStep"}, "executor must be InStep"),
        ({"executor": InStep}, "executor must be InStep"),
        ({"max_envs": "3"}, "max_envs must be an integer, got '3'"),
        ({"max_envs": 2.5}, "max_envs must be an integer, got 2.5"),
        ({"retries": "x"}, "retries must be an integer, got 'x'"),
        ({"max_seconds": "1"}, "max_seconds must be a number above 0, or None for no limit; got '1'"),
        ({"max_steps": 1.5}, "max_steps must be an integer, got 1.5"),
        ({"make_env": lambda: 3}, "make_env must return an environment"),
        ({"tasks": None}, "tasks must be a list of tasks, got None"),
        ({"tasks": "tasks.jsonl"}, "tasks must be a list of tasks, got 'tasks.jsonl'"),
        ({"num_rollouts": 2.5}, "num_rollouts must be an integer, got 2.5"),
        ({"executor": InStep(workers=0), "step_seconds": 1.0}, r"step_seconds must be None for InStep\(workers=0\)"),
    ],
)
def test_wrong_arguments_are_named(wrong, words):
    options: dict[str, Any] = {"make_env": Counted, "agent": GuessingAgent(), **wrong}
    tasks, count = options.pop("tasks", [None]), options.pop("num_rollouts", 1)
    with (
        pytest.raises((TypeError, ValueError), match=words),
        Rollout(options.pop("make_env"), options.pop("agent"), **options) as rollout,
    ):
        rollout.grow(tasks, count)


def test_one_environment_for_all_is_named():
    env = Counted()
    with (
        pytest.raises(ValueError, match="make_env must return a new environment"),
        Rollout(lambda: env, GuessingAgent()) as r,
    ):
        r.grow([None], 3)


def test_no_more_environments_than_allowed_are_open_while_episodes_begin():
    class Slow(Counted):
        most = 0

        def start(self, task):
            time.sleep(0.02)
            Slow.most = max(Slow.most, len(self.opened))
            return super().start(task)

    with Rollout(Slow, GuessingAgent(), max_envs=2) as rollout:
        rollout.grow([None] * 6, 1)
    assert Slow.most <= 2


def test_an_outage_costs_one_episode_of_a_server_and_the_frontier_of_a_model():
    (tree,), rollout = grow(Outage({0, 2}), tasks=[None])
    assert rollout.failures == 2
    assert tree.arrays().leaf_counts[0] == 4


# ---------------------------------------------------------------------- the ledger


def test_the_ledger_adds_up(executor):
    with Rollout(Counted, SlowGuessingAgent(), executor=executor) as rollout:
        trees = rollout.grow(TASKS, 4)
        first = rollout.ledger
        rollout.extend(trees, [Anchor(0, sorted(trees[0].snapshots)[1], 3)])
    both = rollout.ledger
    assert (first.episodes, both.episodes) == (12, 15)
    assert both.steps == sum(len(tree) - 1 for tree in trees) > first.steps
    sampled = sum(len(node.action.token_ids or ()) for tree in trees for node in tree.nodes if node.action)
    assert both.cost.tokens_sampled == sampled == cost_of(trees).tokens_sampled
    assert both.cost.tokens_read > sampled
    assert both.cost.env_seconds > 0
    assert both.cost.agent_seconds > 0
    assert both.cost.snapshot_bytes > 0
    assert both.wall_seconds > first.wall_seconds > 0
    assert both.failures == 0


def test_what_a_step_cost_is_not_part_of_what_happened():
    (first,), _ = grow(make_env=Guess, agent=GuessingAgent(), tasks=[None])
    (second,), _ = grow(make_env=Guess, agent=GuessingAgent(), tasks=[None])
    assert list(first.nodes) == list(second.nodes)
    assert [node.cost for node in first.nodes] != [node.cost for node in second.nodes]


# ---------------------------------------------------------------------- threads


def test_workers_leave_what_hangs_and_go_on():
    workers, release = Workers(1), threading.Event()
    jobs = workers.map(lambda hangs: release.wait(20) if hangs else "done", [True, False, False], limit=0.1)
    assert [job.left for job in jobs] == [True, False, False]
    assert [job.result for job in jobs[1:]] == ["done", "done"]
    release.set()
    assert workers.map(lambda x: x + 1, range(100))[99].result == 100
    workers.close()
    assert workers.map(lambda x: x, [1])[0].result == 1, "a closed pool opens again"
    workers.close()
    with pytest.raises(ValueError, match="workers must be at least 1"):
        Workers(0)


def test_a_job_keeps_what_it_raised():
    workers = Workers(2)
    done = threading.Event()
    job: Job[Any] = Job(lambda: 1 // 0, lambda _: done.set())
    workers.submit([job])
    assert done.wait(10)
    assert isinstance(job.error, ZeroDivisionError)
    workers.close()
