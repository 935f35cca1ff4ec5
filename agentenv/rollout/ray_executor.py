"""Environments on more than one machine: actors of a Ray cluster, many environments in each.

One step is one call of an actor. A snapshot that can travel is kept by the driver, so nothing is lost with an actor.
One that cannot stays with the actor that took it: a continuation goes there, or, where that actor is gone, takes the
same actions again. A call is never repeated by Ray itself, which would run a step twice on a fresh object.
"""

import itertools
import os
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar, cast

from agentenv.arrays import check_count
from agentenv.distribution import install_module
from agentenv.errors import InfrastructureError, MissingDependencyError, SnapshotError
from agentenv.protocols import Agent, BranchingEnv, Fidelity, Snapshot, Transition
from agentenv.types import ToolSchema

from .episode import Branch
from .executors import Executor, InStep, Play
from .workers import Job

__all__ = ["HeldSnapshot", "RayExecutor"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Move:
    """One thing that was done to an environment, and what came out."""

    before: "_Move | None"
    name: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outcome: tuple[Any, float] | None = None


@dataclass(frozen=True, eq=False)
class HeldSnapshot:
    """A snapshot that stays with the actor that took it.

    Attributes:
        host: names the actor.
        key: of the snapshot there.
        moves: how to come to the same state without it.
        num_bytes: its size.
    """

    host: str
    key: int
    moves: _Move | None
    num_bytes: int


class _Host:
    """Lives in an actor and holds environments and those of their snapshots that cannot travel."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.numbers = itertools.count()
        self.envs: dict[int, Any] = {}
        self.held: dict[int, Snapshot] = {}
        self.tools: dict[int, Any] = {}

    def open(self, make_env: Callable[[], BranchingEnv]) -> tuple[int, str, float]:
        """Makes an environment, and returns its number, id and threshold."""
        number, env = next(self.numbers), make_env()
        self.envs[number] = env
        return number, env.env_id, env.success_threshold

    def call(self, number: int, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
        """Calls a method; returns its answer, the task, and the tools where they have changed."""
        env = self.envs[number]
        if name == "restore" and isinstance(arguments[0], int):
            arguments = (self.held[arguments[0]],)
        answer = getattr(env, name)(*arguments, **options)
        if isinstance(answer, Transition) and answer.snapshot is not None:
            answer = self._keep(answer, answer.snapshot)
        tools = env.tools
        changed = tools if tools != self.tools.get(number) else None
        self.tools[number] = tools
        return answer, env.task, changed

    def _keep(self, answer: Transition, snapshot: Snapshot) -> Any:
        if snapshot.fidelity is not Fidelity.LOCAL:
            return answer
        key = next(self.numbers)
        self.held[key] = snapshot
        taken = HeldSnapshot(self.name, key, None, snapshot.num_bytes)
        names = answer.__dataclass_fields__
        return Transition(**{name: getattr(answer, name) for name in names} | {"snapshot": cast("Any", taken)})

    def forget(self, key: int) -> None:
        """Drops a snapshot that nobody can ask for any more."""
        self.held.pop(key, None)

    def held_keys(self) -> list[int]:
        """Returns the keys of the snapshots that are held."""
        return list(self.held)

    def close(self, number: int) -> None:
        """Closes an environment."""
        self.tools.pop(number, None)
        env = self.envs.pop(number, None)
        if env is not None:
            env.close()

    def close_all(self) -> None:
        """Closes every environment."""
        for number in list(self.envs):
            self.close(number)


@dataclass(eq=False)
class _Actor:
    """The driver's side of a host."""

    name: str
    handle: Any
    open_envs: int = 0
    answered: bool = False
    dead: bool = False


class RayExecutor:
    """Runs environments in actors of a Ray cluster; another executor asks the agent, which stays with the driver.

    A cluster that `ray.init` has connected to is used; otherwise one is started on this machine, and ended by `close`.
    `make_env` must pickle. Where an actor or its machine dies, its unfinished episodes fail, and are retried on
    another.

    Args:
        actors: how many; each holds as many environments as it is given.
        inner: what asks the agent: `InStep()` (the default) or `Concurrent()`.
        actor_options: of Ray, e.g. `{"num_cpus": 2, "resources": {"sandbox": 1}}`.
        concurrency: calls that an actor works on at once.
        start_seconds: how long an actor may take to start, and to open an environment.

    Attributes:
        num_actors: how many there are.

    Raises:
        MissingDependencyError: ray is not installed.
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        actors: int = 2,
        *,
        inner: Executor | None = None,
        actor_options: Mapping[str, Any] | None = None,
        concurrency: int = 16,
        start_seconds: float = 120.0,
    ) -> None:
        check_count("actors", actors, least=1)
        check_count("concurrency", concurrency, least=1)
        self._ray = _import_ray()
        self._inner = inner or InStep()
        self._own_inner = inner is None
        self.num_actors = actors
        self._options = {"num_cpus": 1, **(actor_options or {}), "max_concurrency": concurrency}
        self._seconds = start_seconds
        self._lock = Lock()  # guards what follows
        self._actors: list[_Actor] = []
        self._names = itertools.count()
        self._started_ray = False

    def attach(self, make_env: Callable[[], BranchingEnv]) -> Callable[[], BranchingEnv]:
        """Returns what makes environments in actors."""
        self._start()
        shared = self._ray.put(make_env)
        return lambda: cast("BranchingEnv", _RemoteEnv(self, shared))

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, limit: float | None
    ) -> Sequence[Job[Result]]:
        """Does blocking work on environments for every item."""
        return self._inner.map(function, items, limit=limit)

    def run(
        self, branches: Sequence[Branch], play: Play, agent: Agent, *, max_envs: int | None, limit: float | None
    ) -> Generator[Branch]:
        """Yields the rollouts as they end."""
        return self._inner.run(branches, play, agent, max_envs=max_envs, limit=limit)

    def close(self) -> None:
        """Ends the actors, and the cluster where it was started here. May be called twice."""
        if self._own_inner:
            self._inner.close()
        with self._lock:
            actors, self._actors = self._actors, []
        for actor in actors:
            if actor.answered and not actor.dead:
                with suppress(Exception):  # it may have died meanwhile
                    self._ray.get(actor.handle.close_all.remote(), timeout=10)
            self._ray.kill(actor.handle)
        if self._started_ray:
            self._started_ray = False
            self._ray.shutdown()

    def _start(self) -> None:
        with self._lock:
            if not self._ray.is_initialized():
                self._ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
                self._started_ray = True

    def place(self, host: str | None) -> _Actor:
        """Returns the actor called `host` if it lives, otherwise the one with the fewest environments."""
        with self._lock:
            self._actors = [actor for actor in self._actors if not actor.dead]
            while len(self._actors) < self.num_actors:
                name = f"host-{next(self._names)}"
                remote = self._ray.remote(**self._options, max_restarts=0, max_task_retries=0)(_Host)
                self._actors.append(_Actor(name, remote.remote(name)))
            named = [actor for actor in self._actors if actor.name == host]
            chosen = named[0] if named else min(self._actors, key=lambda actor: actor.open_envs)
            chosen.open_envs += 1
            return chosen

    def wait(self, actor: _Actor, reference: Any, seconds: float | None = None) -> Any:
        """Waits for an answer; what the environment raised is raised, the death of its actor is a failure."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(reference, timeout=seconds)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.GetTimeoutError as error:
            msg = f"actor {actor.name} did not answer within start_seconds={seconds}: has the cluster room for it?"
            raise InfrastructureError(msg) from error
        except errors.RayError as error:
            actor.dead = True
            msg = f"actor {actor.name} is gone: {type(error).__name__}: {str(error).splitlines()[0]}"
            raise InfrastructureError(msg) from error
        actor.answered = True
        return answer

    def open(self, actor: _Actor, make_env: Any) -> tuple[int, str, float]:
        """Opens an environment in an actor."""
        return self.wait(actor, actor.handle.open.remote(make_env), self._seconds)


class _RemoteEnv:
    """An environment in an actor."""

    def __init__(self, executor: RayExecutor, make_env: Any) -> None:
        self._executor = executor
        self._make_env = make_env
        self._moves: _Move | None = None
        self.task: Any = None
        self.tools: tuple[ToolSchema, ...] = ()
        self._open(None)

    def _open(self, host: str | None) -> None:
        """Opens an environment, in the actor called `host` if it lives; every dead one is found out by asking it."""
        for _ in range(self._executor.num_actors + 1):
            self._actor = self._executor.place(host)
            try:
                opened = self._executor.open(self._actor, self._make_env)
            except InfrastructureError:
                if not self._actor.dead:
                    raise
            else:
                self._number, self.env_id, self.success_threshold = opened
                return
        msg = f"every one of {self._executor.num_actors} actors died while it opened an environment"
        raise InfrastructureError(msg)

    def begin(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, snapshot: bool = True
    ) -> Transition:
        """Starts an episode."""
        self._moves = None
        arguments = {"seed": seed, "options": options}
        return self._anywhere(lambda: self._transition("begin", (), arguments, snapshot=snapshot))

    def advance(self, action: Any, /, *, snapshot: bool = False) -> Transition:
        """Takes one action."""
        return self._transition("advance", (action,), {}, snapshot=snapshot)

    def reseed(self, seed: int, /) -> None:
        """Gives the rest of the episode other random numbers."""
        self._call("reseed", (seed,))
        self._moves = _Move(self._moves, "reseed", (seed,))

    def restore(self, snapshot: Snapshot | HeldSnapshot, /) -> None:
        """Goes back to a snapshot: where it lives, or by the same actions."""
        self._anywhere(lambda: self._restore(snapshot))

    def _restore(self, snapshot: Snapshot | HeldSnapshot) -> None:
        if not isinstance(snapshot, HeldSnapshot):
            self._call("restore", (snapshot,))
            self._moves = None
            return
        if snapshot.host != self._actor.name:
            self.close()
            self._open(snapshot.host)
        if snapshot.host == self._actor.name:
            self._call("restore", (snapshot.key,))
        else:
            self._replay(snapshot.moves)
        self._moves = snapshot.moves

    def _anywhere(self, work: Callable[[], Result]) -> Result:
        """Does what needs nothing of this environment's past; in another actor where its own turns out to be dead."""
        try:
            return work()
        except InfrastructureError:
            if not self._actor.dead:
                raise
        self._open(None)
        return work()

    def close(self) -> None:
        """Closes the environment. May be called twice."""
        number, self._number = self._number, -1
        if number >= 0 and not self._actor.dead:
            self._actor.open_envs -= 1
            with suppress(InfrastructureError):
                self._executor.wait(self._actor, self._actor.handle.close.remote(number), 10)

    def _transition(
        self, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any], *, snapshot: bool
    ) -> Transition:
        after: Transition = self._call(name, arguments, **options, snapshot=snapshot)
        self._moves = _Move(self._moves, name, arguments, options, (after.observation, after.reward))
        held: Any = after.snapshot
        if not isinstance(held, HeldSnapshot):
            return after
        kept = HeldSnapshot(held.host, held.key, self._moves, held.num_bytes)
        weakref.finalize(kept, _forget, self._actor, held.key)
        names = after.__dataclass_fields__
        return Transition(**{name: getattr(after, name) for name in names} | {"snapshot": cast("Any", kept)})

    def _call(self, name: str, arguments: tuple[Any, ...] = (), **options: Any) -> Any:
        reference = self._actor.handle.call.remote(self._number, name, arguments, options)
        answer, self.task, tools = self._executor.wait(self._actor, reference)
        self.tools = self.tools if tools is None else tools
        return answer

    def _replay(self, moves: _Move | None) -> None:
        """Does everything again that led to a state, and compares what comes out."""
        path: list[_Move] = []
        while moves is not None:
            path.append(moves)
            moves = moves.before
        for step, move in enumerate(reversed(path)):
            options = dict(move.options) if move.outcome is None else {**move.options, "snapshot": False}
            after = self._call(move.name, move.arguments, **options)
            if move.outcome is not None and (after.observation, after.reward) != move.outcome:
                msg = (
                    f"{self.env_id} did not repeat itself in another actor: move {step} ({move.name}) gave "
                    f"{move.outcome!r:.200}, now {(after.observation, after.reward)!r:.200}"
                )
                raise SnapshotError(msg)


def _forget(actor: _Actor, key: int) -> None:
    with suppress(Exception):  # the actor or the cluster may be gone
        actor.handle.forget.remote(key)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on one machine it keeps to the loopback device
    try:
        import ray
    except ImportError as error:
        msg = f"RayExecutor needs ray: {install_module('ray')}"
        raise MissingDependencyError(msg) from error
    return ray
