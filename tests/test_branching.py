"""Snapshot, restore, fork, reseed: random sequences of them against replays from reset."""

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from broken_envs import DrawsInSnapshot, KeepsStepCount, OnlyTheLatest, RemembersOutside, SharesState, Sound
from envs_for_tests import (
    Boxed,
    Dice,
    Guess,
    LocalDice,
    MemorySandbox,
    Notes,
    call,
    guess,
    texts,
    the_state,
    transcript,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import agentenv as ae
from agentenv.errors import EpisodeError, SnapshotError

pytestmark = pytest.mark.filterwarnings("ignore:the subprocess sandbox isolates nothing")

BAD = ["", "some text", call("no_such_tool"), call("guess", number="x"), call("roll", sides=1)]
ACTIONS: dict[Any, list[Any]] = {
    Guess: [*(guess(number) for number in (1, 25, 50, 64, 86, 100)), *BAD],
    Dice: [call("roll"), call("roll", sides=100), call("roll", sides=2), call("hold"), *BAD],
    Boxed: [call("write", text="a"), call("write", text="b"), *BAD],
    Notes: [call("append", number=1), call("append", number=2), "text"],
}
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["step", "step", "step", "snapshot", "restore", "fork", "reseed", "close"]), st.integers(0, 99)
    ),
    max_size=25,
)


class Live:
    """An environment with its history: the events since reset, and what each step gave."""

    def __init__(self, env, events=(), results=()):
        self.env = env
        self.events = list(events)
        self.results = list(results)

    @property
    def ended(self):
        return bool(self.results) and any(self.results[-1][2:])

    def step(self, action):
        if self.ended:
            with pytest.raises(EpisodeError):
                self.env.step(action)
            return
        self.events.append(("step", action))
        self.results.append(self.env.step(action)[:4])

    def reseed(self, seed):
        self.events.append(("reseed", seed))
        self.env.reseed(seed)


def replay(make, seed, events):
    """The reference: a fresh environment that takes the same events from reset."""
    env = make()
    env.reset(seed=seed)
    results = []
    for kind, value in events:
        if kind == "reseed":
            env.reseed(value)
        else:
            results.append(env.step(value)[:4])
    return env, results


def apply(kind, number, live, lives, kept, actions):
    """Does one operation to one of the environments; `close` restores at once."""
    match kind:
        case "step":
            live.step(actions[number % len(actions)])
        case "reseed":
            live.reseed(number)
        case "fork":
            lives += [Live(child, live.events, live.results) for child in live.env.fork(number % 3)]
        case "snapshot":
            snapshot = live.env.snapshot()
            travelled = pickle.loads(pickle.dumps(snapshot)) if number % 2 else snapshot
            kept.append((travelled, list(live.events), list(live.results)))
        case _:
            if not kept:
                return
            if kind == "close":
                live.env.close()
            snapshot, events, results = kept[number % len(kept)]
            live.env.restore(snapshot)
            live.events, live.results = list(events), list(results)


def run_and_compare(make, actions, operations, seed):
    lives = [Live(make())]
    lives[0].env.reset(seed=seed)
    kept = []
    try:
        for kind, number in operations:
            apply(kind, number, lives[number % len(lives)], lives, kept, actions)
        for live in lives:
            reference, results = replay(make, seed, live.events)
            try:
                assert live.results == results
                assert the_state(live.env) == the_state(reference)
                assert live.env.render() == reference.render()
            finally:
                reference.close()
    finally:
        for live in lives:
            live.env.close()


@pytest.mark.parametrize("cls", [Guess, Dice, Boxed], ids=lambda cls: cls.__name__)
@given(operations=OPERATIONS, seed=st.integers(0, 5))
def test_any_sequence_equals_a_replay_from_reset(cls, operations, seed):
    run_and_compare(lambda: cls(render_mode="ansi"), ACTIONS[cls], operations, seed)
    assert not MemorySandbox.opened


@settings(max_examples=4)
@given(operations=OPERATIONS.map(lambda operations: operations[:8]))
def test_any_sequence_equals_a_replay_with_a_real_sandbox(operations):
    run_and_compare(lambda: Notes(render_mode="ansi"), ACTIONS[Notes], operations, 0)


@pytest.mark.parametrize("env_id", ae.env_ids())
@settings(max_examples=12)
@given(operations=OPERATIONS, seed=st.integers(0, 5))
def test_any_sequence_equals_a_replay_in_registered_environments(env_id, operations, seed):
    env = ae.make(env_id)
    env.action_space.seed(seed)
    actions = [env.action_space.sample() for _ in range(20)]
    run_and_compare(lambda: ae.make(env_id, render_mode="ansi"), actions, operations, seed)


