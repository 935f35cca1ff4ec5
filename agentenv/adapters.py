"""How observations and actions of a plain `gymnasium.Env` become messages: `Adapter`, and the default for any space."""

import json
import re
from typing import Any, Protocol, cast

import gymnasium
import numpy as np
from gymnasium import spaces

from agentenv.errors import ToolError
from agentenv.rows import is_list, is_mapping, plain, shorten
from agentenv.types import Action, Message, ToolSchema

__all__ = ["Adapter", "SpaceAdapter"]

AnyEnv = gymnasium.Env[Any, Any]

_MOST_NUMBERS = 4_096
_HIGHLIGHT = re.compile(r"\x1b\[[\d;]*[1-9]\d*m(.*?)\x1b\[0m", re.DOTALL)
_ESCAPE = re.compile(r"\x1b\[[\d;]*m")


class Adapter(Protocol):
    """Translates between messages and the spaces of an environment. Subclass `SpaceAdapter` to change one part."""

    def tools(self, env: AnyEnv, /) -> tuple[ToolSchema, ...]:
        """Returns the tools an agent may call, in OpenAI's format."""
        ...

    def read_action(self, action: Action, env: AnyEnv, /) -> Any:
        """Returns the action that the agent means, as the environment's `step` takes it.

        Raises:
            ToolError: it means none; the message becomes the observation, and the environment inside takes no step.
        """
        ...

    def write_observation(self, observation: Any, env: AnyEnv, /, *, first: bool) -> str | Message:
        """Returns what the agent reads; `first` right after a reset."""
        ...


class SpaceAdapter:
    """One tool, `act(action)`, whose schema is the action space; observations as JSON, and as text where `ansi` is on.

    An action may also be the text of a message: the JSON value, or the name of a discrete action. Where the
    environment's `render_mode` is `"ansi"`, its picture follows the observation; what it highlights stands in brackets.

    Args:
        names: names of the actions of a `Discrete` space, in order.
        prompt: the first message, with `{env}`, `{actions}` and `{observation}` in it.
    """

    def __init__(
        self,
        names: tuple[str, ...] | list[str] = (),
        *,
        prompt: str = "This is {env}. Act with act(action); an action is {actions}.\n{observation}",
    ) -> None:
        self.names = tuple(names)
        self.prompt = prompt

    def tools(self, env: AnyEnv, /) -> tuple[ToolSchema, ...]:
        """Returns the one tool.

        Raises:
            TypeError: a space whose values are no JSON, as many names as there are not actions, or observations of
                thousands of numbers, which are no text to read.
        """
        space = env.action_space
        writes_numbers = type(self).write_observation is SpaceAdapter.write_observation
        if writes_numbers and (count := count_numbers(env.observation_space)) > _MOST_NUMBERS:
            msg = (
                f"an observation of {type(env.unwrapped).__name__} has {count:,} numbers, too many to read as text: "
                "pass adapter=, a subclass of agentenv.adapters.SpaceAdapter whose write_observation describes it"
            )
            raise TypeError(msg)
        if self.names and not (isinstance(space, spaces.Discrete) and space.n == len(self.names)):
            msg = f"names must have one entry per action of a Discrete space, got {len(self.names)} for {space}"
            raise TypeError(msg)
        schema = {"type": "string", "enum": list(self.names)} if self.names else space_schema(space)
        parameters = {"type": "object", "properties": {"action": schema}, "required": ["action"]}
        function = {"name": "act", "description": "Take one action.", "parameters": parameters}
        return ({"type": "function", "function": function},)

    def read_action(self, action: Action, env: AnyEnv, /) -> Any:
        """Returns the action of the first call, or of the text."""
        if not action.tool_calls:
            return self._read(self._from_text(action.content.strip(), env), env)
        call = action.tool_calls[0]
        if call.name != "act" or len(action.tool_calls) > 1:
            msg = f"call act(action) once, got {', '.join(call.name for call in action.tool_calls)}"
            raise ToolError(msg)
        if isinstance(call.arguments, str) or set(call.arguments) != {"action"}:
            msg = f"act takes one argument, action, got {shorten(call.arguments)}"
            raise ToolError(msg)
        return self._read(call.arguments["action"], env)

    def _from_text(self, text: str, env: AnyEnv) -> Any:
        if text in self.names or isinstance(env.action_space, spaces.Text):
            return text
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            msg = f"no action: call act(action), where an action is {self._actions(env)}"
            raise ToolError(msg) from None

    def _read(self, value: Any, env: AnyEnv) -> Any:
        space: Any = env.action_space
        if isinstance(value, str) and value in self.names:
            value = int(space.start) + self.names.index(value)
        try:
            action = space_value(space, value)
            fits = bool(space.contains(action))
        except (ValueError, TypeError, KeyError, OverflowError):
            action, fits = None, False
        if not fits:
            msg = f"an action is {self._actions(env)}, got {shorten(value)}"
            raise ToolError(msg)
        return action

    def _actions(self, env: AnyEnv) -> str:
        return "one of " + ", ".join(self.names) if self.names else describe_space(env.action_space)

    def write_observation(self, observation: Any, env: AnyEnv, /, *, first: bool) -> str | Message:
        """Returns the observation as JSON, its picture, and at the beginning what to do."""
        text = observation if isinstance(observation, str) else json.dumps(plain(observation), default=repr)
        text = f"observation: {text}"
        if env.render_mode == "ansi" and isinstance(picture := cast("Any", env).render(), str):
            text += "\n" + _ESCAPE.sub("", _HIGHLIGHT.sub(r"[\1]", picture)).strip("\n")
        if not first:
            return text
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        return (
            self.prompt.replace("{env}", name).replace("{actions}", self._actions(env)).replace("{observation}", text)
        )


