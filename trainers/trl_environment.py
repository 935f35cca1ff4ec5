"""Our environments as the objects that TRL's own tool loop plays: `GRPOTrainer(environment_factory=...)`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Optional, Union, cast

from agentenv.env import Env
from agentenv.errors import InfrastructureError
from agentenv.registry import env_class
from agentenv.types import Action, Message, ToolCall, ToolSchema, message_text

__all__ = ["as_trl_environment", "trl_rows"]

_RESERVED = ("reset", "get_reward")
_OVER = "The episode has ended; nothing can be done any more."


def as_trl_environment(env: str | type[Env] | Callable[[], Env], **options: Any) -> type[Any]:
    """Makes a class of an environment that TRL's `GRPOTrainer` takes as `environment_factory`.

    Its public methods are the environment's tools, with type hints and docstrings that give the model the same schemas;
    `reset` starts an episode and `get_reward` returns the sum of its rewards, `None` where infrastructure broke it,
    which TRL leaves out. What an agent does wrong is an observation. TRL's loop differs from ours: every call of a
    parallel set is a step, a message without calls ends the episode without a step, calls after the end are answered
    and do nothing, and there are no trees.

    Rows for a training set are made by `trl_rows`. Without them (`train_dataset=None`) every episode draws its own
    task, which makes groups of unequal tasks: give rows.

    Args:
        env: a registered id, `"module:Class"`, a class, or a function that makes one.
        options: arguments of the environment.

    Raises:
        ValueError: the environment has no tools, or one whose name TRL uses itself.
        AgentEnvError: the environment cannot be made.
    """
    cls = env_class(env) if isinstance(env, str) else env
    make: Callable[[], Env] = partial(cast("Any", cls), **options)
    probe = make()
    try:
        tools, name = probe.tools, type(probe).__name__
    finally:
        probe.close()
    names = [tool["function"]["name"] for tool in tools]
    if not names:
        msg = f"{name} has no tools, and TRL's loop knows only tools: train it with TreeTrainer"
        raise ValueError(msg)
    if taken := sorted(set(names) & set(_RESERVED) | {tool for tool in names if tool.startswith("_")}):
        msg = f"{name} has a tool named {taken[0]!r}, which TRL would not offer: rename it"
        raise ValueError(msg)
    methods: dict[str, Any] = {tool["function"]["name"]: _method(tool) for tool in tools}
    return type(
        name, (_Played,), methods | {"_make": staticmethod(make), "__module__": __name__, "__doc__": cls.__doc__}
    )


def trl_rows(
    env: str | type[Env] | Callable[[], Env], which: int | Sequence[int], /, *, seed: int = 0, **options: Any
) -> list[dict[str, Any]]:
    """Returns rows for `datasets.Dataset.from_list`: the first messages of an episode, and how `reset` begins it again.

    Args:
        env: as for `as_trl_environment`, and `options` too.
        which: how many tasks the environment shall draw, or the places of tasks among its own (`range(len(tasks))`).
        seed: of the first row; row `i` has `seed + i`, so that all episodes of a group play the same task.
        options: arguments of the environment.

    Returns:
        `prompt`, the messages; `seed`; and `task`, the place, where places were given.

    Raises:
        ValueError: there would be no row.
        TaskError: the environment has no such task.
    """
    cls: Any = env_class(env) if isinstance(env, str) else env
    places: Sequence[int | None] = [None] * which if isinstance(which, int) else which
    if not places:
        msg = f"which must be a number of tasks of at least 1, or places of tasks, got {which!r}"
        raise ValueError(msg)
    player: Env = cls(**options)
    rows: list[dict[str, Any]] = []
    try:
        for number, place in enumerate(places):
            row = {"seed": seed + number} | ({} if place is None else {"task": int(place)})
            observation, _ = player.reset(seed=row["seed"], options=None if place is None else {"task": row["task"]})
            rows.append({"prompt": [_plain(message) for message in observation], **row})
    finally:
        player.close()
    return rows


def _plain(message: Message) -> dict[str, str]:
    return {"role": message["role"], "content": message_text(message)}


class _Played:
    """One episode after the other, as TRL plays them."""

    _make: Callable[[], Env]

    def __init__(self) -> None:
        self._env = self._make()
        self._total: float | None = 0.0
        self._ended = True

    def reset(
        self, *, prompt: Sequence[Message] | None = None, seed: int | None = None, task: Any = None, **_: Any
    ) -> str | None:
        """Starts an episode; returns what its first messages say, unless the row's prompt said it."""
        self._total, self._ended = 0.0, False
        try:
            observation, _info = self._env.reset(seed=seed, options=None if task is None else {"task": task})
        except InfrastructureError as error:
            self._total, self._ended = None, True
            return None if prompt else str(error)
        return None if prompt else "\n\n".join(message_text(message) for message in observation)

    def get_reward(self) -> float | None:
        """Returns the sum of the rewards so far; `None` where infrastructure, or a bug, broke the episode."""
        return self._total

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        if self._ended:
            return _OVER
        action = Action(tool_calls=(ToolCall(name, dict(arguments), "call_0"),))
        try:
            observation, reward, terminated, truncated, _ = self._env.step(action)
        except Exception as error:  # a bug, too: TRL would show it to the model and count a 0
            self._total, self._ended = None, True
            if not isinstance(error, InfrastructureError):
                raise
            return str(error)
        self._total = (self._total or 0.0) + float(reward)
        self._ended = terminated or truncated
        return "\n".join(message_text(message) for message in observation)

    def __del__(self) -> None:
        env = getattr(self, "_env", None)
        if env is not None:
            env.close()


