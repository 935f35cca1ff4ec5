"""Messages, tool calls and actions: the words that agents and environments exchange.

The formats are OpenAI's chat formats. `Action` is one assistant message together with the exact token ids and
log-probabilities that produced it, when they are known.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any, NotRequired, Required, TypedDict, cast

from agentenv.errors import TreeError
from agentenv.tokens import TokenIds

__all__ = [
    "Action",
    "Content",
    "Found",
    "Message",
    "Observation",
    "Part",
    "ToolCall",
    "ToolSchema",
    "Usage",
    "decode_json",
    "has_image",
    "map_text",
    "message_images",
    "message_reasoning",
    "message_text",
    "parse_text",
    "scan_text",
    "to_observation",
]

Part = dict[str, Any]
"""A piece of a message in OpenAI's format: `{"type": "text", "text": ...}`, or an image,
`{"type": "image_url", "image_url": {"url": ...}}`, by data URL (`data:image/png;base64,...`) or by digest."""

Content = str | list[Part]
"""What a message says: text, or parts."""


class Message(TypedDict, total=False):
    """One chat message in OpenAI's format."""

    role: Required[str]
    content: Required[Content]
    reasoning: NotRequired[str]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


Observation = tuple[Message, ...]
"""The messages that are new since the last action."""

ToolSchema = dict[str, Any]
"""A tool in OpenAI's format: `{"type": "function", "function": {"name", "description", "parameters"}}`."""


_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_THOUGHTS = {"thinking": "thinking", "reasoning": "reasoning"}
_OF_A_MESSAGE = {"role", "content", "tool_calls", "refusal", "reasoning", "reasoning_content", "thinking"}
_IMAGES = ("data:image/", "blob:sha256-")


def message_text(value: Mapping[str, Any] | Content | None) -> str:
    """Returns the text of a message or of its content: its text parts, joined; images have none.

    Raises:
        ValueError: it is neither text nor a list of parts, or a part is none that is known.
    """
    content: object = value.get("content") if isinstance(value, Mapping) else value
    return "".join(text for kind, text in _read_parts(content) if kind in _TEXTS)


def message_reasoning(message: Mapping[str, Any]) -> str:
    """Returns what an assistant thought before it wrote the message, under whichever name its server gives it.

    The names are `reasoning`, `reasoning_content` and `thinking`, and parts of the content of type `thinking`.
    """
    for name in ("reasoning", "reasoning_content", "thinking"):
        if isinstance(text := message.get(name), str) and text:
            return text
    return "\n".join(text for kind, text in _read_parts(message.get("content")) if kind in _THOUGHTS)


def has_image(message: Mapping[str, Any]) -> bool:
    """Says whether there is an image among the parts of a message."""
    return any(kind == "image_url" for kind, _ in _read_parts(message.get("content")))


def message_images(message: Mapping[str, Any]) -> list[str]:
    """Returns the URLs of the images among the parts of a message, in order."""
    return [url for kind, url in _read_parts(message.get("content")) if kind == "image_url"]


def map_text(message: Message, change: Callable[[str], str]) -> Message:
    """Returns a message with every text of its content changed; images stay."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": change(content)}
    parts = [{**part, "text": change(part["text"])} if "text" in part else dict(part) for part in content]
    return {**message, "content": parts}


def _read_parts(content: object) -> list[tuple[str, str]]:
    """Returns kind and text of every part; the text of an image is its URL."""
    if content is None or isinstance(content, str):
        return [("text", content or "")]
    if not isinstance(content, list | tuple):
        msg = f"content must be text or a list of parts such as {{'type': 'text', 'text': ...}}, got {content!r:.200}"
        raise ValueError(msg)
    return [_read_part(part) for part in cast("Sequence[object]", content)]


def _read_part(part: object) -> tuple[str, str]:
    if isinstance(part, str):
        return "text", part
    entries = cast("Mapping[str, Any]", part if isinstance(part, Mapping) else {})
    kind = str(entries.get("type", ""))
    value: object = entries.get({**_TEXTS, **_THOUGHTS}.get(kind, kind))
    if kind in _THOUGHTS and isinstance(value, list | tuple):
        value = message_text(cast("Content", value))
    if kind == "image_url":
        value = cast("Mapping[str, Any]", value).get("url") if isinstance(value, Mapping) else value
        value = value if isinstance(value, str) and value.startswith(_IMAGES) else None
    elif kind not in _TEXTS and kind not in _THOUGHTS:
        value = None
    if not isinstance(value, str):
        msg = (
            "a part of content must be {'type': 'text', 'text': ...} or {'type': 'image_url', 'image_url': {'url': "
            f"'data:image/...'}}}}, got {part!r:.200}"
        )
        raise ValueError(msg)
    return kind, value


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
                arguments may be a mapping or JSON text, and stand beside `function` where it has none.

        Raises:
            ValueError: the entry has no name, or its arguments are nested too deep.
        """
        outer = _mapping(value, "a tool call")
        inner = {**outer, **_mapping(outer.get("function", {}), "a tool call's function")}
        name = inner.get("name")
        if not isinstance(name, str) or not name:
            msg = f"a tool call needs a 'name' (text), got {value!r}"
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
            decoded: object = _loads(value) if value.strip() else {}
            if isinstance(decoded, str):  # JSON text within JSON text
                decoded = _loads(decoded) if decoded.strip() else {}
        except (ValueError, RecursionError):
            return value
        if decoded is None:
            return {}
        return cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else value
    if not _is_shallow(value):
        msg = f"a tool call's arguments must be nested at most {_MAX_DEPTH} deep"
        raise ValueError(msg)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    return {} if value is None else repr(value)


