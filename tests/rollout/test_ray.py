"""The Ray executor on a real cluster of several processes on this machine, whose workers are killed."""

import os
import runpy
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from envs_for_tests import Dice, GuessingAgent, LocalDice, SlowGuessingAgent, signature
from growing import TASKS

import agentenv as ae
from agentenv.rollout import Concurrent, InStep, Rollout
from agentenv.rollout.ray_executor import HeldSnapshot, RayExecutor
from agentenv.tree import Anchor
from agentenv.types import message_text

ray: Any = pytest.importorskip("ray")
TESTS = str(Path(__file__).parent.parent)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes: a head, and another raylet with a resource of its own."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TESTS, before]))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 4, "object_store_memory": 100 * 2**20, "include_dashboard": False},
    )
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    cluster.add_node(num_cpus=4, resources={"other": 4}, object_store_memory=80 * 2**20)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def executor(cluster):
    executor = RayExecutor(actors=2, actor_options={"num_cpus": 0.1})
    yield executor
    executor.close()


def grow(make_env, agent, executor, **options):
    with Rollout(make_env, agent, executor=executor, seed=5, **options) as rollout:
        trees = rollout.grow(TASKS, 3)
        rollout.extend(trees, [Anchor(i, node, 2) for i, tree in enumerate(trees) for node in sorted(tree.snapshots)])
    return trees, rollout


@pytest.mark.parametrize("make_env", [Dice, LocalDice])
def test_the_same_trees_grow_in_actors(executor, make_env):
    here, _ = grow(make_env, GuessingAgent(), InStep())
    there, rollout = grow(make_env, GuessingAgent(), executor)
    assert [signature(tree) for tree in there] == [signature(tree) for tree in here]
    assert rollout.failures == 0
    held = [isinstance(snapshot, HeldSnapshot) for tree in there for snapshot in tree.snapshots.values()]
    assert all(held) if make_env is LocalDice else not any(held)


def test_an_agent_that_waits_goes_with_it(cluster):
    here, _ = grow(Dice, GuessingAgent(), InStep())
    inner = Concurrent()
    executor = RayExecutor(actors=2, inner=inner, actor_options={"num_cpus": 0.1})
    there, _ = grow(Dice, SlowGuessingAgent(), executor)
    executor.close()
    inner.close()
    assert [signature(tree) for tree in there] == [signature(tree) for tree in here]


class Whereabouts(ae.ToolEnv):
    """Says which process it is in, kills it on request, and has a bug."""

    max_steps = 6

    def start(self, task):
        return "Where are you?"

    @ae.tool
    def where(self) -> str:
        """Says the process."""
        return str(os.getpid())

    @ae.tool
    def die(self, flag: str) -> str:
        """Dies once.

        Args:
            flag: a file that remembers it.
        """
        if not Path(flag).exists():
            Path(flag).write_text("died", encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.finish("survived", reward=1.0)

    @ae.tool
    def bug(self) -> str:
        """Divides by zero."""
        return str(1 // 0)


class Calls:
    def __init__(self, *calls):
        self.calls = calls

    def act(self, contexts):
        return [ae.Action("", (ae.ToolCall(*self.calls[(len(c.messages) - 1) // 2]),)) for c in contexts]


def test_many_environments_share_few_actors_on_two_nodes(cluster):
    executor = RayExecutor(actors=2, actor_options={"num_cpus": 0.1, "scheduling_strategy": "SPREAD"})
    with Rollout(Whereabouts, Calls(*[("where", {})] * 6), executor=executor) as rollout:
        (tree,) = rollout.grow([None], 20)
    executor.close()
    processes = {message_text(node.observation[0]) for node in tree.nodes[1:]}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes


def test_a_killed_actor_costs_its_own_unfinished_episodes_which_are_retried(executor, tmp_path):
    flag = str(tmp_path / "flag")
    with Rollout(Whereabouts, Calls(("where", {}), ("die", {"flag": flag})), executor=executor, max_envs=4) as rollout:
        (tree,) = rollout.grow([None], 8)
    ends = [tree.nodes[leaf] for leaf in tree.leaves()]
    assert sum(node.reward == 1.0 for node in ends) == 8, "every rollout ended in the end"
    failed = [node for node in ends if node.reward is None]
    assert 1 <= len(failed) == rollout.failures <= 4
    assert all("actor host-" in node.info["failure"] and "is gone" in node.info["failure"] for node in failed)


def test_a_snapshot_that_cannot_travel_is_reached_by_its_actions_when_its_actor_is_gone(executor):
    with Rollout(LocalDice, GuessingAgent(), executor=executor, seed=5) as rollout:
        trees = rollout.grow([{"goal": 1000}], 3)
        anchors = [Anchor(0, node, 2) for node in sorted(trees[0].snapshots)]
        for actor in executor._actors:
            ray.kill(actor.handle)
        time.sleep(0.5)
        rollout.extend(trees, anchors)
    with Rollout(LocalDice, GuessingAgent(), seed=5) as other:
        expected = other.grow([{"goal": 1000}], 3)
        other.extend(expected, anchors)
    assert [signature(tree) for tree in trees] == [signature(tree) for tree in expected]
    assert rollout.failures == 0


def test_snapshots_that_nobody_needs_are_forgotten(executor):
    with Rollout(LocalDice, GuessingAgent(), executor=executor) as rollout:
        trees = rollout.grow([{"goal": 1000}], 4)
        handles = [actor.handle for actor in executor._actors]
        held = sum(len(ray.get(handle.held_keys.remote())) for handle in handles)
        assert held == len(trees[0].snapshots)
        del trees
        rollout.trees = []
        deadline = time.monotonic() + 20
        while sum(len(ray.get(handle.held_keys.remote())) for handle in handles):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_bug_in_an_environment_is_raised_as_it_is(executor):
    with pytest.raises(ZeroDivisionError), Rollout(Whereabouts, Calls(("bug", {})), executor=executor) as rollout:
        rollout.grow([None], 2)


def test_a_cluster_without_room_is_named(cluster):
    executor = RayExecutor(actors=1, actor_options={"resources": {"moon": 1}}, start_seconds=2)
    with Rollout(Dice, GuessingAgent(), executor=executor, retries=0) as rollout:
        (tree,) = rollout.grow([None], 1)
    executor.close()
    assert "has the cluster room for it?" in tree.nodes[1].info["failure"]


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="actors must be at least 1, got 0"):
        RayExecutor(actors=0)


def test_the_example(cluster, capsys):
    example = Path(__file__).parents[2] / "examples" / "ray_cluster.py"
    runpy.run_path(str(example), run_name="__main__")
    assert "equal trees: True" in capsys.readouterr().out