# ---------------------------------------------------------------------- schemas as functions


def _method(tool: ToolSchema) -> Any:
    """A method whose signature and docstring say what the schema says."""
    function: Any = tool["function"]
    name, schema = str(function["name"]), cast("Mapping[str, Any]", function.get("parameters") or {})
    required = set(schema.get("required", ()))
    hints: dict[str, Any] = {}
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    lines: list[str] = []
    for argument, part in cast("Mapping[str, Mapping[str, Any]]", schema.get("properties", {})).items():
        hints[argument] = _hint(part)
        default = inspect.Parameter.empty if argument in required else part.get("default")
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(argument, kind, default=default, annotation=hints[argument]))
        lines.append(f"        {argument}: {' '.join(str(part.get('description', argument)).split())}")

    def method(self: _Played, **arguments: Any) -> str:
        return self._call(name, arguments)  # pyright: ignore[reportPrivateUsage]

    method.__name__ = method.__qualname__ = name
    method.__annotations__ = {**hints, "return": str}
    cast("Any", method).__signature__ = inspect.Signature(parameters, return_annotation=str)
    text = str(function.get("description") or name).strip()
    method.__doc__ = text + ("\n\n    Args:\n" + "\n".join(lines) + "\n" if lines else "")
    return method


_HINTS: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "object": dict, "null": None}


def _hint(schema: Mapping[str, Any]) -> Any:
    """The type that transformers makes this schema of; `Any` for what it has no type for."""
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            parts = [_hint(part) for part in schema[word]]
            inner = [part for part in parts if part is not None]
            union: Any = Union[tuple(inner)] if inner else None  # noqa: UP007  made at run time
            return Optional[union] if len(inner) < len(parts) else union  # noqa: UP045
    kind = schema.get("type")
    if isinstance(kind, list):
        return _hint({"anyOf": [{**schema, "type": one} for one in cast("list[str]", kind)]})
    if kind == "array":
        items = schema.get("items")
        return list[_hint(cast("Mapping[str, Any]", items))] if isinstance(items, Mapping) and items else list
    return _HINTS.get(str(kind), Any) if kind else Any
