"""What the three protocols have in common: a request as messages and tools, and a reply as an action."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from agentenv.signatures import canonical, digest
from agentenv.types import Action, Message, Part, ToolCall, ToolSchema, message_reasoning, message_text

__all__ = [
    "RAW_ARGUMENTS",
    "Reply",
    "Request",
    "RequestError",
    "assistant",
    "content_of",
    "given",
    "key_of",
    "list_of",
    "mapping_of",
    "name_answers",
    "tools_key",
    "whole_number",
    "word",
]

RAW_ARGUMENTS = "__raw__"
"""Holds the text of arguments that were no JSON object, where a protocol has no place for text."""


class RequestError(Exception):
    """What a program asked cannot be done; it is told so in its own protocol.

    Args:
        message: names the argument, the rule and the value.
        status: of the HTTP answer.
        code: a word for programs.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model, whichever protocol it came in.

    Attributes:
        messages: the conversation, in OpenAI's chat format.
        tools: in OpenAI's chat format.
        max_tokens: most tokens that the answer may have.
        stream: whether the answer is wanted as server-sent events.
        model: the name that the program gave, which is given back to it.
        ignored: arguments that were given and have no effect, such as `temperature`.
        options: what only the protocol itself reads.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...] = ()
    max_tokens: int | None = None
    stream: bool = False
    model: str = ""
    ignored: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.

    Attributes:
        request: what was asked.
        action: what the agent did.
        id: names the answer, without a prefix.
        created: seconds since 1970.
    """

    request: Request
    action: Action
    id: str
    created: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens that the agent read; 0 where they are not counted."""
        usage = self.action.usage
        return len(self.action.prompt_token_ids or ()) or (usage.prompt_tokens if usage else 0)

    @property
    def completion_tokens(self) -> int:
        """Tokens that the agent sampled; 0 where they are not counted."""
        usage = self.action.usage
        return len(self.action.token_ids or ()) or (usage.completion_tokens if usage else 0)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that came from a cache."""
        return self.action.usage.cached_tokens if self.action.usage else 0


# ---------------------------------------------------------------------- reading


def mapping_of(value: object, name: str) -> Mapping[str, Any]:
    """Returns a JSON object.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, Mapping):
        msg = f"{name} must be an object, got {value!r:.200}"
        raise RequestError(msg)
    return cast("Mapping[str, Any]", value)


def list_of(value: object, name: str) -> Sequence[Any]:
    """Returns a JSON array; an empty one for null.

    Raises:
        RequestError: it is none.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        msg = f"{name} must be an array, got {value!r:.200}"
        raise RequestError(msg)
    return cast("list[Any]", value)


def word(entry: Mapping[str, Any], name: str, default: str = "") -> str:
    """Returns a word such as a role or a type; what is no text, as it looks, so that it is none that is known."""
    value = entry.get(name)
    return default if value is None else value if isinstance(value, str) else repr(value)


def whole_number(value: object, name: str) -> int | None:
    """Returns a number of at least 1, or `None` for null.

    Raises:
        RequestError: it is none.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{name} must be an integer of at least 1, got {value!r}"
        raise RequestError(msg)
    return value


def content_of(value: object, name: str, joint: str = "") -> str | list[Part]:
    """Returns content as text, or as parts where there is an image among them.

    Args:
        value: text, parts in OpenAI's format, or null.
        name: of the argument, for messages.
        joint: what stands between two parts of text.

    Raises:
        RequestError: a part is neither text nor an image by data URL.
    """
    if value is None or isinstance(value, str):
        return value or ""
    parts = [dict(mapping_of(part, f"{name}[{i}]")) for i, part in enumerate(list_of(value, name))]
    try:
        texts = [message_text([part]) for part in parts]
    except ValueError as error:
        msg = f"{name}: {error}"
        raise RequestError(msg) from None
    if any(part.get("type") == "image_url" for part in parts):
        pairs = zip(parts, texts, strict=True)
        return [part if part["type"] == "image_url" else {"type": "text", "text": text} for part, text in pairs]
    return joint.join(texts)


def assistant(content: object, calls: Iterable[ToolCall], reasoning: str = "") -> Message:
    """Returns an assistant message."""
    message: Message = {"role": "assistant", "content": cast("str", content)}
    if reasoning:
        message["reasoning"] = reasoning
    if listed := [call.to_dict() for call in calls]:
        message["tool_calls"] = listed
    return message


def name_answers(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Returns the messages, tools' answers with the name of the tool that was called: chat templates ask for it."""
    names: dict[str, str] = {}
    named: list[Message] = []
    for message in messages:
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
        if message["role"] == "tool" and "name" not in message and message.get("tool_call_id") in names:
            named.append(cast("Message", {**message, "name": names[message.get("tool_call_id", "")]}))
        else:
            named.append(message)
    return tuple(named)


def given(body: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Returns those of the names whose argument is there and not null."""
    return tuple(name for name in names if body.get(name) is not None)


# ---------------------------------------------------------------------- comparing


def key_of(message: Mapping[str, Any], varying: re.Pattern[str] | None = None) -> str:
    """Returns what makes a message the same message, however a program wrote it down again.

    Reasoning, ids of calls, the spelling of arguments, space around the text, and what `varying` finds do not count.
    """
    parts: Any = message.get("content")
    images = (
        [part.get("image_url") for part in parts if part.get("type") == "image_url"] if isinstance(parts, list) else []
    )
    calls = [ToolCall.parse(call) for call in message.get("tool_calls", ())]
    made = [[call.name, canonical(call.arguments)] for call in calls]
    text = message_text(message) if varying is None else varying.sub("", message_text(message))
    return digest([message["role"], text.strip(), images, made])


def tools_key(tools: Sequence[ToolSchema]) -> str:
    """Returns a digest of the tools that a request offers; empty where there are none."""
    return digest(json.dumps(list(tools), sort_keys=True))[:16] if tools else ""


def reasoning_of(message: Mapping[str, Any], name: str) -> str:
    """Returns the reasoning of an assistant message.

    Raises:
        RequestError: a part of its content is none that is known.
    """
    try:
        return message_reasoning(message)
    except ValueError as error:
        msg = f"{name}: {error}"
        raise RequestError(msg) from None
