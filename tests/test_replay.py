"""`ReplayEnv`: plain environments of Gymnasium, and ours that cannot snapshot, branch by doing the same again."""

import copy
import functools
import itertools
import json
import math
import pickle
import random
import re
import subprocess
import sys
import threading
from typing import Any

import gymnasium
import numpy as np
import pytest
from envs_for_tests import Dice, Guess, Notes, call, guess, texts
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_envs import Rooms, Unfaithful

import agentenv as ae
from agentenv.agents import ScriptedAgent
from agentenv.errors import CheckError, EpisodeError, InfrastructureError, SandboxError, SnapshotError
from agentenv.protocols import BranchingEnv, SteppableEnv
from agentenv.rollout import Rollout
from agentenv.testing import check_env, run_clauses
from agentenv.tree import Anchor
from agentenv.types import message_text
from agentenv.wrappers import TransformReward

SMALL = ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1", "Blackjack-v1", "CartPole-v1", "Pendulum-v1"]


class Sealed(Notes):
    """A sandbox that runs commands and cannot be snapshotted, as a remote one may."""

    def make_sandbox(self):
        box = super().make_sandbox()

        def refuse(*args, **kwargs):
            msg = "this back end cannot snapshot"
            raise SandboxError(msg)

        box.snapshot = box.restore = box.fork = refuse
        return box


class Handles(Dice):
    """Keeps what it needs in an attribute, which no snapshot holds."""

    def start(self, task):
        self.seen: list[int] = []
        return super().start(task)

    @ae.tool
    def roll(self, sides: int = 6) -> str:
        """Roll one die."""
        self.seen.append(sides)
        return f"{super().roll(sides)} after {self.seen}"


def play(env, actions):
    """Takes actions until they or the episode end."""
    results: list[Any] = []
    for action in actions:
        results.append(env.step(action)[:4])
        if any(results[-1][2:]):
            break
    return results


# ---------------------------------------------------------------------- the contract


@pytest.mark.slow
@pytest.mark.parametrize("env_id", SMALL)
def test_environments_of_gymnasium_keep_every_law(env_id):
    outcomes = {result.name: result.outcome for result in run_clauses(ae.ReplayEnv(env_id, max_steps=5))}
    assert set(outcomes.values()) == {"passed"}, outcomes
    assert len(outcomes) >= 13


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Guess, Dice, Handles], ids=lambda kind: kind.__name__)
def test_ours_keep_every_law_even_those_that_do_not_by_themselves(kind):
    check_env(ae.ReplayEnv(kind()))
    if kind is Handles:
        with pytest.raises(CheckError):
            check_env(Handles, actions=[call("roll")] * 4)


@pytest.mark.filterwarnings("ignore:the subprocess sandbox isolates nothing")
def test_a_sandbox_that_cannot_snapshot_is_branched():
    env = ae.ReplayEnv(Sealed())
    env.reset(seed=0)
    play(env, [call("append", number=1), call("append", number=2)])
    inside: Any = env.inside.unwrapped
    with pytest.raises(SandboxError):
        inside.snapshot()
    left, right = env.fork(2)
    assert texts(left.step(call("append", number=3))[0]) == "0\n1\n2\n3\n".replace("0\n1", "01")
    assert texts(right.step(call("append", number=4))[0]).endswith("2\n4\n")
    assert texts(env.step(call("append", number=5))[0]).endswith("2\n5\n")
    assert len({one.state_signature() for one in (env, left, right)}) == 3
    for one in (env, left, right):
        one.close()


@pytest.mark.parametrize("env_id", SMALL)
def test_the_wrapped_environment_plays_as_the_plain_one(env_id):
    plain, env = gymnasium.make(env_id), ae.ReplayEnv(env_id)
    plain.action_space.seed(4)
    expected, _ = plain.reset(seed=7)
    first = message_text(env.reset(seed=7)[0][0])
    assert first.endswith(f"observation: {json.dumps(np.asarray(expected).tolist())}") or env_id in {
        "CartPole-v1",
        "Pendulum-v1",
    }
    for _ in range(12):
        action = plain.action_space.sample()
        _, reward, terminated, truncated, _ = plain.step(action)
        given_as_json = np.asarray(action).tolist()
        result = env.step(call("act", action=given_as_json))
        assert result[1:4] == (float(reward), terminated, truncated)
        if terminated or truncated:
            with pytest.raises(EpisodeError):
                env.step("0")
            break
    plain.close()
    env.close()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["step", "keep", "back", "fork", "reseed", "close"]), st.integers(0, 3))
)


