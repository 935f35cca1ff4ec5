"""`begin` and `advance`: a step in one call, equal to `step`, signatures and snapshot, for one sandbox snapshot."""

from typing import Any

import pytest
from envs_for_tests import Boxed, Dice, Guess, Notes, call, guess
from sandbox_backends import marks, opener, skip_without

import agentenv as ae
from agentenv.errors import EpisodeError
from agentenv.protocols import BranchingEnv, SteppableEnv
from agentenv.wrappers import LimitObservation, TransformReward, Wrapper

ENDING = {Guess: [guess(1)] * 7, Dice: [call("roll"), "text", call("hold")], Boxed: [call("write", text="a")] * 5}


def charge(reward, info):
    return reward - info["step_count"]


class OldStyle(Wrapper):
    """Overrides `reset` and `step`, and has state of its own, so that it overrides `snapshot`, too."""

    def reset(self, *, seed=None, options=None):
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, info | {"old": True}

    def step(self, action, /):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward + 1, terminated, truncated, info | {"old": True}

    def state_signature(self):
        return f"old {self.env.state_signature()}"

    def action_signature(self, action, /):
        return f"old {self.env.action_signature(action)}"


WRAPPED = {
    "bare": lambda env: env,
    "wrapper": Wrapper,
    "wrappers": lambda env: TransformReward(LimitObservation(env, 4), charge),
    "old style": OldStyle,
    "mixed": lambda env: LimitObservation(OldStyle(TransformReward(env, charge)), 4),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("kind", ENDING, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("snapshot", [True, False])
def test_one_call_gives_what_several_do(kind, wrap, snapshot):
    env, twin = wrap(kind()), wrap(kind())
    begun, (observation, info) = env.begin(seed=3, snapshot=snapshot), twin.reset(seed=3)
    assert (begun.observation, begun.info) == (observation, info)
    assert (begun.reward, begun.ended, begun.action_signature) == (0.0, False, "")
    assert begun.state_signature == twin.state_signature()
    assert (begun.snapshot == twin.snapshot()) is snapshot
    ended = begun.ended
    for action in ENDING[kind]:
        taken, stepped = env.advance(action, snapshot=snapshot), twin.step(action)
        assert (taken.observation, taken.reward, taken.terminated, taken.truncated, taken.info) == stepped
        assert taken.state_signature == twin.state_signature()
        assert taken.action_signature == twin.action_signature(ae.Action.parse(action))
        assert (taken.snapshot is not None) is (snapshot and not taken.ended)
        assert taken.snapshot in {None, twin.snapshot()} if kind is not Boxed else True
        ended = taken.ended
    assert ended
    with pytest.raises(EpisodeError):
        env.advance(ENDING[kind][0])
    env.close()
    twin.close()


def test_a_snapshot_from_the_way_leads_back():
    env: Any = Dice()
    start = env.begin(seed=1).snapshot
    kept = [env.advance(call("roll", sides=10**6), snapshot=True) for _ in range(3)]
    for snapshot, following in zip([start, *(taken.snapshot for taken in kept)], kept, strict=False):
        env.restore(snapshot)
        again = env.advance(call("roll", sides=10**6))
        assert (again.observation, again.state_signature) == (following.observation, following.state_signature)


class Files(Notes):
    """Notes in the back end of the test; its signature reads the sandbox's content twice, as a subclass may."""

    where = "process"

    def make_sandbox(self) -> Any:
        return opener(self.where)(base={"note": "0"})

    def state_signature(self):
        return super().state_signature() + self.sandbox_content()


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize(
    "where", [pytest.param(w, marks=marks(w)) for w in ("process", "namespace", "docker", "gvisor")]
)
def test_a_step_takes_one_sandbox_snapshot_at_most(where, wrap, monkeypatch):
    skip_without(where)
    monkeypatch.setattr(Files, "where", where)
    env = wrap(Files())
    taken: list[Any] = []
    real: Any = None

    def snapshot(self, **options):
        taken.append(real(self, **options))
        return taken[-1]

    begun = env.begin(seed=0)
    kind: Any = type(env.unwrapped.sandbox if wrap is not WRAPPED["bare"] else env.sandbox)
    real = kind.snapshot
    monkeypatch.setattr(kind, "snapshot", snapshot)
    for keep in (True, False, True):
        taken.clear()
        step = env.advance(call("append", number=1), snapshot=keep)
        assert len(taken) == 1
        assert step.state_signature.endswith(taken[0].content_id)
        if keep:
            assert step.snapshot.sandbox is taken[0]
    taken.clear()
    again = env.begin(seed=0)
    assert (len(taken), again.state_signature) == (1, begun.state_signature)
    env.close()


def test_after_a_step_the_sandbox_is_read_anew():
    """What is shared within one call is not kept beyond it."""
    env = Files()
    signature = env.begin(seed=0).state_signature
    env.sandbox.write("note", "other")
    assert env.state_signature() != signature
    env.restore(env.snapshot())
    assert env.sandbox.read("note") == b"other"
    env.close()


@pytest.mark.filterwarnings("ignore:the subprocess sandbox isolates nothing")
def test_the_protocols_are_kept_by_environments_and_wrappers():
    for wrap in WRAPPED.values():
        assert isinstance(wrap(Guess()), BranchingEnv)
        assert isinstance(wrap(Guess()), SteppableEnv)
        assert wrap(Guess()).success_threshold == 0.5


def test_an_environment_says_from_which_return_on_an_episode_succeeds():
    class Hard(Guess):
        success_threshold = 0.9

    assert Wrapper(LimitObservation(Hard(), 5)).success_threshold == 0.9
