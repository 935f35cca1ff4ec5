"""Environments that branch: `Env`. Most people subclass `agentenv.ToolEnv`.

An environment is a `gymnasium.Env` whose complete state can be taken (`snapshot`), put back (`restore`) and multiplied
(`fork`) at any step. It gets that for free by keeping everything that changes during an episode in four places, and
nowhere else: `self.state` (a pydantic model), `self.np_random`, `self.sandbox`, and the step count.
"""

import json
import pickle
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar, Self, TypeVar, cast

import gymnasium
import numpy as np
import pydantic
from gymnasium.utils import seeding
from typing_extensions import override

from agentenv.errors import EpisodeError, SnapshotError, TaskError
from agentenv.protocols import Fidelity, Sandbox, Snapshot, StepResult, Transition
from agentenv.signatures import canonical, digest
from agentenv.spaces import Actions, Messages
from agentenv.tasks import State, read_task
from agentenv.types import Action, Message, Observation, ToolSchema, to_observation

__all__ = ["Env", "Reply"]

Reply = str | Message | Sequence[Message]
"""What an environment answers: text, a message, or several."""

_PROCESS = uuid.uuid4().hex
_OPTIONS = ("task",)

EnvType = TypeVar("EnvType", bound="Env")


class Env(gymnasium.Env[Observation, Any]):
    """A multi-step environment that an agent talks to, and that can be branched at any step.

    Subclasses write `start` and `respond`; most are better off with `ToolEnv`.

    Set these in SOME subclasses:
        name: names the environment; the class name by default. With `version` it makes `env_id`.
        version: raise it whenever results could change.
        max_steps: the step after which an episode is truncated; `None` for no limit.
        State: the pydantic model of `self.state`.
        Task: the pydantic model of a task; where it is set, tasks are validated into it.
        fidelity: `Fidelity.LOCAL` where a snapshot means nothing in another process.
        success_threshold: an episode succeeds when its return exceeds it.

    Attributes:
        state: the episode's own state, an instance of `State`.
        task: the episode's task.
        tasks: the tasks to draw from when `reset` is given none.
        sandbox: where commands run; `None` for environments that run none.

    Args:
        tasks: the tasks to draw from; instances of `Task`, or mappings that fit it.
        max_steps: overrides the class's limit.
        render_mode: `"ansi"` makes `render` return the last observation as text.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 0
    max_steps: int | None = None
    State: ClassVar[type[pydantic.BaseModel]] = State
    Task: ClassVar[type[pydantic.BaseModel] | None] = None
    fidelity: Fidelity = Fidelity.PORTABLE
    success_threshold: float = 0.5
    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  as gymnasium declares it

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

    def __init__(
        self,
        *,
        tasks: Sequence[Any] | None = None,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if max_steps is not None:
            if max_steps < 1:
                msg = f"max_steps must be at least 1, got {max_steps}"
                raise ValueError(msg)
            self.max_steps = max_steps
        if render_mode not in {None, "ansi"}:
            msg = f"render_mode must be None or 'ansi', got {render_mode!r}"
            raise ValueError(msg)
        self.render_mode = render_mode
        self.tasks: Sequence[Any] = () if tasks is None else tasks
        self.observation_space = Messages()
        self.action_space = Actions(self.tools)
        self.state = self.task = self.sandbox = None
        self._phase = "new"
        self._step_count = 0
        self._last: Observation = ()
        self._begin_step()

    # ------------------------------------------------------------------ what subclasses write

    def start(self, task: Any, /) -> Reply:  # noqa: ARG002
        """Begins an episode: sets `self.state` and returns the first observation (text is a user message)."""
        raise TypeError(_must_define(type(self), "start(self, task)"))

    def respond(self, action: Action, /) -> Reply:  # noqa: ARG002
        """Answers one action. May call `add_reward` and `finish`."""
        raise TypeError(_must_define(type(self), "respond(self, action)"))

    def sample_task(self) -> Any:
        """Returns the task of an episode that was given none; draws from `self.tasks` with `self.np_random`."""
        if len(self.tasks):
            return self.tasks[int(self.np_random.integers(len(self.tasks)))]
        if self.Task is not None:
            try:
                return self.Task()
            except pydantic.ValidationError:
                msg = f"{self.env_id} has no tasks: pass tasks=[...] to it, or options={{'task': ...}} to reset"
                raise TaskError(msg) from None
        return None

    def make_sandbox(self) -> Sandbox | None:
        """Opens the sandbox of an episode; called before `start`. Environments that run commands override it."""
        return None

    def state_signature(self) -> str:
        """Returns a digest of the fields of `self.state`, and of the sandbox's content where there is one.

        Equal exactly where those are equal. The step count and the random state are left out, so that a state reached
        by another way is the same state.
        """
        content = getattr(self.sandbox.snapshot(), "content_id", "") if self.sandbox is not None else ""
        return digest([self._phase == "ended", content, self.state])

    def action_signature(self, action: Action, /) -> str:
        """Returns what the action did, in canonical form: tool names and arguments, or the text, stripped.

        Asked right after the step, so that an environment may add the outcome.
        """
        if action.tool_calls:
            return json.dumps([[call.name, canonical(call.arguments)] for call in action.tool_calls])
        return action.content.strip()

    # ------------------------------------------------------------------ what subclasses call

    def finish(self, reply: str = "", *, reward: float = 0.0) -> str:
        """Ends the episode with this step and returns `reply`.

        Args:
            reply: the last thing that the agent reads.
            reward: added to the step's reward under the name `outcome`.
        """
        self._terminated = True
        self.add_reward(reward, name="outcome")
        return reply

    def add_reward(self, value: float, *, name: str = "reward") -> None:
        """Adds to the step's reward; the components are in `info["rewards"]` by name.

        Raises:
            ValueError: the value is not finite.
        """
        if not np.isfinite(value):
            msg = f"reward must be finite, got {value!r} for {name!r}; where nothing is known raise InfrastructureError"
            raise ValueError(msg)
        self._rewards[name] = self._rewards.get(name, 0.0) + float(value)

    def note_mistake(self, text: str) -> str:
        """Records that the agent's action was invalid (in `info["mistakes"]`) and returns `text`."""
        self._mistakes.append(text)
        return text

    # ------------------------------------------------------------------ what users call

    @property
    def env_id(self) -> str:
        """The environment's id with its version, e.g. `agentenv/MathVerifier-v0`."""
        return f"{self.name}-v{self.version}"

    @property
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call, in OpenAI's format."""
        return ()

    @property
    def task_id(self) -> str:
        """Names the episode's task: its `id`, or a digest."""
        return str(getattr(self.task, "id", "") or digest(self.task))

    @property
    def step_count(self) -> int:
        """Steps since reset."""
        return self._step_count

    @override
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: makes everything random in it repeatable; without it the random generator goes on.
            options: `{"task": ...}` chooses the task: an instance or a mapping that fits `Task`, or an index into
                `tasks`.

        Returns:
            The first observation, and `info` with `task_id` and `step_count`.

        Raises:
            TaskError: the task has the wrong shape.
            ValueError: an unknown option.
        """
        super().reset(seed=seed)
        unknown = set(options or {}) - set(_OPTIONS)
        if unknown:
            msg = f"options may hold {', '.join(map(repr, _OPTIONS))}, got {sorted(unknown)!r}"
            raise ValueError(msg)
        given = (options or {}).get("task")
        self._phase = "failed"  # until `start` has succeeded
        self._drop_sandbox()
        if given is None:
            self.task = read_task(self.sample_task(), self.Task)
        else:
            self.task = read_task(given, self.Task, self.tasks)
        self.state = self.State()
        self._step_count = 0
        self._begin_step()
        self.sandbox = self.make_sandbox()
        self._last = to_observation(self.start(self.task))
        self._phase = "running"
        return _copy(self._last), {"task_id": self.task_id, "step_count": 0}

    @override
    def step(self, action: Any) -> StepResult:
        """Takes one action.

        Args:
            action: text, an assistant message in OpenAI's format, or an `Action`.

        Returns:
            The new messages; the reward of this step; whether the task ended the episode; whether a limit did; and
            `info` with `step_count`, `rewards` by component, and `mistakes` (what was wrong with the action).

        Raises:
            EpisodeError: before `reset`, after the end, or after a failure.
            InfrastructureError: something broke that is not the agent: the episode has no reward.
            ValueError: the action is none of the accepted types.
        """
        self._require("running", EpisodeError, "step")
        parsed = Action.parse(action)
        self._begin_step()
        self._phase = "failed"  # until the answer is complete
        self._last = to_observation(self.respond(parsed))
        self._step_count += 1
        truncated = not self._terminated and self.max_steps is not None and self._step_count >= self.max_steps
        self._phase = "ended" if self._terminated or truncated else "running"
        info = {"step_count": self._step_count, "rewards": self._rewards, "mistakes": self._mistakes}
        return _copy(self._last), float(sum(self._rewards.values())), self._terminated, truncated, info

    def begin(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, snapshot: bool = True
    ) -> Transition:
        """Starts an episode as `reset` does, and returns the state's signature and, where wanted, a snapshot too."""
        observation, info = self.reset(seed=seed, options=options)
        taken = self.snapshot() if snapshot else None
        return Transition(observation, info=info, state_signature=self.state_signature(), snapshot=taken)

    def advance(self, action: Any, /, *, snapshot: bool = False) -> Transition:
        """Takes one action as `step` does, and returns both signatures and, where wanted, a snapshot too.

        Args:
            action: as for `step`.
            snapshot: whether to take a snapshot; none is taken of an episode that has ended.
        """
        parsed = Action.parse(action)
        observation, reward, terminated, truncated, info = self.step(parsed)
        taken = self.snapshot() if snapshot and not (terminated or truncated) else None
        signatures = self.state_signature(), self.action_signature(parsed)
        return Transition(observation, reward, terminated, truncated, info, *signatures, taken)

    def snapshot(self) -> Snapshot:
        """Returns the complete state of the episode; changes nothing.

        Raises:
            SnapshotError: there is no episode, or it failed, or the state does not pickle.
        """
        return self._snapshot(with_sandbox=True)

    def _snapshot(self, *, with_sandbox: bool) -> Snapshot:
        self._require("running ended", SnapshotError, "snapshot")
        try:
            state = pickle.dumps((self.state.__getstate__(), self._last), pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            msg = f"{self.env_id}: a field of State does not pickle: {error}; keep handles and locks out of State"
            raise SnapshotError(msg) from error
        sandbox = self.sandbox.snapshot() if self.sandbox is not None and with_sandbox else None
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
        if snapshot.sandbox is None:
            self._drop_sandbox()
        else:
            self._phase = "failed"  # until the sandbox is back
            if self.sandbox is None:
                self.task = snapshot.task  # a sandbox may depend on it
                self.sandbox = self.make_sandbox()
            cast("Sandbox", self.sandbox).restore(snapshot.sandbox)
        self._load(snapshot)

    def _load(self, snapshot: Snapshot) -> None:
        """Puts back everything but the sandbox."""
        state, self._last = pickle.loads(snapshot.state)  # noqa: S301  our own bytes
        self.state = self.State.__new__(self.State)
        self.state.__setstate__(state)
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
            ValueError: `n` is negative.
            SnapshotError: there is no episode to fork.
        """
        if n < 0:
            msg = f"n must be at least 0, got {n}"
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

    @override
    def render(self) -> Any:
        """Returns the last observation as text in mode `"ansi"`."""
        if self.render_mode is None:
            return None
        return "\n".join(f"[{message['role']}] {message['content']}" for message in self._last)

    @override
    def close(self) -> None:
        """Frees the sandbox. Snapshots stay valid; `reset` and `restore` work again."""
        self._drop_sandbox()
        self._phase = "new"

    # ------------------------------------------------------------------ inside

    def _begin_step(self) -> None:
        self._terminated = False
        self._rewards: dict[str, float] = {}
        self._mistakes: list[str] = []

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

    def _drop_sandbox(self) -> None:
        if self.sandbox is not None:
            self.sandbox.close()
            self.sandbox = None


def _make(cls: type[EnvType], args: tuple[Any, ...], kwargs: dict[str, Any]) -> EnvType:
    return cls(*args, **kwargs)


def _copy(observation: Observation) -> Observation:
    return tuple(cast("Message", dict(message)) for message in observation)


def _must_define(cls: type, what: str) -> str:
    return f"{cls.__qualname__} must define {what}"
