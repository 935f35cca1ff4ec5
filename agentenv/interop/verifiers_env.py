"""`VerifiersEnv`: an environment of verifiers, version 0 or 1, as one of ours."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import gymnasium
import numpy as np
from typing_extensions import override

from agentenv.distribution import pip_install
from agentenv.errors import InfrastructureError, MissingDependencyError, TaskError
from agentenv.replay import Event, ReplayEnv
from agentenv.rows import shorten
from agentenv.types import Action, Message, ToolSchema

from .turns import Ask, Turns

__all__ = ["VerifiersEnv"]

_ENDLESS = 1000
_PATIENCE = 32
_IDLE = ("I have nothing to say.", "0")


class Source:
    """Their environment, loaded once for an environment of ours and all that branch from it.

    Args:
        environment: what `VerifiersEnv` takes.
        arguments: of `load_environment`, or of the taskset's configuration.
    """

    def __init__(self, environment: Any, arguments: Mapping[str, Any]) -> None:
        self._given, self._arguments = environment, dict(arguments)
        found = _load(environment, arguments) if isinstance(environment, str) else environment
        self.inside: Any = found
        self.version = 1 if _is_taskset(found) else 0
        if self.version == 0 and not callable(getattr(found, "run_rollout", None)):
            msg = f"environment must be the name of an environment or taskset of verifiers, or one, got {found!r:.80}"
            raise TypeError(msg)
        if self.version == 0 and found.requires_group_rollouts:
            msg = f"{self.name} rewards groups of rollouts, and a reward here is that of one episode"
            raise ValueError(msg)

    @override
    def __reduce__(self) -> Any:
        """Loads it again elsewhere, where it has a name."""
        return (Source, (self._given, self._arguments)) if isinstance(self._given, str) else super().__reduce__()

    @property
    def name(self) -> str:
        """What it is called."""
        given = self._given if isinstance(self._given, str) else getattr(self.inside, "env_id", "")
        return str(given or type(self.inside).__name__)

    @cached_property
    def rows(self) -> Sequence[Any]:
        """Its tasks: rows of its data set, or tasks; of a taskset without an end the first thousand."""
        if self.version == 0:
            return cast("Sequence[Any]", self.inside.get_dataset())
        return list(self.inside if self.inside.bounded else self.inside.take(_ENDLESS))

    @cached_property
    def tools(self) -> tuple[ToolSchema, ...]:
        """Its tools, in OpenAI's format; those of version 1 are what its first task serves."""
        if self.version == 0:
            return tuple(_schema(tool) for tool in self.inside.tool_defs or ())
        turns = Turns(self.play(0), timeout_s=120.0)
        try:
            asked = turns.next()
        finally:
            turns.close()
        if turns.ended:
            msg = f"the first task of {self.name} ends before the first turn: {asked['error'] or asked['stop']}"
            raise InfrastructureError(msg)
        return tuple(asked["tools"] or ())

    def answer(self, place: int) -> tuple[str, ...]:
        """Returns the right answer of the task at a place, where it has a field of that name."""
        row = self.rows[place]
        found = row.get("answer") if self.version == 0 else getattr(row.data, "answer", None)
        return (str(found),) if isinstance(found, str | int | float) and found != "" else ()

    def play(self, place: int) -> Callable[[Ask], Any]:
        """Returns what plays the task at a place."""
        if self.version == 0:
            from .verifiers_v0 import play_v0

            return partial(play_v0, self.inside, self.rows[place])
        from .verifiers_v1 import play_v1

        return partial(play_v1, self.inside, self.rows[place])


