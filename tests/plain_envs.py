"""Environments of Gymnasium that know nothing of ours, for the tests of `ReplayEnv`."""

import json
import random
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["Rooms", "Unfaithful"]


class Unfaithful(gymnasium.Env[Any, Any]):
    """A walk in which one thing comes from elsewhere than the seed, from a step on."""

    observation_space = spaces.Discrete(100)
    action_space = spaces.Discrete(3)
    anything = random.Random(5)

    def __init__(self, what="", since=0):
        self.what, self.since = what, since

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = int(self.np_random.integers(10)), 0
        if self.what == "reset":
            self.place = self.anything.randrange(10**6)
        return self.place, {}

    def step(self, action):
        self.steps += 1
        self.place += int(action) + int(self.np_random.integers(2))
        noise = self.anything.random() if self.steps > self.since else 0.0
        if self.what == "raises" and noise and self.anything.random() < 0.9:
            msg = "out of luck"
            raise RuntimeError(msg)
        place = self.place + noise if self.what == "observation" else self.place
        reward = 0.5 + noise if self.what == "reward" else 0.5
        ended = noise > 0.5
        return place, reward, ended and self.what == "terminated", ended and self.what == "truncated", {"noise": noise}


class Rooms(gymnasium.Env[Any, Any]):
    """Takes any action of its space, and says what arrived."""

    def __init__(self, space, render_mode=None):
        self.action_space, self.observation_space = space, spaces.Text(1000)
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return json.dumps(options), {"options": options, "array": np.zeros(2)}

    def step(self, action):
        return repr(action), 0.0, False, False, {"array": np.float32(0.5)}
