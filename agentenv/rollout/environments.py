"""The environments of a rollout: opened when needed, lent to one episode at a time, closed when something broke."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock

from agentenv.errors import AgentError
from agentenv.protocols import BranchingEnv

__all__ = ["EnvPool"]


class EnvPool:
    """Keeps environments between episodes.

    Args:
        make_env: returns a new environment; called as often as episodes run at once.
    """

    def __init__(self, make_env: Callable[[], BranchingEnv]) -> None:
        self._make_env = make_env
        self._lock = Lock()  # guards what follows
        self._idle: list[BranchingEnv] = []
        self._open: dict[int, BranchingEnv] = {}

    @contextmanager
    def lend(self) -> Generator[BranchingEnv]:
        """Lends an environment; one that raised, or that `close` has closed meanwhile, does not come back."""
        with self._lock:
            env = self._idle.pop() if self._idle else None
        if env is None:
            env = self._make_env()
        if not isinstance(env, BranchingEnv):
            msg = f"make_env must return an environment (begin, advance, restore, reseed, close), got {env!r:.80}"
            raise TypeError(msg)
        with self._lock:
            twice = id(env) in self._open
            self._open[id(env)] = env
        if twice:
            msg = "make_env must return a new environment at every call, got one that is in use: lambda: MyEnv(...)"
            raise ValueError(msg)
        try:
            yield env
        except AgentError:  # the environment is as good as before
            self._take_back(env)
            raise
        except BaseException:
            self._drop(env)
            raise
        self._take_back(env)

    def _take_back(self, env: BranchingEnv) -> None:
        with self._lock:
            known = self._open.pop(id(env), None) is not None
            if known:
                self._idle.append(env)

    def _drop(self, env: BranchingEnv) -> None:
        with self._lock:
            known = self._open.pop(id(env), None) is not None
        if known:  # otherwise `close` has closed it
            env.close()

    def close(self) -> None:
        """Closes every environment, lent ones too. May be called twice."""
        with self._lock:
            every = [*self._idle, *self._open.values()]
            self._idle, self._open = [], {}
        for env in every:
            env.close()
