"""Gymnasium spaces for chat: unicode text, messages, and assistant actions.

`gymnasium.spaces.Text` accepts a fixed alphabet only, so it refuses most real text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import gymnasium
import numpy as np
from typing_extensions import override

from agentenv.json_schema import sample_value
from agentenv.types import Action, Message, Observation, ToolSchema, to_observation

__all__ = ["Actions", "Messages", "Unicode"]

_SAMPLES = "abc XYZ 019 .,+-*/ äß 漢字 \N{SNOWMAN}\n"


T = TypeVar("T")


class _PlainSpace(gymnasium.Space[T]):
    """A space of Python objects, which numpy cannot flatten."""

    @property
    @override
    def is_np_flattenable(self) -> bool:
        return False


class Unicode(_PlainSpace[str]):
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
        longest = 32 if self.max_length is None else min(self.max_length, 32)
        length = int(self.np_random.integers(0, longest + 1))
        return "".join(_SAMPLES[i] for i in self.np_random.integers(0, len(_SAMPLES), length))

    @override
    def contains(self, x: object) -> bool:
        return isinstance(x, str) and (self.max_length is None or len(x) <= self.max_length)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unicode) and other.max_length == self.max_length

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @override
    def __repr__(self) -> str:
        return f"Unicode(max_length={self.max_length})"


class Messages(_PlainSpace[Observation]):
    """All tuples of chat messages, the empty one included."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__((), None, seed)
        self._text = Unicode(seed=self.np_random)

    @override
    def seed(self, seed: int | None = None) -> int | list[int] | dict[str, int]:
        used = super().seed(seed)
        self._text = Unicode(seed=self.np_random)
        return used

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

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Messages)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @override
    def __repr__(self) -> str:
        return "Messages()"


def _is_message(message: dict[str, Any]) -> bool:
    try:
        to_observation(cast("Message", message))
    except ValueError:
        return False
    return True


class Actions(_PlainSpace[Any]):
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
        parameters: Mapping[str, Any] = function.get("parameters", {})
        arguments = sample_value({"type": "object", **parameters}, self.np_random, text=self._text.sample)
        call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    @override
    def contains(self, x: object) -> bool:
        try:
            Action.parse(x)
        except ValueError:
            return False
        return True

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Actions) and other.tools == self.tools

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @override
    def __repr__(self) -> str:
        return f"Actions({', '.join(tool['function']['name'] for tool in self.tools) or 'text'})"