class Episode(gymnasium.Env[Any, Any]):
    """Episodes of theirs as a plain environment: observations are the messages that are new.

    Args:
        source: whose episodes.
        timeout_s: seconds that a step may take.
    """

    def __init__(self, source: Source, timeout_s: float) -> None:
        self.source, self._timeout_s = source, timeout_s
        self._turns: Turns | None = None
        self._seen: list[dict[str, Any]] = []
        self.place = 0

    @override
    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Starts the episode of a task: `options` is its place; without, the seed draws one."""
        count = len(self.source.rows)
        place = int(np.random.default_rng(seed).integers(count)) if options is None else options
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < count:
            msg = f"options['task'] must be the place of a task of {self.source.name}, 0 to {count - 1}, got {place!r}"
            raise TaskError(msg)
        self.close()
        self.place, self._seen = place, []
        self._turns = Turns(self.source.play(place), timeout_s=self._timeout_s)
        asked = self._turns.next()
        if self._turns.ended:
            self._check(asked)
            msg = f"task {place} of {self.source.name} ends before the first turn: {asked['stop']}"
            raise TaskError(msg)
        return self._look(asked), {}

    @override
    def step(self, action: dict[str, Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Gives an assistant message; the reward comes with the end."""
        if self._turns is None or self._turns.ended:
            msg = "there is no episode: reset it"
            raise RuntimeError(msg)
        self._seen.append(action)
        asked = self._turns.answer(action)
        if not self._turns.ended:
            return self._look(asked), 0.0, False, False, {}
        self._check(asked)
        cut = bool(asked["truncated"])
        about = {"metrics": asked["metrics"], "stop_condition": asked["stop"]}
        return self._look(asked), asked["reward"], not cut, cut, about

    @override
    def close(self) -> None:
        """Ends the episode."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.close()

    def _look(self, asked: Any) -> list[dict[str, Any]]:
        """Returns what is new since the last action; everything where the past was rewritten."""
        messages: list[dict[str, Any]] = asked["messages"] if isinstance(asked, dict) else asked
        known = len(self._seen)
        alike = [m["role"] for m in messages[:known]] == [m["role"] for m in self._seen]
        new = messages[known:] if alike else messages
        self._seen = list(messages)
        return new

    def _check(self, end: Mapping[str, Any]) -> None:
        if end["error"]:
            msg = f"the episode of {self.source.name} broke: {end['error']}"
            raise InfrastructureError(msg)


class _Words:
    """Messages pass as they are."""

    def tools(self, env: Any, /) -> tuple[ToolSchema, ...]:
        return cast("Episode", env).source.tools

    def read_action(self, action: Action, env: Any, /) -> Any:
        del env
        return action.to_message()

    def write_observation(self, observation: Any, env: Any, /, *, first: bool) -> str | Message:
        del env, first
        return observation


class VerifiersEnv(ReplayEnv):
    """An environment of verifiers: `load_environment` of version 0, or a taskset of version 1, branching by replay.

    Their own loop plays, in a thread: an assistant message is a step, what they add to the conversation is the
    observation, and the reward of their rubric, or of the task, comes with the last step; `info` has its `metrics` and
    the `stop_condition`. Tasks of version 1 run in verifiers' `subprocess` runtime. Going back takes the same actions
    again and compares, as `ReplayEnv` does.

    Args:
        environment: a name, as `vf-eval` takes it, or what `load_environment` returned, or a taskset. Environments of
            version 0 install signal handlers as they are made, so they must be made in the main thread.
        arguments: of `load_environment`, or of the taskset's configuration, where a name is given.
        timeout_s: seconds that a step of theirs may take.
        options: of `ReplayEnv`. A task is its place in their data set or taskset.

    Raises:
        MissingDependencyError: there is no verifiers, or not that version.
        TypeError, ValueError: it is no environment of theirs, or rewards groups of rollouts only.
    """

    name = "agentenv/Verifiers"

    def __init__(
        self,
        environment: Any,
        *,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float = 600.0,
        **options: Any,
    ) -> None:
        if not timeout_s > 0:
            msg = f"timeout_s must be above 0, got {timeout_s!r}"
            raise ValueError(msg)
        source = environment if isinstance(environment, Source) else Source(environment, arguments or {})
        self._replace_argument(environment, source)
        self._source = source
        super().__init__(cast("Any", partial(Episode, source, timeout_s)), adapter=cast("Any", _Words()), **options)
        if source.version == 0 and options.get("success_threshold") is None:
            self.success_threshold = float(source.inside.pass_threshold)

    @property
    @override
    def env_id(self) -> str:
        """`verifiers/`, and what it is called."""
        return f"verifiers/{self._source.name.rpartition('/')[2]}-v{self._source.version}"

    @property
    @override
    def task_id(self) -> str:
        """The place of the episode's task."""
        return str(cast("Episode", self.inside).place)

    @override
    def _reset_inside(self, seed: int, task: Any) -> tuple[Event, Any]:
        if task is not None and (isinstance(task, bool) or not isinstance(task, int)):
            msg = f"options['task'] must be the place of a task, got {shorten(task)}"
            raise TaskError(msg)
        return super()._reset_inside(seed, task)

    @override
    def _try_without(self) -> None:
        """Plays to the end with the answer, then idly: where one of that is scored, scoring works.

        Raises:
            InfrastructureError: each of it breaks the episode, too.
        """
        problem: InfrastructureError | None = None
        for words in (*self._source.answer(cast("Episode", self.inside).place), *_IDLE):
            try:
                self._say(words)
            except InfrastructureError as error:
                problem = error
            else:
                problem = None
            self._close_inside()
            self._go_to(self.state)
            if problem is None:
                return
        if problem is not None:
            raise problem

    def _say(self, words: str) -> None:
        for _ in range(_PATIENCE):
            event, *_ = self._step_inside({"role": "assistant", "content": words})
            if event.outcome[1] or event.outcome[2]:
                return


def _load(name: str, arguments: Mapping[str, Any]) -> Any:
    """Loads a taskset by the name of a module that has one in `__all__`, or else an environment of version 0."""
    try:
        import verifiers as vf
    except ImportError as error:
        msg = f"VerifiersEnv needs verifiers, in an environment without our extra mcp: {pip_install('verifiers')}"
        raise MissingDependencyError(msg) from error
    load = getattr(vf, "load_environment", None)
    if load is not None:
        return load(name, **arguments)
    try:
        loaders: Any = importlib.import_module("verifiers.v1.utils.loaders")
        kind = loaders.taskset_config_type(name)
    except (ImportError, AttributeError, TypeError) as error:
        msg = f"{name!r} is no taskset that this version of verifiers finds: {error}"
        raise ValueError(msg) from error
    return loaders.load_taskset(kind(id=name, **arguments))


def _is_taskset(found: Any) -> bool:
    return callable(getattr(found, "load", None)) and hasattr(found, "bounded")


def _schema(tool: Any) -> ToolSchema:
    function = {"name": tool.name, "description": tool.description or "", "parameters": dict(tool.parameters)}
    return cast("ToolSchema", {"type": "function", "function": function})