@settings(max_examples=40)
@given(operations=OPERATIONS, env_id=st.sampled_from(["FrozenLake-v1", "Taxi-v4", "Blackjack-v1"]))
def test_any_sequence_of_restores_and_forks_gives_what_a_snapshot_would(operations, env_id):
    """The reference is a copy of the plain environment by `copy.deepcopy`, taken along with each snapshot."""
    env = ae.ReplayEnv(env_id)
    plain: Any = gymnasium.make(env_id)
    env.reset(seed=3)
    plain.reset(seed=3)
    ended = False
    kept = [(env.snapshot(), copy.deepcopy(plain), ended)]
    for what, number in operations:
        if what == "step" and not ended:
            action = number % int(plain.action_space.n)
            _, reward, terminated, truncated, _ = plain.step(action)
            assert env.step(str(action))[1:4] == (float(reward), terminated, truncated)
            ended = terminated or truncated
        elif what == "keep":
            kept.append((env.snapshot(), copy.deepcopy(plain), ended))
        elif what in {"back", "close"}:
            if what == "close":
                env.close()
            snapshot, plain, ended = kept[number % len(kept)]
            plain = copy.deepcopy(plain)
            env.restore(pickle.loads(pickle.dumps(snapshot)))
        elif what == "fork":
            (env,) = env.fork(1)
        elif what == "reseed":
            env.reseed(number)
            plain.unwrapped.np_random = np.random.Generator(np.random.PCG64(number))
    env.close()


def test_a_snapshot_is_a_seed_and_actions_and_goes_back_in_another_process():
    env = ae.ReplayEnv("CartPole-v1")
    env.reset(seed=1)
    play(env, ["1", "0", "1"])
    snapshot = env.snapshot()
    assert len(pickle.dumps(snapshot)) < 5_000
    code = (
        "import pickle, sys\n"
        "env, snapshot = pickle.load(sys.stdin.buffer)\n"
        "env.restore(snapshot)\n"
        "print(env.replayed_steps, env.step('1')[0][0]['content'])\n"
    )
    job = pickle.dumps((env, snapshot))
    done = subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, check=True)
    assert done.stdout.decode() == f"3 {texts(env.step('1')[0])}\n"


def test_only_what_is_not_on_the_way_is_taken_again():
    env = ae.ReplayEnv("FrozenLake-v1", max_steps=90)
    env.reset(seed=1)
    start = env.snapshot()
    play(env, ["0"] * 3)
    three = env.snapshot()
    assert env.replayed_steps == 0
    env.restore(three)
    assert env.replayed_steps == 0
    play(env, ["0"] * 2)
    env.restore(three)
    assert env.replayed_steps == 3
    env.restore(start)
    env.restore(three)
    assert env.replayed_steps == 6
    twin = env.spawn()
    twin.restore(three)
    assert twin.replayed_steps == 3
    assert twin.state_signature() == env.state_signature()


def test_rollouts_grow_trees_and_branch_in_the_middle():
    def act(context):
        return str(random.Random(context.seed).randrange(4))

    def grown():
        with Rollout(lambda: ae.ReplayEnv("FrozenLake-v1", max_steps=9), ScriptedAgent(act), seed=0) as rollout:
            trees = rollout.grow([None, None], 4)
            rollout.extend(trees, [Anchor(0, 1, 3), Anchor(1, 2, 2)])
        return trees

    trees = grown()
    assert len(trees[0].children(1)) == 4
    assert len(trees[1].children(2)) == 3
    assert all(node.reward is not None for tree in trees for node in tree.nodes)
    assert [list(tree.nodes) for tree in grown()] == [list(tree.nodes) for tree in trees]


# ---------------------------------------------------------------------- what does not do the same again


