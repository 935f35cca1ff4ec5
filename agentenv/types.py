"""Messages, tool calls and actions: the words that agents and environments exchange.

The formats are OpenAI's chat formats. `Action` is one assistant message together with the exact token ids and
log-probabilities that produced it, when they are known.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired, Required, TypedDict, cast

from agentenv.errors import TreeError

__all__ = [
    "Action",
    "Message",
    "Observation",
    "ToolCall",
    "ToolSchema",
    "Usage",
    "parse_tool_calls",
    "to_observation",
]


class Message(TypedDict, total=False):
    """One chat message in OpenAI's format."""

    role: Required[str]
    content: Required[str]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


Observation = tuple[Message, ...]
"""The messages that are new since the last action."""

ToolSchema = dict[str, Any]
"""A tool in OpenAI's format: `{"type": "function", "function": {"name", "description", "parameters"}}`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        name: the tool's name.
        arguments: the arguments by name, or the raw text where it was not a JSON object.
        id: ties the tool's answer to this call.
    """

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict[str, Any])
    id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the call in OpenAI's format, arguments encoded as JSON text."""
        raw = self.arguments
        text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)
        function = {"name": self.name, "arguments": text}
        return {"id": self.id, "type": "function", "function": function}

    @classmethod
    def parse(cls, value: object) -> "ToolCall":
        """Reads one entry of `tool_calls`.

        Args:
            value: `{"function": {"name", "arguments"}, "id"}` as OpenAI writes it, or the inner object alone. The
                arguments may be a mapping or JSON text.

        Raises:
            ValueError: the entry has no name.
        """
        outer = _mapping(value, "a tool call")
        inner = _mapping(outer.get("function", outer), "a tool call's function")
        name = inner.get("name")
        if not isinstance(name, str) or not name:
            msg = f"a tool call needs a 'name' (text), got {dict(inner)!r}"
            raise ValueError(msg)
        arguments = inner.get("arguments", inner.get("parameters", {}))
        return cls(name, _arguments(arguments), str(outer.get("id") or ""))


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"{what} must be a mapping, got {value!r}"
        raise ValueError(msg)
    return cast("Mapping[str, Any]", value)


def _arguments(value: object) -> dict[str, Any] | str:
    if isinstance(value, str):
        try:
            decoded: object = _loads(value) if value.strip() not in {"", "null"} else {}
        except (ValueError, RecursionError):
            return value
        return cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else value
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    return {} if value is None else repr(value)


_MAX_DEPTH = 64


