"""Equal episodes for the checker: the same environment, seed and actions, as often as a law needs them."""

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from agentenv.env import Env

__all__ = ["Probe", "Trace", "play"]

Trace = list[tuple[Any, float, bool, bool]]
"""What steps gave: observation, reward, terminated, truncated."""


class Probe:
    """Makes equal environments of one kind and plays the same actions in them.

    Attributes:
        actions: the actions of every episode.
        seed: of every episode.
    """

    def __init__(self, env: Env, *, seed: int, num_steps: int, actions: Sequence[Any] | None) -> None:
        self._prototype = env
        self.seed = seed
        self.actions: list[Any] = []
        self.actions = self._sample(num_steps) if actions is None else list(actions)

    def _sample(self, num_steps: int) -> list[Any]:
        """Draws random actions, up to eight times until the episode does not end with one of the first."""
        longest, best = -1, list[Any]()
        for attempt in range(8):
            self._prototype.action_space.seed(self.seed + attempt)
            actions = [self._prototype.action_space.sample() for _ in range(num_steps)]
            length = 0
            with suppress(Exception), self.episode() as env:  # what it raises is for the clauses to report
                length = len(play(env, actions))
            if length > longest:
                longest, best = length, actions
            if length == num_steps:
                break
        return best

    @contextmanager
    def episode(self, steps: int = 0) -> Generator[Env]:
        """Yields a fresh environment, reset and `steps` actions on (fewer if the episode ends); closes it."""
        with closing(self._prototype.spawn()) as env:
            env.reset(seed=self.seed)
            play(env, self.actions[:steps])
            yield env

    def spawn(self) -> Env:
        """Returns a fresh environment, not reset."""
        return self._prototype.spawn()

    def positions(self) -> list[int]:
        """Returns the numbers of steps after which the clauses take snapshots."""
        with self.episode() as env:
            length = len(play(env, self.actions))
        return sorted({0, length // 2, max(length - 1, 0)})


def play(env: Env, actions: Sequence[Any]) -> Trace:
    """Takes actions until they or the episode end, and returns what came back."""
    trace: Trace = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        trace.append((observation, reward, terminated, truncated))
        if terminated or truncated:
            break
    return trace
