"""`ReplayEnv`: any environment branches, by going back to its beginning and taking the same actions again."""

import copy
import dataclasses
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from typing_extensions import override

from agentenv.adapters import Adapter, SpaceAdapter
from agentenv.arrays import as_number
from agentenv.control import with_control
from agentenv.env import Env, Reply
from agentenv.errors import AgentFault, InfrastructureError, SandboxError, SnapshotError, ToolError
from agentenv.jsonable import json_value
from agentenv.protocols import Snapshot, StepResult
from agentenv.rows import shorten
from agentenv.signatures import digest
from agentenv.tasks import State
from agentenv.types import Action, Observation, ToolSchema

__all__ = ["ReplayEnv"]

AnyEnv = gymnasium.Env[Any, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """The reset of the environment inside, or something that was done to it since, and what it gave.

    Attributes:
        kind: `"reset"`, `"step"`, or `"reseed"`, which gives nothing.
        given: the action, or the seed.
        observed: digest of the observation.
        seen: the observation, shortened, for messages.
        outcome: reward, terminated, truncated.
        way: digest of everything up to here, so that two ways are equal where their last events have it equal.
        history: digest of what could be seen up to here: the same without seeds.
    """

    kind: str
    given: Any
    observed: str = ""
    seen: str = ""
    outcome: tuple[float, bool, bool] = (0.0, False, False)
    way: str = ""
    history: str = ""

    def after(self, before: "Event | None") -> "Event":
        """Returns the event at its place behind another."""
        way, history = ("", "") if before is None else (before.way, before.history)
        seen = (self.observed, self.outcome) if self.kind == "reset" else (self.given, self.observed, self.outcome)
        return dataclasses.replace(
            self,
            way=digest([way, self.kind, self.given, self.observed, self.outcome]),
            history=history if self.kind == "reseed" else digest([history, *seen]),
        )


class ReplayState(State):
    """How the environment inside came to be where it is.

    Attributes:
        asked: the task that it was asked for; `None` where it drew one.
        events: its reset, and what was done since.
    """

    asked: Any = None
    events: tuple[Event, ...] = ()


class ReplayEnv(Env):
    """Makes an environment branch that cannot be snapshotted: a snapshot is the seed and the actions so far.

    `restore` and `fork` reset the environment inside with the same seed and take the same actions again, comparing
    every observation, reward and flag with those of the first time; where the environment already is on the way there,
    only the rest is taken. So going back costs as many steps as it is deep (`replayed_steps` counts them), and the
    environment must do the same again: where it does not, `SnapshotError` names the step and the difference.

    `reseed` replaces `np_random` of the environment inside, which is where Gymnasium's environments draw from; one that
    draws elsewhere goes on as it would have.

    Args:
        env: what to wrap: a `gymnasium.Env` (also one of ours whose back end cannot snapshot), its id, or a function
            that makes one. An instance is taken over. Others like it are made by `spawn` (ours), from its spec (those
            of `gymnasium.make`), or by copying it as it is now.
        adapter: how observations and actions become messages; for ours there is nothing to do. By default one tool
            `act(action)`, and observations as JSON.
        markov: whether an observation tells the whole state, so that equal ones have equal signatures; otherwise
            everything since reset is the signature of a state. Without effect on ours, which have their own.
        success_threshold: an episode succeeds when its return exceeds it; by default the environment's own, the
            `reward_threshold` of its spec, or 0.5.
        options: `tasks`, `max_steps` and `render_mode`, as in every environment. A task is what the environment's
            `reset` is given as `options`, or, for one of ours, as its task.

    Raises:
        ValueError: `success_threshold` is no finite number.
        TypeError: it is no environment, another like it cannot be made, or its action space has no JSON form.
    """

    name = "agentenv/Replay"
    State = ReplayState

    def __init__(
        self,
        env: AnyEnv | Callable[[], AnyEnv] | str,
        *,
        adapter: Adapter | None = None,
        markov: bool = False,
        success_threshold: float | None = None,
        **options: Any,
    ) -> None:
        if success_threshold is not None and not math.isfinite(as_number(success_threshold)):
            msg = f"success_threshold must be a finite number, got {shorten(success_threshold)}"
            raise ValueError(msg)
        self._make_inside = _maker(env)
        self._replace_argument(env, self._make_inside)
        self._inside: AnyEnv | None = env if isinstance(env, gymnasium.Env) else self._make_inside()
        if not isinstance(cast("object", self._inside), gymnasium.Env):
            msg = f"env must make a gymnasium.Env, got {self._inside!r:.80}"
            raise TypeError(msg)
        inner = _ours(self._inside)
        self._own_words = inner is not None
        self._adapter: Adapter = SpaceAdapter() if adapter is None else adapter
        self._markov = markov
        self._tools = self._inside_tools()
        self._id = inner.env_id if inner is not None else _id_of(self._inside)
        self._live: tuple[Event, ...] = ()  # what the environment inside has really been through
        self._reset_seed: int | None = None
        self._info: dict[str, Any] = {}
        self._replayed = 0
        super().__init__(**options)
        self.success_threshold = _threshold(self._inside) if success_threshold is None else float(success_threshold)
        if inner is not None:
            self.action_space = inner.action_space

    @property
    @override
    def env_id(self) -> str:
        """`replay/` and the id of the environment inside."""
        return f"replay/{self._id}"

    @property
    @override
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call."""
        return self._tools

    @property
    def inside(self) -> AnyEnv:
        """The environment inside, made anew where it was closed."""
        if self._inside is None:
            self._inside, self._live = self._make_inside(), ()
        return self._inside

    @property
    def replayed_steps(self) -> int:
        """How many steps were taken again so far, to go back."""
        return self._replayed

    # ------------------------------------------------------------------ the episode

    @override
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode: with `seed`, the one that the environment inside starts with it."""
        self._reset_seed = seed
        observation, info = super().reset(seed=seed, options=options)
        return observation, self._info | info

    @override
    def start(self, task: Any) -> Reply:
        seed = int(self.np_random.integers(2**31)) if self._reset_seed is None else self._reset_seed
        self.state.asked = task
        event, observation = self._reset_inside(seed, task)
        self._went(event)
        return self._write(observation, first=True)

    @override
    def step(self, action: Any) -> StepResult:
        """Takes one action; `info` has what the environment inside says, too."""
        self._info = {}
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, self._info | info

    @override
    def respond(self, action: Action) -> Reply:
        try:
            given = self._read(action)
        except ToolError as error:
            return self.note_mistake(str(error))
        event, observation, info = self._step_controlled(given)
        self._went(event)
        reward, self._terminated, self._truncated = event.outcome
        self._take_over(reward, info)
        return self._write(observation, first=False)

    @override
    def reseed(self, seed: int, /) -> None:
        """Gives the rest of the episode other random numbers: those of `np_random` of the environment inside."""
        super().reseed(seed)
        if self._phase in {"running", "ended"}:
            self._reseed_inside(seed)
            self._went(Event("reseed", seed))

    @override
    def state_signature(self) -> str:
        """Returns the signature of the environment inside; of everything since reset where it has none.

        With `markov`, of the last observation alone.
        """
        last = self.state.events[-1]
        seen = last.history
        if (inner := _ours(self.inside)) is not None and self._live:
            with suppress(SandboxError, SnapshotError):  # whose back end cannot snapshot
                return inner.state_signature()
        elif self._markov:
            seen = next(event.observed for event in reversed(self.state.events) if event.kind != "reseed")
        return digest([self._phase == "ended", seen])

    @override
    def action_signature(self, action: Action, /) -> str:
        inner = _ours(self.inside)
        return super().action_signature(action) if inner is None else inner.action_signature(action)

    @override
    def render(self) -> Any:
        """Returns the last observation as text in mode `"ansi"`; otherwise what the environment inside shows."""
        return super().render() if self.render_mode is not None else cast("Any", self.inside).render()

    @override
    def close(self) -> None:
        """Closes the environment inside, too."""
        super().close()
        self._close_inside()

    # ------------------------------------------------------------------ going back

    @override
    def _load(self, snapshot: Snapshot) -> None:
        super()._load(snapshot)
        self._info = {}
        phase, self._phase = self._phase, "failed"  # until it is there
        try:
            self._go_to(self.state)
        except BaseException:
            self._close_inside()
            raise
        self._phase = phase

    def _go_to(self, target: ReplayState) -> None:
        """Brings the environment inside to where `target` says."""
        reset, *_ = events = target.events
        done = len(self._live)
        if self._inside is None or not 0 < done <= len(events) or self._live[-1].way != events[done - 1].way:
            again, _ = self._reset_inside(reset.given, target.asked)
            self._compare(reset, again, "reset")
            self._live = (reset,)
        steps = sum(event.kind == "step" for event in self._live)
        for event in events[len(self._live) :]:
            if event.kind == "reseed":
                self._reseed_inside(event.given)
            else:
                steps += 1
                self._replay(event, steps)
            self._live = (*self._live, event)

    def _replay(self, event: Event, step: int) -> None:
        self._replayed += 1
        try:
            again, _, _ = self._step_inside(event.given)
        except InfrastructureError:
            raise
        except Exception as error:
            msg = f"{self.env_id} does not do the same again: step {step} raised {type(error).__name__}: {error}"
            raise SnapshotError(msg) from error
        self._compare(event, again, f"step {step}")

    def _compare(self, before: Event, now: Event, where: str) -> None:
        differences = [("observation", before.seen, now.seen)] if before.observed != now.observed else []
        names = ("reward", "terminated", "truncated")
        differences += [d for d in zip(names, before.outcome, now.outcome, strict=True) if digest(d[1]) != digest(d[2])]
        if differences:
            what, was, now_is = differences[0]
            msg = (
                f"{self.env_id} does not do the same again, so it cannot go back: the {what} of {where} was {was}, and "
                f"now {now_is}; everything random in it must come from the seed of its reset"
            )
            raise SnapshotError(msg)

    # ------------------------------------------------------------------ the environment inside

    def _inside_tools(self) -> tuple[ToolSchema, ...]:
        inner = _ours(self.inside)
        return self._adapter.tools(self.inside) if inner is None else inner.tools

    def _read(self, action: Action) -> Any:
        if self._own_words:
            return dataclasses.replace(action, token_ids=None, logprobs=None, prompt_token_ids=None)
        return self._adapter.read_action(action, self.inside)

    def _write(self, observation: Any, *, first: bool) -> Reply:
        if self._own_words:
            return cast("Reply", observation)
        return self._adapter.write_observation(observation, self.inside, first=first)

    def _reset_inside(self, seed: int, task: Any) -> tuple[Event, Any]:
        self._live = ()
        options = {"task": task} if self._own_words and task is not None else task
        observation, info = self.inside.reset(seed=seed, options=options)
        self._info = json_value(info)
        if (inner := _ours(self.inside)) is not None:
            self.task = inner.task
        return Event("reset", seed, digest(observation), _short(observation)), observation

    def _step_inside(self, given: Any) -> tuple[Event, Any, dict[str, Any]]:
        live, self._live = self._live, ()  # until it has answered
        observation, reward, terminated, truncated, info = self.inside.step(copy.deepcopy(given))
        self._live = live
        outcome = float(reward), bool(terminated), bool(truncated)
        return Event("step", given, digest(observation), _short(observation), outcome), observation, info

    def _step_controlled(self, given: Any) -> tuple[Event, Any, dict[str, Any]]:
        """Takes a step; where it breaks the environment inside, another goes the same way and tries it once more.

        Raises:
            AgentFault: the step breaks the other, too, and the way there did not.
            InfrastructureError: there is no other, or the way there breaks it: nobody's fault.
        """
        is_there = True

        def control() -> None:
            nonlocal is_there
            self._close_inside()
            try:
                self._go_to(self.state)
                self._try_without()
            except SnapshotError:  # it does not do the same again, but it does something
                is_there = False

        def again() -> tuple[Event, Any, dict[str, Any]] | None:
            taken = self._step_inside(given)
            return taken if is_there else None

        try:
            taken = with_control(lambda: self._step_inside(given), control, again=again)
        except AgentFault:
            self._close_inside()
            raise
        if taken is None:
            msg = f"{self.env_id} broke at this step, and did not when it was tried elsewhere: {shorten(given)}"
            raise InfrastructureError(msg)
        return taken

    def _try_without(self) -> None:
        """Does, where the way to a step says too little, what an agent without ill will might, and comes back."""

    def _reseed_inside(self, seed: int) -> None:
        if (inner := _ours(self.inside)) is not None:
            inner.reseed(seed)
        else:
            self.inside.unwrapped.np_random = seeding.np_random(seed)[0]

    def _went(self, event: Event) -> None:
        events = self.state.events
        self.state.events = self._live = (*events, event.after(events[-1] if events else None))

    def _take_over(self, reward: float, info: dict[str, Any]) -> None:
        """Takes the reward and what `info` says of it."""
        self._info = json_value(info)
        if self._own_words:
            self._rewards = dict(self._info.get("rewards", {"reward": reward}))
            self._mistakes = list(self._info.get("mistakes", ()))
        else:
            self.add_reward(reward)

    def _close_inside(self) -> None:
        inside, self._inside, self._live = self._inside, None, ()
        if inside is not None:
            inside.close()


def _ours(env: AnyEnv) -> Env | None:
    return env.unwrapped if isinstance(env.unwrapped, Env) else None


def _id_of(env: AnyEnv) -> str:
    if env.spec is not None and env.spec.id.rpartition("-v")[2].isdigit():
        return env.spec.id
    return f"{type(env.unwrapped).__name__}-v0"


def _threshold(env: AnyEnv) -> float:
    if (inner := _ours(env)) is not None:
        return inner.success_threshold
    threshold = env.spec.reward_threshold if env.spec is not None else None
    return Env.success_threshold if threshold is None else float(threshold)


def _short(observation: Any) -> str:
    return " ".join(shorten(observation).split())


# ---------------------------------------------------------------------- others like it


@dataclasses.dataclass(frozen=True)
class _Copies:
    """Makes copies of an environment as it was at first."""

    original: AnyEnv

    def __call__(self) -> AnyEnv:
        return copy.deepcopy(self.original)


@dataclasses.dataclass(frozen=True)
class _FromSpec:
    """Makes the environments of a spec, or of an id."""

    spec: EnvSpec | str

    def __call__(self) -> AnyEnv:
        return gymnasium.make(self.spec)


@dataclasses.dataclass(frozen=True)
class _Spawns:
    """Makes others of one of ours."""

    original: Env

    def __call__(self) -> AnyEnv:
        return self.original.spawn()


def _maker(env: Any) -> Callable[[], AnyEnv]:
    if isinstance(env, str):
        return _FromSpec(env)
    if isinstance(env, Env):
        return _Spawns(env)
    if isinstance(env, gymnasium.Env):
        return _others(cast("AnyEnv", env))
    if callable(env):
        return cast("Callable[[], AnyEnv]", env)
    msg = f"env must be a gymnasium.Env, an id, or a function that makes one, got {env!r:.80}"
    raise TypeError(msg)


def _others(env: AnyEnv) -> Callable[[], AnyEnv]:
    spec = env.spec
    if spec is not None and all(wrapper.kwargs is not None for wrapper in spec.additional_wrappers):
        return _FromSpec(spec)
    try:
        return _Copies(copy.deepcopy(env))
    except Exception as error:
        msg = f"another {type(env).__name__} cannot be made by copying it ({error}): pass a function that makes one"
        raise TypeError(msg) from error