@pytest.mark.parametrize(
    ("broken", "operations"),
    [
        (RemembersOutside, [("snapshot", 0), ("step", 0), ("restore", 0), ("step", 0)]),
        (SharesState, [("fork", 2), ("step", 0)]),
        (DrawsInSnapshot, [("snapshot", 0), ("step", 0)]),
        (KeepsStepCount, [("snapshot", 0), ("step", 0), ("close", 0)]),
        (OnlyTheLatest, [("snapshot", 0), ("step", 0), ("snapshot", 0), ("restore", 0)]),
    ],
)
def test_the_comparison_finds_broken_environments(broken, operations):
    actions = [call("add", number=number) for number in (1, 2)]
    run_and_compare(Sound, actions, operations, 0)
    with pytest.raises((AssertionError, SnapshotError)):
        run_and_compare(broken, actions, operations, 0)


# ---------------------------------------------------------------------- the laws one by one


def started(cls, seed=0, **kwargs) -> Any:
    env = cls(**kwargs)
    env.reset(seed=seed)
    return env


def test_a_snapshot_is_immutable():
    env = started(Dice)
    env.step(call("roll"))
    snapshot = env.snapshot()
    before = pickle.dumps(snapshot)
    with pytest.raises(FrozenInstanceError):
        snapshot.step_count = 5
    env.state.rolls.append(99)
    env.restore(snapshot)
    env.state.rolls.append(99)
    env.step(call("hold"))
    assert pickle.dumps(snapshot) == before
    env.restore(snapshot)
    assert 99 not in env.state.rolls


def test_random_numbers_go_on_from_where_they_were():
    env = started(Dice)
    snapshot = env.snapshot()
    rolls = [texts(env.step(call("roll", sides=10**6))[0]) for _ in range(3)]
    env.restore(snapshot)
    assert [texts(env.step(call("roll", sides=10**6))[0]) for _ in range(3)] == rolls


def test_the_kind_of_generator_is_restored_too():
    env = started(Dice)
    env.np_random = np.random.Generator(np.random.MT19937(5))
    snapshot = env.snapshot()
    roll = env.step(call("roll", sides=10**6))[0]
    other = Dice()
    other.restore(snapshot)
    assert other.step(call("roll", sides=10**6))[0] == roll


def test_the_step_limit_counts_from_the_snapshot():
    env = started(Guess, max_steps=3)
    env.step(guess(0))
    snapshot = env.snapshot()
    for _ in range(2):
        env.restore(snapshot)
        assert [row[3] for row in transcript(env, [guess(0)] * 5)] == [False, True]


def test_reseed_changes_what_comes_and_not_what_was():
    env = started(Dice)
    env.step(call("roll"))
    twins = env.fork(3)
    for seed, twin in zip((1, 1, 2), twins, strict=True):
        twin.reseed(seed)
        assert twin.state == env.state
    first, second, third = ([texts(t.step(call("roll", sides=1000))[0]) for _ in range(3)] for t in twins)
    assert first == second != third


def test_forks_are_counted_and_the_original_goes_on():
    env = started(Dice)
    assert env.fork(0) == []
    for wrong in (-1, "2", 2.0, None):
        with pytest.raises(ValueError, match=f"n must be an integer of at least 0, got {wrong!r}"):
            env.fork(wrong)
    children = env.fork(3)
    assert len({id(each) for each in [env, *children]}) == 4
    assert all(type(child) is Dice and child.spec is env.spec for child in children)
    children[0].step(call("hold"))
    children[1].close()
    assert env.step(call("roll")) == children[2].step(call("roll"))


def test_a_fork_of_a_fork():
    env = started(Guess)
    child = env.fork(1)[0]
    child.step(guess(1))
    grandchild = child.fork(1)[0]
    assert [e.step_count for e in (env, child, grandchild)] == [0, 1, 1]
    assert transcript(grandchild, [guess(5)] * 9) == transcript(child, [guess(5)] * 9)


def test_an_ended_episode_forks_and_restores_as_ended():
    env = started(Guess)
    before = env.snapshot()
    env.step(guess(env.state.target))
    (twin,) = env.fork(1)
    after = env.snapshot()
    env.restore(before)
    env.step(guess(env.state.target))
    env.restore(after)
    for each in (twin, env):
        with pytest.raises(EpisodeError, match="the episode ended at step 1"):
            each.step(guess(1))
    twin.restore(before)
    assert twin.step(guess(twin.state.target))[2]


@pytest.mark.parametrize("verb", ["snapshot", "fork"])
def test_nothing_to_branch_before_reset_or_after_close(verb):
    env = Guess()
    branch = {"snapshot": env.snapshot, "fork": lambda: env.fork(1)}[verb]
    with pytest.raises(SnapshotError, match=r"cannot snapshot: call reset\(\)"):
        branch()
    env.reset()
    env.close()
    with pytest.raises(SnapshotError, match=r"cannot snapshot: call reset\(\)"):
        branch()