@pytest.mark.parametrize(
    ("what", "since", "words"),
    [
        (
            "reset",
            0,
            "the observation of reset was \\d+, and now \\d+; everything random in it must come",
        ),
        ("observation", 2, "the observation of step 3 was \\d+\\.\\d+, and now \\d+\\.\\d+"),
        ("reward", 1, "the reward of step 2 was \\d\\.\\d+, and now"),
        ("terminated", 0, "the terminated of step \\d was (True|False), and now (True|False)"),
        ("truncated", 0, "the truncated of step \\d was (True|False), and now (True|False)"),
        ("raises", 2, "replay/Unfaithful-v0 does not do the same again: step 3 raised RuntimeError: out of luck"),
    ],
)
def test_a_difference_is_named_with_its_step(what, since, words):
    raised = ""
    for _ in range(200):  # by luck it may do the same again
        env = ae.ReplayEnv(functools.partial(Unfaithful, what, since))
        env.reset(seed=0)
        try:
            while env.step_count < 4 and not any(env.step("1")[2:4]):
                pass
        except RuntimeError:
            continue
        try:
            env.spawn().restore(env.snapshot())
        except SnapshotError as error:
            raised = str(error)
            break
    assert re.search(words, raised), raised


def test_after_a_difference_the_environment_begins_anew():
    env = ae.ReplayEnv(functools.partial(Unfaithful, "observation", 1))
    env.reset(seed=0)
    start = env.snapshot()
    play(env, ["1", "1"])
    late = env.snapshot()
    env.restore(start)
    with pytest.raises(SnapshotError, match="step 2"):
        env.restore(late)
    with pytest.raises(EpisodeError, match=r"the episode failed: call reset\(\), or restore\(\) an earlier snapshot"):
        env.step("1")
    env.restore(start)
    assert env.step("1")[1] == 0.5


def test_the_checker_refuses_what_does_not_do_the_same_again():
    with pytest.raises(CheckError, match=r"does not do the same again(?s:.*)the observation of step 1"):
        check_env(ae.ReplayEnv(functools.partial(Unfaithful, "observation"), max_steps=4))


def test_a_failure_of_infrastructure_on_the_way_stays_one():
    class Down(Dice):
        calls = itertools.count()

        @ae.tool
        def roll(self, sides: int = 6) -> str:
            """Roll one die."""
            if next(self.calls) == 1:
                msg = "the server is away"
                raise InfrastructureError(msg)
            return super().roll(sides)

    env = ae.ReplayEnv(Down())
    env.reset(seed=0)
    first = env.step(call("roll"))[0]
    snapshot = env.snapshot()
    twin = env.spawn()
    with pytest.raises(InfrastructureError, match="the server is away"):
        twin.restore(snapshot)
    twin.restore(snapshot)
    assert texts(first) in repr(twin.render() or first)


# ---------------------------------------------------------------------- randomness, signatures, thresholds


def test_reseeded_continuations_differ_and_repeat():
    env = ae.ReplayEnv("FrozenLake-v1")
    env.reset(seed=0)
    start = env.snapshot()

    def continuation(seed):
        env.restore(start)
        env.reseed(seed)
        return play(env, ["2", "1"] * 2)

    ways = [continuation(seed) for seed in range(8)]
    assert len(set(map(repr, ways))) > 1
    assert [continuation(seed) for seed in range(8)] == ways
    env.restore(start)
    env.reseed(3)
    env.step("2")
    middle = env.snapshot()
    rest = env.step("1")
    twin = env.spawn()
    twin.restore(middle)
    assert twin.step("1") == rest


def test_signatures_are_of_what_was_seen_or_of_the_observation_alone():
    def after(actions, **options):
        env = ae.ReplayEnv("CliffWalking-v1", **options)
        env.reset(seed=0)
        env.reseed(len(actions))
        play(env, actions)
        return env.state_signature()

    there_and_back = ["0", "2"]  # up and down
    assert after([], markov=True) == after(there_and_back, markov=True) != after(["0"], markov=True)
    assert after([]) != after(there_and_back)
    assert after(["0"]) == after(["0"])


def test_the_threshold_of_success_is_the_environments_own():
    assert ae.ReplayEnv("CartPole-v1").success_threshold == 475.0
    assert ae.ReplayEnv("Blackjack-v1").success_threshold == 0.5
    assert ae.ReplayEnv("CartPole-v1", success_threshold=100).success_threshold == 100

    class Hard(Guess):
        success_threshold = 0.9

    assert ae.ReplayEnv(Hard()).success_threshold == 0.9
    wrongs: list[Any] = ["0.5", math.nan, math.inf, [1]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="success_threshold must be a finite number, got "):
            ae.ReplayEnv("CartPole-v1", success_threshold=wrong)