_MAX_DEPTH = 64


def _loads(text: str) -> object:
    """Decodes a text that is one JSON value; raises as `decode_json`."""
    value, end = decode_json(text)
    if text[end:].strip():
        msg = f"nothing may follow the JSON value, got {text[end:]!r:.80}"
        raise ValueError(msg)
    return value


def decode_json(text: str, start: int = 0) -> tuple[object, int]:
    """Decodes the JSON value that begins at `start`, whatever follows it; returns it and where it ends.

    Line breaks and tabs within strings are read as they are, as models write them.

    Raises:
        ValueError, RecursionError: it is no JSON, or a value that nothing downstream could keep.
    """
    value, end = _DECODER.raw_decode(text, cast("re.Match[str]", _SPACE.match(text, start)).end())
    if not _is_shallow(value):
        msg = f"JSON must be nested at most {_MAX_DEPTH} deep"
        raise ValueError(msg)
    return value, end


def _is_shallow(value: object) -> bool:
    level: dict[int, object] = {0: value}
    for _ in range(_MAX_DEPTH):
        level = {id(part): part for whole in level.values() for part in _parts(whole) if type(part) in (dict, list)}
        if not level:
            return True
    return False


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        msg = f"{text} is not a JSON number"
        raise ValueError(msg)
    return value