def space_schema(space: spaces.Space[Any]) -> dict[str, Any]:
    """Returns the JSON schema of a space's values.

    Raises:
        TypeError: its values are no JSON.
    """
    match space:
        case spaces.Discrete():
            return {"type": "integer", "minimum": int(space.start), "maximum": int(space.start + space.n - 1)}
        case spaces.MultiBinary():
            return _array_schema(np.zeros(space.shape), np.ones(space.shape), "integer")
        case spaces.MultiDiscrete():
            start: Any = cast("Any", space).start
            return _array_schema(start, start + space.nvec - 1, "integer")
        case spaces.Box():
            kind = "integer" if np.issubdtype(cast("Any", space.dtype), np.integer) else "number"
            return _array_schema(space.low, space.high, kind)
        case spaces.Text():
            return {"type": "string", "minLength": space.min_length, "maxLength": space.max_length}
        case spaces.Tuple():
            parts = [space_schema(part) for part in _parts(space)]
            return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
        case spaces.Dict():
            named = {name: space_schema(part) for name, part in space.spaces.items()}
            return {"type": "object", "properties": named, "required": list(named)}
        case _:
            msg = f"actions of {space} have no JSON form: pass adapter=, a subclass of agentenv.adapters.SpaceAdapter"
            raise TypeError(msg)


def _array_schema(low: Any, high: Any, kind: str) -> dict[str, Any]:
    if np.ndim(low) == 0:
        bounds = {"minimum": low} if np.isfinite(low) else {}
        bounds |= {"maximum": high} if np.isfinite(high) else {}
        return {"type": kind, **plain(bounds)}
    parts = [_array_schema(a, b, kind) for a, b in zip(low, high, strict=True)]
    same = {"items": parts[0]} if all(part == parts[0] for part in parts) else {"prefixItems": parts}
    return {"type": "array", **same, "minItems": len(parts), "maxItems": len(parts)}


def space_value(space: spaces.Space[Any], value: Any) -> Any:
    """Returns the value of a space that JSON stands for; raises what numpy and Python raise where there is none."""
    match space:
        case spaces.Discrete():
            return int(value) if float(value).is_integer() and not isinstance(value, bool) else None
        case spaces.Tuple() if is_list(value):
            return tuple(space_value(part, item) for part, item in zip(_parts(space), value, strict=True))
        case spaces.Dict() if is_mapping(value):
            return {name: space_value(part, value[name]) for name, part in space.spaces.items()}
        case spaces.Box() | spaces.MultiBinary() | spaces.MultiDiscrete():
            return np.asarray(value, dtype=cast("Any", space.dtype)).reshape(space.shape)
        case _:
            return value


def count_numbers(space: spaces.Space[Any]) -> int:
    """Returns how many numbers a value of a space has at least."""
    match space:
        case spaces.Tuple():
            return sum(map(count_numbers, _parts(space)))
        case spaces.Dict():
            return sum(map(count_numbers, space.spaces.values()))
        case spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return int(np.prod(space.shape))
        case _:
            return 1


def describe_space(space: spaces.Space[Any]) -> str:
    """Returns in words what a value of a space looks like in JSON."""
    match space:
        case spaces.Discrete():
            return f"an integer from {space.start} to {space.start + space.n - 1}"
        case spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return f"JSON of {space}"
        case spaces.Text():
            return f"text of {space.min_length} to {space.max_length} characters"
        case spaces.Tuple():
            return f"a list of {', '.join(map(describe_space, _parts(space)))}"
        case spaces.Dict():
            parts = (f"{name}: {describe_space(part)}" for name, part in space.spaces.items())
            return f"an object with {', '.join(parts)}"
        case _:
            return f"JSON of {space}"


def _parts(space: Any) -> tuple[spaces.Space[Any], ...]:
    return space.spaces