def test_ours_keep_their_words_rewards_tasks_and_signatures():
    plain, env = Dice(), ae.ReplayEnv(Dice(tasks=[{"goal": 3}, {"goal": 4}]))
    assert isinstance(env, BranchingEnv)
    assert isinstance(env, SteppableEnv)
    assert env.tools == plain.tools
    assert env.env_id == "replay/Dice-v0"
    env.reset(seed=0, options={"task": 1})
    assert env.task == Dice.Task(goal=4)
    env.reset(seed=0, options={"task": {"goal": 9}})
    plain.reset(seed=0, options={"task": {"goal": 9}})
    for action in (call("roll"), "text", call("hold")):
        assert env.step(action) == plain.step(action)
        assert env.state_signature() == plain.state_signature()
        parsed = ae.Action.parse(action)
        assert env.action_signature(parsed) == plain.action_signature(parsed)
    env.reset(seed=5)
    drawn, snapshot = env.task, env.snapshot()
    twin = env.spawn()
    twin.restore(snapshot)
    assert twin.task == drawn in (Dice.Task(goal=3), Dice.Task(goal=4))


def test_tasks_of_plain_environments_are_options_of_their_reset():
    env = ae.ReplayEnv(functools.partial(Rooms, spaces.Discrete(2)), tasks=[{"room": 1}, {"room": 2}])
    observation, info = env.reset(seed=0, options={"task": 1})
    assert texts(observation).endswith('observation: {"room": 2}')
    assert info["options"] == {"room": 2}
    assert info["array"] == [0.0, 0.0]
    assert env.step("1")[4]["array"] == 0.5
    twin = env.spawn()
    twin.restore(env.snapshot())
    assert twin.task == {"room": 2}


def test_wrappers_and_trees_go_around_it():
    env: Any = ae.ReplayEnv(Guess())
    wrapped = TransformReward(env, lambda reward, info: reward - 1)
    begun: Any = wrapped.begin(seed=0)
    taken = [wrapped.advance(guess(1), snapshot=True) for _ in range(2)]
    assert [transition.reward for transition in taken] == [-1.0, -1.0]
    wrapped.restore(begun.snapshot)
    assert wrapped.advance(guess(1)).observation == taken[0].observation


# ---------------------------------------------------------------------- making others


class Locked(Unfaithful):
    """Holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_an_instance_without_a_spec_is_copied_as_it_is_now():
    inside = Unfaithful()
    inside.since = 77
    env = ae.ReplayEnv(inside)
    assert env.inside is inside
    env.reset(seed=0)
    play(env, ["1", "2"])
    twin = pickle.loads(pickle.dumps(env))
    twin.restore(env.snapshot())
    assert twin.inside is not inside
    assert twin.inside.since == 77
    assert twin.step("1")[:4] == env.step("1")[:4]


class Halved(gymnasium.RewardWrapper[Any, Any]):
    """A wrapper that does not record its arguments."""

    def reward(self, reward):
        return float(reward) / 2


@pytest.mark.parametrize("wrap", [Halved, lambda env: gymnasium.wrappers.TimeLimit(env, 3)])
def test_wrappers_of_gymnasium_stay_around_the_copies(wrap):
    env = ae.ReplayEnv(wrap(gymnasium.make("CartPole-v1")))
    env.reset(seed=0)
    steps = play(env, ["1", "0"])
    twin = env.spawn()
    twin.restore(env.snapshot())
    assert twin.step("1")[:4] == env.step("1")[:4]
    assert steps[0][1] in {0.5, 1.0}


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (5, "env must be a gymnasium.Env, an id, or a function that makes one, got 5"),
        (dict, "env must make a gymnasium.Env, got {}"),
        (Locked, "cannot be made by copying it .*: pass a function that makes one"),
        (lambda: Rooms(spaces.Graph(spaces.Discrete(2), None)), "actions of Graph.* have no JSON form: pass adapter="),
    ],
)
def test_what_cannot_be_wrapped_is_refused_at_once(env, words):
    with pytest.raises(TypeError, match=words):
        ae.ReplayEnv(env() if env is Locked else env)