_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite, strict=False)


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
        finish_reason: `"stop"`, `"length"` (the token limit cut it), `"context_length"` (the conversation left no room
            for an action: the episode is truncated after it), `"content_filter"`, or `""` when unknown.
        reasoning: what the model thought before it answered; kept apart from `content`, never searched for calls.
        usage: tokens used, where they are counted.
        weight_version: which weights it was sampled from: how often the agent had been told that they changed.
    """

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    prompt_token_ids: tuple[int, ...] | TokenIds | None = None
    finish_reason: str = ""
    reasoning: str = ""
    usage: Usage | None = None
    weight_version: int | None = None

    def __post_init__(self) -> None:
        # Samplers hand over numbers of numpy and torch, which files and comparisons would trip over much later.
        ids, logprobs, prompt = self.token_ids, self.logprobs, self.prompt_token_ids
        if ids is not None:
            object.__setattr__(self, "token_ids", tuple(map(index, ids)))
        if logprobs is not None:
            object.__setattr__(self, "logprobs", tuple(map(float, logprobs)))
        # A prompt is long: its two ends tell whether it has to be converted.
        if prompt is not None and not (
            isinstance(prompt, tuple | TokenIds) and {*map(type, (*prompt[:1], *prompt[-1:]))} <= {int}
        ):
            object.__setattr__(self, "prompt_token_ids", tuple(map(index, prompt)))
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
            value: an `Action`, whose content may still hold reasoning; a `str` (as `parse_text` reads it); or an
                assistant message in OpenAI's format, whose content may be parts, and whose reasoning may be a field of
                its own. Calls that are written in the content count where there are no others.

        Raises:
            ValueError: the value is none of these.
        """
        if isinstance(value, Action):
            return value if "think>" not in value.content else value._without_thoughts()
        if isinstance(value, str):
            return parse_text(value)
        if not isinstance(value, Mapping):
            msg = f"action must be a str, an assistant message (dict) or an Action, got {value!r}"
            raise ValueError(msg)
        message = cast("Mapping[str, Any]", value)
        if not message.keys() & _OF_A_MESSAGE:
            msg = (
                "action must be a str, an assistant message (with 'role', 'content' or 'tool_calls') or an Action, "
                f"got {value!r:.200}"
            )
            raise ValueError(msg)
        if (role := message.get("role", "assistant")) != "assistant":
            msg = f"action['role'] must be 'assistant', got {role!r}"
            raise ValueError(msg)
        entries: object = message.get("tool_calls") or ()
        if not isinstance(entries, list | tuple):
            msg = f"action['tool_calls'] must be a list, got {entries!r}"
            raise ValueError(msg)
        if has_image(message):
            msg = "action['content'] must be text or text parts, got an image"
            raise ValueError(msg)
        calls = tuple(ToolCall.parse(call) for call in cast("list[object]", entries))
        text = message_text(message) or message_text(cast("Content | None", message.get("refusal")))
        written = parse_text(text, find_calls=not calls)
        thoughts = [message_reasoning(message).strip(), written.reasoning]
        return replace(written, tool_calls=calls or written.tool_calls, reasoning="\n".join(filter(None, thoughts)))

    def _without_thoughts(self) -> "Action":
        written = parse_text(self.content, find_calls=False)
        reasoning = "\n".join(filter(None, [self.reasoning, written.reasoning]))
        return replace(self, content=written.content, reasoning=reasoning)

    def to_message(self) -> Message:
        """Returns the assistant message in OpenAI's format."""
        message: Message = {"role": "assistant", "content": self.content}
        if self.reasoning:
            message["reasoning"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        return message

    def without_prompt(self) -> "Action":
        """Returns the same action without `prompt_token_ids` (a tree stores those once per node)."""
        return self if self.prompt_token_ids is None else replace(self, prompt_token_ids=None)


def parse_text(text: str, *, find_calls: bool = True) -> Action:
    """Splits what a model wrote into reasoning, content and tool calls in the Hermes / Qwen form.

    Reasoning stands in `<think>...</think>`. Without the opening tag, which many chat templates write themselves, it is
    all that comes before `</think>`; without the closing tag, all that comes after `<think>`. Nothing in it is a call.

    A call is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`; the closing tag may be missing at the end.
    Tags within the strings of its JSON are text. A block that is not valid JSON stays in the content, so that an
    environment can show the agent what it wrote.

    Args:
        text: the message.
        find_calls: otherwise `<tool_call>` is text.

    Returns:
        An action with `content`, stripped where something was taken out of it, `reasoning`, stripped, and `tool_calls`
        with the ids `call_0`, `call_1`, ...
    """
    return scan_text(text, "<tool_call>" if find_calls else None, _read_hermes)


Found = tuple[Sequence[ToolCall], int]
"""Calls that were read, and where in the text they end."""

_MOST_BROKEN = 100  # each may cost a look at all that follows it; after them, no more calls are read


def scan_text(
    text: str,
    opening: str | None,
    read: Callable[[re.Match[str]], Found | None],
    *,
    thought: tuple[str, str] = ("<think>", "</think>"),
) -> Action:
    """Splits what a model wrote into reasoning, content and tool calls, from left to right.

    Args:
        text: the message.
        opening: pattern of what opens a call, never empty text; `None` where there are no calls.
        read: reads the calls whose opening matched; `None` says that they are broken and stay in the content.
        thought: what opens and closes reasoning; either may be missing, as in `parse_text`.
    """
    opens, closes = thought
    tags = re.compile("|".join([re.escape(opens), re.escape(closes), *([opening] if opening else [])]))
    kept, thoughts, calls = list[str](), list[str](), list[ToolCall]()
    thought_until, position, plain, broken = 0, 0, True, 0
    while (tag := tags.search(text, position)) is not None:
        kept.append(text[position : tag.start()])
        position = tag.end()
        if tag[0] == closes:
            kept, thoughts, calls, thought_until, plain = [], [], [], tag.start(), False
        elif tag[0] == opens:
            close = text.find(closes, position)
            thoughts.append(text[position : close if close >= 0 else None].strip())
            position, plain = close + len(closes) if close >= 0 else len(text), False
        elif broken < _MOST_BROKEN and (found := read(tag)) is not None:
            calls += found[0]
            position, plain = found[1], False
        else:
            kept.append(tag[0])
            broken += 1
    thoughts.insert(0, text[:thought_until].replace(opens, "").replace(closes, "").strip())
    content, reasoning = "".join([*kept, text[position:]]), "\n".join(filter(None, thoughts))
    numbered = tuple(replace(call, id=f"call_{i}") for i, call in enumerate(calls))
    return Action(content if plain else content.strip(), numbered, reasoning=reasoning)


_CALL_END = re.compile(r"\s*(?:</tool_call>|(?=<tool_call>)|\Z)")


def _read_hermes(tag: re.Match[str]) -> Found | None:
    try:
        value, end = decode_json(tag.string, tag.end())
        call = ToolCall.parse(value)
    except (ValueError, RecursionError):
        return None
    close = _CALL_END.match(tag.string, end)
    return None if close is None else ((call,), close.end())


def to_observation(value: str | Message | Sequence[Message], *, role: str = "user") -> Observation:
    """Turns what an environment returned into messages.

    Args:
        value: text (becomes one message of `role`), one message, or several.
        role: the role of plain text.

    Raises:
        ValueError: it is none of these, a message lacks a role, or its content is neither text nor parts.
    """
    if isinstance(value, str):
        return ({"role": role, "content": value},)
    messages: object = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, Sequence):
        msg = f"an observation must be text, a message or several messages, got {value!r}"
        raise ValueError(msg)
    return tuple(_observed(message) for message in cast("Sequence[object]", messages))


def _observed(value: object) -> Message:
    message = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}
    content: object = message.get("content")
    if not isinstance(message.get("role"), str) or not isinstance(content, str | list | tuple):
        msg = f"an observation's message needs 'role' and 'content' (text or parts), got {value!r:.200}"
        raise ValueError(msg)
    if not isinstance(content, str):
        try:
            kinds = _read_parts(cast("object", content))
        except ValueError as error:
            msg = f"an observation's message: {error}"
            raise ValueError(msg) from None
        whole = zip(kinds, cast("list[Part | str]", content), strict=True)
        message["content"] = [dict(p) if isinstance(p, Mapping) else {"type": k, "text": t} for (k, t), p in whole]
    return cast("Message", message)
