"""Gymnasium spaces for chat: unicode text, messages, and assistant actions.

`gymnasium.spaces.Text` accepts a fixed alphabet only, so it refuses most real text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from typing_extensions import override

from agentenv.types import Action, Observation, ToolSchema

__all__ = ["Actions", "Messages", "Unicode"]

_SAMPLES = "abc XYZ 019 .,+-*/ äß 漢字 \N{SNOWMAN}\n"


class Unicode(gymnasium.Space[str]):
    """All text of at most `max_length` characters.

    Args:
        max_length: characters, inclusive; `None` for no limit.
        seed: of the sampler.
    """

    def __init__(self, max_length: int | None = None, seed: int | np.random.Generator | None = None) -> None:
        super().__init__((), None, seed)
        self.max_length = max_length

    @override
    def sample(self, mask: object = None, probability: object = None) -> str:
        length = int(self.np_random.integers(0, min(self.max_length or 32, 32) + 1))
        return "".join(_SAMPLES[i] for i in self.np_random.integers(0, len(_SAMPLES), length))

    @override
    def contains(self, x: object) -> bool:
        return isinstance(x, str) and (self.max_length is None or len(x) <= self.max_length)

    @property
    @override
    def is_np_flattenable(self) -> bool:
        return False

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unicode) and other.max_length == self.max_length

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @override
    def __repr__(self) -> str:
        return f"Unicode(max_length={self.max_length})"


class Messages(gymnasium.Space[Observation]):
    """All tuples of chat messages, the empty one included."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__((), None, seed)
        self._text = Unicode(seed=self.np_random)

    @override
    def sample(self, mask: object = None, probability: object = None) -> Observation:
        roles = ("user", "tool", "system")
        count = int(self.np_random.integers(0, 3))
        return tuple({"role": roles[i], "content": self._text.sample()} for i in self.np_random.integers(0, 3, count))

    @override
    def contains(self, x: object) -> bool:
        if not isinstance(x, tuple):
            return False
        messages = cast("tuple[object, ...]", x)
        return all(isinstance(m, dict) and _is_message(cast("dict[str, Any]", m)) for m in messages)

    @property
    @override
    def is_np_flattenable(self) -> bool:
        return False

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Messages)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @override
    def __repr__(self) -> str:
        return "Messages()"


def _is_message(message: Mapping[str, Any]) -> bool:
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)


class Actions(gymnasium.Space[Any]):
    """All that `step` accepts: text, an assistant message, or an `Action`.

    Samples are mostly well-formed calls of the tools, so that random play gets somewhere, and sometimes plain text.

    Args:
        tools: the tools to call, in OpenAI's format.
        text_share: probability of a sample that is plain text; 1 where there are no tools.
        seed: of the sampler.
    """

    def __init__(
        self,
        tools: Sequence[ToolSchema] = (),
        *,
        text_share: float = 0.1,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__((), None, seed)
        self.tools = tuple(tools)
        self.text_share = text_share if self.tools else 1.0
        self._text = Unicode(seed=self.np_random)

    @override
    def seed(self, seed: int | None = None) -> int | list[int] | dict[str, int]:
        used = super().seed(seed)
        self._text = Unicode(seed=self.np_random)
        return used

    @override
    def sample(self, mask: object = None, probability: object = None) -> Any:
        if self.np_random.random() < self.text_share:
            return self._text.sample()
        function = self.tools[int(self.np_random.integers(len(self.tools)))]["function"]
        arguments = self._value(function.get("parameters", {}))
        call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    def _value(self, schema: Mapping[str, Any]) -> Any:
        """Draws a value of a JSON schema: enough of the standard for what type hints produce."""
        if "enum" in schema:
            return schema["enum"][int(self.np_random.integers(len(schema["enum"])))]
        if "anyOf" in schema:
            return self._value(schema["anyOf"][int(self.np_random.integers(len(schema["anyOf"])))])
        match schema.get("type"):
            case "object":
                return {name: self._value(part) for name, part in schema.get("properties", {}).items()}
            case "array":
                return [self._value(schema.get("items", {})) for _ in range(int(self.np_random.integers(0, 3)))]
            case "integer" | "number" as kind:
                low = schema.get("minimum", schema.get("exclusiveMinimum", -100))
                high = schema.get("maximum", schema.get("exclusiveMaximum", max(low, 0) + 100))
                whole = int(self.np_random.integers(int(low), int(high) + 1))
                return whole if kind == "integer" else float(whole)
            case "boolean":
                return bool(self.np_random.integers(2))
            case "null":
                return None
            case _:
                return self._text.sample()

    @override
    def contains(self, x: object) -> bool:
        try:
            Action.parse(x)
        except ValueError:
            return False
        return True

    @property
    @override
    def is_np_flattenable(self) -> bool:
        return False

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Actions) and other.tools == self.tools

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @override
    def __repr__(self) -> str:
        return f"Actions({', '.join(tool['function']['name'] for tool in self.tools) or 'text'})"