def _loads(text: str) -> object:
    """Decodes JSON that a model wrote. Raises ValueError or RecursionError where nothing downstream could keep it."""
    value: object = json.loads(text, parse_float=_finite, parse_constant=_finite)
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, dict | list)]
        if not level:
            return value
    msg = f"JSON must be nested at most {_MAX_DEPTH} deep"
    raise ValueError(msg)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        msg = f"{text} is not a JSON number"
        raise ValueError(msg)
    return value


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one action used, as a server counts them.

    Attributes:
        prompt_tokens: tokens of the prompt, those from a cache included.
        cached_tokens: tokens of the prompt whose keys and values came from a cache.
        completion_tokens: sampled tokens, those of the reasoning included.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """One assistant message, and how a model produced it.

    Attributes:
        content: the text of the message, without the tool calls.
        tool_calls: the calls, in order.
        token_ids: `[L]` the sampled token ids, the end-of-message token included; `None` when unknown.
        logprobs: `[L]` natural logarithm of the probability with which each was sampled; `None` when unknown.
        prompt_token_ids: the token ids the model saw before the first sampled one; `None` when unknown.
        finish_reason: `"stop"`, `"length"` (the token limit cut it), or `""` when unknown.
        reasoning: what the model thought before it answered; kept apart from `content`, never searched for calls.
        usage: tokens used, where they are counted.
        weight_version: which weights it was sampled from: how often the agent had been told that they changed.
    """

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    finish_reason: str = ""
    reasoning: str = ""
    usage: Usage | None = None
    weight_version: int | None = None

    def __post_init__(self) -> None:
        if self.logprobs is not None and len(self.logprobs) != len(self.token_ids or ()):
            msg = (
                f"Action.logprobs must have one entry per token: got {len(self.logprobs)} for "
                f"{len(self.token_ids or ())} token_ids"
            )
            raise TreeError(msg)

    @classmethod
    def parse(cls, value: object) -> "Action":
        """Reads an action from what a caller passed to `step`.

        Args:
            value: an `Action`; a `str` (tool calls written as `<tool_call>{...}</tool_call>` are recognized); or an
                assistant message in OpenAI's format.

        Raises:
            ValueError: the value is none of these.
        """
        if isinstance(value, Action):
            return value
        if isinstance(value, str):
            content, calls = parse_tool_calls(value)
            return cls(content, calls)
        if not isinstance(value, Mapping):
            msg = f"action must be a str, an assistant message (dict) or an Action, got {value!r}"
            raise ValueError(msg)
        message = cast("Mapping[str, Any]", value)
        role, content = message.get("role", "assistant"), message.get("content") or ""
        if role != "assistant":
            msg = f"action['role'] must be 'assistant', got {role!r}"
            raise ValueError(msg)
        if not isinstance(content, str):
            msg = f"action['content'] must be text, got {content!r}"
            raise ValueError(msg)
        entries: object = message.get("tool_calls") or ()
        if not isinstance(entries, list | tuple):
            msg = f"action['tool_calls'] must be a list, got {entries!r}"
            raise ValueError(msg)
        calls = tuple(ToolCall.parse(call) for call in cast("list[object]", entries))
        return cls(content, calls) if calls else cls(*parse_tool_calls(content))

    def to_message(self) -> Message:
        """Returns the assistant message in OpenAI's format."""
        message: Message = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        return message

    def without_prompt(self) -> "Action":
        """Returns the same action without `prompt_token_ids` (a tree stores those once per node)."""
        return self if self.prompt_token_ids is None else replace(self, prompt_token_ids=None)


_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def parse_tool_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Splits model output into plain text and tool calls written in the Hermes / Qwen form.

    A call is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`; the closing tag may be missing at the end. A
    block that is not valid JSON stays in the text, so that an environment can show the agent what it wrote.

    Returns:
        The remaining text, stripped, and the calls in order. Ids are `call_0`, `call_1`, ...
    """
    if _OPEN not in text:
        return text, ()
    head, *blocks = text.split(_OPEN)
    kept, calls = [head], list[ToolCall]()
    for block in blocks:
        body, _, tail = block.partition(_CLOSE)
        try:
            call = ToolCall.parse(_loads(body))
        except (ValueError, RecursionError):
            kept.append(_OPEN + block)
            continue
        calls.append(replace(call, id=f"call_{len(calls)}"))
        kept.append(tail)
    return "".join(kept).strip(), tuple(calls)


def to_observation(value: str | Message | Sequence[Message], *, role: str = "user") -> Observation:
    """Turns what an environment returned into messages.

    Args:
        value: text (becomes one message of `role`), one message, or several.
        role: the role of plain text.

    Raises:
        ValueError: it is none of these, or a message lacks a role or its content is not text.
    """
    if isinstance(value, str):
        return ({"role": role, "content": value},)
    messages: object = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, Sequence):
        msg = f"an observation must be text, a message or several messages, got {value!r}"
        raise ValueError(msg)
    for message in cast("Sequence[object]", messages):
        if not (
            isinstance(message, Mapping)
            and isinstance(cast("Message", message).get("role"), str)
            and isinstance(cast("Message", message).get("content"), str)
        ):
            msg = f"an observation's message needs 'role' and 'content' (text), got {message!r}"
            raise ValueError(msg)
    return tuple(cast("Message", dict(message)) for message in cast("Sequence[Message]", messages))