def test_a_snapshot_restores_after_close_and_in_an_environment_that_never_was_reset():
    env = started(Boxed)
    env.step(call("write", text="a"))
    snapshot = env.snapshot()
    env.close()
    fresh = Boxed()
    for each in (env, fresh):
        each.restore(snapshot)
        assert texts(each.step(call("write", text="b"))[0]) == "ab"
        each.close()
    assert not MemorySandbox.opened


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env_id": "Other-v0"}, "cannot restore a snapshot of 'Other-v0' into 'Guess-v0': id and version"),
        ({"env_id": "Guess-v1"}, "cannot restore a snapshot of 'Guess-v1' into 'Guess-v0'"),
    ],
)
def test_a_snapshot_of_another_environment_or_version_names_both(change, words):
    env = started(Guess)
    env.step(guess(1))
    before = the_state(env)
    with pytest.raises(SnapshotError, match=words):
        env.restore(replace(started(Guess).snapshot(), **change))
    assert the_state(env) == before
    env.step(guess(1))


def test_only_a_snapshot_can_be_restored():
    with pytest.raises(SnapshotError, match="restore needs a Snapshot, got int"):
        Guess().restore(5)  # pyright: ignore[reportArgumentType]


def test_a_state_that_does_not_pickle_names_the_remedy():
    class Handles(ae.ToolEnv):
        class State(ae.State):
            target: Any = None

        def start(self, task):
            self.state.target = lambda: 1
            return "go"

    with pytest.raises(SnapshotError, match=r"a field of State does not pickle: .*keep handles and locks out of State"):
        started(Handles).snapshot()


RESTORE_ELSEWHERE = """
import pickle, sys
from envs_for_tests import Dice, LocalDice, call
name, snapshot = pickle.load(sys.stdin.buffer)
env = {"Dice": Dice, "LocalDice": LocalDice}[name]()
try:
    env.restore(snapshot)
except Exception as error:
    print(type(error).__name__, error)
else:
    print(env.step_count, env.step(call("roll", sides=10**6))[0])
"""


def in_another_process(cls, snapshot):
    paths = [path for path in sys.path if path]
    code = f"import sys; sys.path[:0] = {paths!r}\n{RESTORE_ELSEWHERE}"
    job = pickle.dumps((cls.__name__, snapshot))
    done = subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_a_snapshot_travels_to_another_process_or_says_that_it_cannot():
    env = started(Dice)
    env.step(call("roll"))
    answer = in_another_process(Dice, env.snapshot())
    assert answer == f"1 {env.step(call('roll', sides=10**6))[0]}"
    local = started(LocalDice)
    answer = in_another_process(LocalDice, local.snapshot())
    assert answer.startswith("SnapshotError this snapshot of 'LocalDice-v0' has fidelity 'local'")
    local.restore(local.snapshot())
    with pytest.raises(SnapshotError, match="it can be restored only in its own process"):
        local.restore(replace(local.snapshot(), origin="another process"))


# ---------------------------------------------------------------------- sandboxes


def test_forks_have_files_of_their_own():
    env = started(Boxed)
    env.step(call("write", text="a"))
    left, right = env.fork(2)
    assert texts(left.step(call("write", text="l"))[0]) == "al"
    assert texts(right.step(call("write", text="r"))[0]) == "ar"
    assert env.sandbox.files["log"] == "a"
    for each in (env, left, right):
        each.close()
    assert not MemorySandbox.opened


def test_a_real_sandbox_branches_with_its_environment():
    env = started(Notes)
    env.step(call("append", number=1))
    signature = env.state_signature()
    snapshot = env.snapshot()
    (twin,) = env.fork(1)
    try:
        assert texts(env.step(call("append", number=2))[0]) == "01\n2\n"
        assert env.state_signature() != signature == twin.state_signature()
        assert texts(twin.step(call("append", number=3))[0]) == "01\n3\n"
        env.restore(snapshot)
        assert env.sandbox.read("note") == b"01\n"
    finally:
        env.close()
        twin.close()


def test_a_reset_closes_the_sandbox_of_the_episode_before():
    env = started(Boxed)
    first = env.sandbox
    env.reset(seed=1)
    assert MemorySandbox.opened == {id(env.sandbox)} != {id(first)}
    env.close()
    env.close()
    assert not MemorySandbox.opened


class FailingChildren(Boxed):
    """The second environment made with these arguments cannot be made; counts those that are open."""

    made = 0

    def __init__(self, **kwargs):
        if FailingChildren.made == 2:
            msg = "no third environment"
            raise OSError(msg)
        super().__init__(**kwargs)
        FailingChildren.made += 1

    def close(self):
        super().close()
        FailingChildren.made -= 1


def test_a_fork_that_fails_half_way_closes_what_it_opened():
    env = started(FailingChildren)
    with pytest.raises(OSError, match="no third environment"):
        env.fork(3)
    assert MemorySandbox.opened == {id(env.sandbox)}
    assert FailingChildren.made == 1, "the child that was made is closed"
    env.step(call("write", text="still running"))
    env.close()
    assert not MemorySandbox.opened
