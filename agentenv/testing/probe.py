"""Equal episodes for the checker: the same environment, seed and actions, as often as a law needs them."""

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from agentenv.env import Env
from agentenv.protocols import Snapshot
from agentenv.testing.scripts import Script

__all__ = ["Probe", "Trace", "play"]

Trace = list[tuple[Any, float, bool, bool]]
"""What steps gave: observation, reward, terminated, truncated."""


class Probe:
    """Makes equal environments of one kind and plays the same actions in them.

    Attributes:
        script: what is played.
        actions: the actions of every episode.
        seed: of every episode.
        options: of every reset.
        leak_wait_s: how long what an episode left may take to go away by itself.

    Args:
        env: the environments are made like it; it is not touched.
        script: the episode.
        leak_wait_s: see above.
    """

    def __init__(self, env: Env, script: Script, *, leak_wait_s: float = 2.0) -> None:
        self._prototype = env
        self.script = script
        self.options = None if script.task is None else {"task": script.task}
        self.actions: list[Any] = list(script.actions)
        self.seed = script.seed
        self.leak_wait_s = leak_wait_s

    @contextmanager
    def episode(self, steps: int = 0) -> Generator[Env]:
        """Yields a fresh environment, reset and `steps` actions on (fewer if the episode ends); closes it."""
        with closing(self._prototype.spawn()) as env:
            env.reset(seed=self.seed, options=self.options)
            play(env, self.actions[:steps])
            yield env

    def beginnings(self) -> Generator[Env]:
        """Yields an environment at the beginning of the episode, again and again, for one action each; to be closed.

        It is the same one, put back, for another sandbox takes a hundred times as long; a fresh one where that fails.
        """
        while True:
            with self.episode() as env:
                snapshot: Snapshot | None = None
                with suppress(Exception):  # reported by other laws
                    snapshot = env.snapshot()
                yield env
                with suppress(Exception):
                    while snapshot is not None:
                        env.restore(snapshot)
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
