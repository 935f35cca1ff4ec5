"""The complete state of an episode: taking it, going back to it, and multiplying it."""

import pickle
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar, Self, TypeVar, cast

import gymnasium
import numpy as np
import pydantic
from gymnasium.utils import seeding
from typing_extensions import override

from agentenv.errors import SnapshotError
from agentenv.protocols import Fidelity, Sandbox, SandboxSnapshot, Snapshot
from agentenv.tasks import State
from agentenv.types import Observation

__all__ = ["Branching"]

_PROCESS = uuid.uuid4().hex

EnvType = TypeVar("EnvType", bound="Branching")


class Branching(gymnasium.Env[Observation, Any]):
    """What everything in an episode depends on, and how it is taken, put back and multiplied; the base of `Env`.

    Everything that changes during an episode is in four places: `state`, `np_random`, `sandbox`, and the step count.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 0
    State: ClassVar[type[pydantic.BaseModel]] = State
    fidelity: Fidelity = Fidelity.PORTABLE

    state: Any
    task: Any
    sandbox: Sandbox | None
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        if not issubclass(cls.State, pydantic.BaseModel):
            msg = f"{cls.__qualname__}.State must subclass agentenv.State (a pydantic model)"
            raise TypeError(msg)
        for name, info in cls.State.model_fields.items():
            if info.is_required():
                msg = f"{cls.__qualname__}.State.{name} needs a default: `reset` starts every episode with State()"
                raise TypeError(msg)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remembers the arguments, so that `spawn` can make another."""
        self = super().__new__(cls)
        self._arguments = (args, kwargs)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """An environment pickles as its class and arguments, without its episode; snapshots carry episodes."""
        args, kwargs = self._arguments
        return _make, (type(self), args, kwargs)

    def __init__(self) -> None:
        self.state = self.task = self.sandbox = None
        self._phase = "new"
        self._step_count = 0
        self._last: Observation = ()
        self._shared: list[SandboxSnapshot] | None = None
        self._lost = 0
        self._kept: SandboxSnapshot | None = None  # of the state that the last step, or going back, came to
        self._begin_step()

    @property
    def env_id(self) -> str:
        """The environment's id with its version, e.g. `agentenv/MathVerifier-v0`."""
        return f"{self.name}-v{self.version}"

    @property
    def step_count(self) -> int:
        """Steps since reset."""
        return self._step_count

    @property
    def sandboxes_lost(self) -> int:
        """How many sandboxes the agent's steps have cost in this episode."""
        return self._lost

    def make_sandbox(self) -> Sandbox | None:
        """Opens the sandbox of an episode; called before `start`. Environments that run commands override it."""
        return None

    def sandbox_content(self) -> str:
        """Names the content of the sandbox's files: equal exactly where that is; empty where there is no sandbox."""
        return getattr(self._sandbox_snapshot(), "content_id", "")

    def snapshot(self) -> Snapshot:
        """Returns the complete state of the episode; changes nothing.

        Raises:
            SnapshotError: there is no episode, or it failed, or the state does not pickle.
        """
        return self._snapshot(with_sandbox=True)

    def _snapshot(self, *, with_sandbox: bool) -> Snapshot:
        self._require("running ended", SnapshotError, "snapshot")
        try:
            state = pickle.dumps((self.state.__getstate__(), self._last, self._lost), pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            msg = f"{self.env_id}: a field of State does not pickle: {error}; keep handles and locks out of State"
            raise SnapshotError(msg) from error
        sandbox = self._sandbox_snapshot() if with_sandbox else None
        local = Fidelity.LOCAL in {self.fidelity, getattr(sandbox, "fidelity", self.fidelity)}
        return Snapshot(
            env_id=self.env_id,
            step_count=self._step_count,
            phase=self._phase,
            task=self.task,
            random_state=pickle.dumps((self.np_random.bit_generator.state, self.np_random_seed)),
            state=state,
            sandbox=sandbox,
            fidelity=Fidelity.LOCAL if local else Fidelity.PORTABLE,
            origin=_PROCESS,
        )

    def restore(self, snapshot: Snapshot, /) -> None:
        """Goes back to a snapshot, taken by this environment or by any other of the same id and version.

        Raises:
            SnapshotError: it is of another environment, or of another process and cannot travel.
        """
        if not isinstance(snapshot, Snapshot):
            msg = f"restore needs a Snapshot, got {type(snapshot).__name__}"
            raise SnapshotError(msg)
        if snapshot.env_id != self.env_id:
            msg = f"cannot restore a snapshot of {snapshot.env_id!r} into {self.env_id!r}: id and version must be equal"
            raise SnapshotError(msg)
        if snapshot.fidelity is Fidelity.LOCAL and snapshot.origin != _PROCESS:
            msg = (
                f"this snapshot of {snapshot.env_id!r} has fidelity 'local': it can be restored only in its own process"
            )
            raise SnapshotError(msg)
        self._put_back(snapshot)
        self._load(snapshot)
        self._kept = snapshot.sandbox

    def _put_back(self, snapshot: Snapshot) -> None:
        """Puts back the sandbox."""
        if snapshot.sandbox is None:
            self._drop_sandbox()
            return
        self._phase = "failed"  # until the sandbox is back
        if self.sandbox is None:
            self.task = snapshot.task  # a sandbox may depend on it
            self.sandbox = self.make_sandbox()
        cast("Sandbox", self.sandbox).restore(snapshot.sandbox)

    def _load(self, snapshot: Snapshot) -> None:
        """Puts back everything but the sandbox."""
        state, self._last, *lost = pickle.loads(snapshot.state)  # noqa: S301  our own bytes
        self.state = self.State.__new__(self.State)
        self.state.__setstate__(state)
        self._kept = None
        self._lost = lost[0] if lost else 0  # none in what an older version took
        random_state, seed = pickle.loads(snapshot.random_state)  # noqa: S301  our own bytes
        generator = type(self.np_random.bit_generator)
        if generator.__name__ != random_state["bit_generator"]:
            generator = getattr(np.random, random_state["bit_generator"])
        fresh = seeding.RandomNumberGenerator(generator())
        fresh.bit_generator.state = random_state
        self._np_random, self._np_random_seed = fresh, seed
        self.task = snapshot.task
        self._step_count = snapshot.step_count
        self._phase = snapshot.phase
        self._begin_step()

    def fork(self, n: int) -> list[Self]:
        """Returns `n` independent environments in this state; this one goes on untouched.

        Equal actions give equal outcomes in all of them, random ones included; `reseed` makes them differ.

        Raises:
            ValueError: `n` is no integer of at least 0.
            SnapshotError: there is no episode to fork.
        """
        if not isinstance(cast("object", n), Integral) or n < 0:
            msg = f"n must be an integer of at least 0, got {n!r}"
            raise ValueError(msg)
        snapshot = self._snapshot(with_sandbox=False)
        sandboxes = self.sandbox.fork(n) if self.sandbox is not None else [None] * n
        children: list[Self] = []
        try:
            for sandbox in sandboxes:
                child = self.spawn()
                child._load(snapshot)
                child.sandbox = sandbox
                children.append(child)
        except BaseException:
            for opened in (*children, *sandboxes):
                if opened is not None:
                    opened.close()
            raise
        return children

    def spawn(self) -> Self:
        """Returns a new environment made with the same arguments, without an episode."""
        args, kwargs = self._arguments
        child = _make(type(self), args, kwargs)
        child.spec = self.spec
        return child

    def reseed(self, seed: int, /) -> None:
        """Gives the rest of the episode other random numbers, so that continuations of one state differ."""
        self._np_random, self._np_random_seed = seeding.np_random(seed)

    @contextmanager
    def same_state(self) -> Generator[None]:
        """Within it, signatures and snapshots share one snapshot of the sandbox, which only `step` may change."""
        if self._shared is not None:  # within another
            yield
            return
        self._shared = []
        try:
            yield
        finally:
            self._kept, self._shared = next(iter(self._shared), self._kept), None

    @override
    def close(self) -> None:
        """Frees the sandbox. Snapshots stay valid; `reset` and `restore` work again."""
        self._drop_sandbox()
        self._phase = "new"

    # ------------------------------------------------------------------ inside

    def _replace_argument(self, given: Any, kept: Any) -> None:
        """Has `spawn` and pickling use `kept` where the constructor was given `given`."""
        args, kwargs = self._arguments
        self._arguments = (
            tuple(kept if value is given else value for value in args),
            {name: kept if value is given else value for name, value in kwargs.items()},
        )

    def _begin_step(self) -> None:
        self._terminated = self._truncated = False
        self._rewards: dict[str, float] = {}
        self._mistakes: list[str] = []
        self._breakages: list[str] = []

    def _require(self, phases: str, error: type[Exception], verb: str) -> None:
        if self._phase in phases.split():
            return
        why = {
            "new": f"call reset() before {verb}()",
            "ended": f"the episode ended at step {self._step_count}: call reset(), or restore() an earlier snapshot",
            "failed": "the episode failed: call reset(), or restore() an earlier snapshot",
        }
        msg = f"{self.env_id}: cannot {verb}: {why[self._phase]}"
        raise error(msg)

    def _sandbox_snapshot(self) -> SandboxSnapshot | None:
        if self.sandbox is None:
            return None
        if self._shared is None:
            return self.sandbox.snapshot()
        if not self._shared:
            self._shared.append(self.sandbox.snapshot())
        return self._shared[0]

    def _drop_sandbox(self) -> None:
        if self.sandbox is not None:
            self.sandbox.close()
            self.sandbox = self._kept = None


def _make(cls: type[EnvType], args: tuple[Any, ...], kwargs: dict[str, Any]) -> EnvType:
    return cls(*args, **kwargs)
