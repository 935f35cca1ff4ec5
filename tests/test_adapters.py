"""How actions of every space are read, and observations written, for environments of Gymnasium."""

import functools
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from envs_for_tests import call, texts
from gymnasium import spaces
from plain_envs import Rooms, Unfaithful

import agentenv as ae
from agentenv.adapters import SpaceAdapter


@pytest.mark.parametrize(
    ("space", "given_as", "arrived"),
    [
        (spaces.Discrete(3, start=-1), -1, "-1"),
        (spaces.Discrete(3), 2.0, "2"),
        (spaces.Discrete(3), "2", "2"),
        (spaces.MultiDiscrete([2, 5]), [1, 4], "array([1, 4])"),
        (spaces.MultiBinary(3), [0, 1, 0], "array([0, 1, 0], dtype=int8)"),
        (spaces.Box(0, 1, (2, 2)), [[0, 1], [0.5, 0]], "array([[0. , 1. ],\n       [0.5, 0. ]], dtype=float32)"),
        (spaces.Box(0, 9, (), np.int64), 4, "array(4)"),
        (spaces.Text(5), "abc", "'abc'"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Text(3))), [1, "a"], "(1, 'a')"),
        (spaces.Dict({"go": spaces.Discrete(2), "to": spaces.Box(0, 1, (1,))}), {"go": 1, "to": [1]},
         "{'go': 1, 'to': array([1.], dtype=float32)}"),
    ],
)  # fmt: skip
def test_actions_of_every_space(space, given_as, arrived):
    env = ae.ReplayEnv(functools.partial(Rooms, space))
    env.reset(seed=0)
    observation, *_, info = env.step(call("act", action=given_as))
    assert (texts(observation), info["mistakes"]) == (f"observation: {arrived}", [])
    if not isinstance(space, spaces.Text):
        assert texts(env.step(json.dumps(given_as))[0]) == f"observation: {arrived}"
    env.action_space.seed(0)
    calls = [a for a in (env.action_space.sample() for _ in range(40)) if isinstance(a, dict)]
    mistakes = [env.step(action)[4]["mistakes"] for action in calls]
    assert calls
    assert isinstance(space, spaces.Text | spaces.Tuple) or not any(mistakes)


@pytest.mark.parametrize(
    "action",
    ["", "left", "[1", "3", "true", "null", "1e999", call("act", action=3), call("act", action=[1]), call("act"),
     call("act", action=None), call("jump", action=1), call("act", action=1, force=2), call("act", action=True),
     {"role": "assistant", "tool_calls": [call("act", action=1)["tool_calls"][0]] * 2}],
)  # fmt: skip
def test_what_is_no_action_is_a_mistake_and_no_step_inside(action):
    env: Any = ae.ReplayEnv(functools.partial(Unfaithful))
    env.reset(seed=0)
    *_, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated, len(info["mistakes"])) == (0.0, False, False, 1)
    assert env.inside.unwrapped.steps == 0
    assert env.step("1")[4]["mistakes"] == []


def test_actions_may_have_names_and_pictures_are_shown():
    env = ae.ReplayEnv(
        gymnasium.make("FrozenLake-v1", render_mode="ansi", is_slippery=False),
        adapter=SpaceAdapter(("left", "down", "right", "up"), prompt="Go! {observation}"),
    )
    first = texts(env.reset(seed=0)[0])
    assert first.startswith("Go! observation: 0\n")
    assert "[S]FFF" in first
    assert env.tools[0]["function"]["parameters"]["properties"]["action"] == {
        "type": "string",
        "enum": ["left", "down", "right", "up"],
    }
    assert "S[F]FF" in texts(env.step(call("act", action="right"))[0])
    assert "observation: 2\n" in texts(env.step("right")[0])
    assert texts(env.step("jump")[0]) == "no action: call act(action), where an action is one of left, down, right, up"
    (twin,) = env.fork(1)
    assert twin.step("left")[:4] == env.step("left")[:4]
    with pytest.raises(TypeError, match=r"one entry per action of a Discrete space, got 1 for Discrete\(4\)"):
        ae.ReplayEnv("FrozenLake-v1", adapter=SpaceAdapter(("left",)))


class Camera(Rooms):
    """Observes pictures."""

    def __init__(self):
        super().__init__(spaces.Discrete(2))
        self.observation_space = spaces.Dict({"eye": spaces.Box(0, 255, (64, 64, 3), np.uint8)})


def test_observations_that_are_no_text_need_an_adapter():
    with pytest.raises(TypeError, match="an observation of Camera has 12,288 numbers, too many to read as text: pass"):
        ae.ReplayEnv(Camera)

    class Describes(SpaceAdapter):
        def write_observation(self, observation, env, /, *, first):
            return "a picture"

    env = ae.ReplayEnv(Camera, adapter=Describes())
    assert texts(env.reset(seed=0)[0]) == "a picture"
