"""Anthropic's messages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from agentenv.types import Message, Part, ToolCall, ToolSchema

from .openai_chat import Event, dump
from .requests import (
    RAW_ARGUMENTS,
    Reply,
    Request,
    RequestError,
    assistant,
    content_of,
    given,
    list_of,
    mapping_of,
    name_answers,
    whole_number,
    word,
)
from .tool_forms import function_tool

__all__ = ["error", "events", "read", "write"]

_IGNORED = (
    "temperature",
    "top_p",
    "top_k",
    "metadata",
    "service_tier",
    "thinking",
    "context_management",
    "container",
    "output_config",
)
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    503: "overloaded_error",
}


def read(body: Mapping[str, Any]) -> Request:
    """Reads a request.

    Raises:
        RequestError: an argument is wrong, or asks for what an agent cannot do.
    """
    if body.get("stop_sequences"):
        msg = (
            "stop_sequences must be empty: what was sampled is recorded as it is, and never cut; got "
            f"{body['stop_sequences']!r:.100}"
        )
        raise RequestError(msg)
    raw = list_of(body.get("messages"), "messages")
    if not raw:
        msg = "messages must hold at least one message, got none"
        raise RequestError(msg)
    messages: list[Message] = []
    if system := _text(body.get("system"), "system"):
        messages.append({"role": "system", "content": system})
    for i, entry in enumerate(raw):
        messages += _messages(mapping_of(entry, f"messages[{i}]"), f"messages[{i}]")
    tools = tuple(
        _tool(mapping_of(entry, f"tools[{i}]"), i) for i, entry in enumerate(list_of(body.get("tools"), "tools"))
    )
    choice = word(mapping_of(body.get("tool_choice") or {"type": "auto"}, "tool_choice"), "type")
    return Request(
        messages=name_answers(messages),
        tools=() if choice == "none" else tools,
        max_tokens=whole_number(body.get("max_tokens"), "max_tokens"),
        stream=bool(body.get("stream")),
        model=str(body.get("model", "")),
        ignored=given(body, _IGNORED) + (() if choice in {"auto", "none"} else ("tool_choice",)),
    )


def _text(value: object, name: str) -> str:
    """Returns text, or the text of blocks, one below the other."""
    content = content_of(value, name, "\n")
    if not isinstance(content, str):
        msg = f"{name} must be text, got an image"
        raise RequestError(msg)
    return content


def _messages(entry: Mapping[str, Any], name: str) -> list[Message]:
    role, content = word(entry, "role"), entry.get("content")
    if role not in {"user", "assistant", "system"}:
        msg = f"{name}.role must be user, assistant or system, got {role!r}"
        raise RequestError(msg)
    where = f"{name}.content"
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list_of(content, where)
    blocks = [mapping_of(block, f"{where}[{i}]") for i, block in enumerate(blocks)]
    return [_assistant(blocks, where)] if role == "assistant" else _user(str(role), blocks, where)


def _assistant(blocks: Sequence[Mapping[str, Any]], name: str) -> Message:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for i, block in enumerate(blocks):
        kind = word(block, "type")
        if kind == "text":
            texts.append(str(block.get("text", "")))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking", "")))
        elif kind == "tool_use":
            arguments = dict(mapping_of(block.get("input") or {}, f"{name}[{i}].input"))
            raw = arguments.get(RAW_ARGUMENTS)
            made = {"name": block.get("name"), "id": block.get("id"), "arguments": raw or arguments}
            try:
                calls.append(ToolCall.parse(made))
            except ValueError as problem:
                msg = f"{name}[{i}]: {problem}"
                raise RequestError(msg) from None
        elif kind != "redacted_thinking":
            _refuse(kind, f"{name}[{i}]", "text, thinking or tool_use")
    return assistant("\n".join(texts), calls, "\n".join(filter(None, thoughts)))


def _user(role: str, blocks: Sequence[Mapping[str, Any]], name: str) -> list[Message]:
    """Returns the tools' answers, and then what the user says."""
    answers: list[Message] = []
    said: list[Part] = []
    for i, block in enumerate(blocks):
        kind = word(block, "type")
        if kind in {"text", "image"}:
            said.append(_part(block, f"{name}[{i}]"))
        elif kind == "tool_result":
            inner = block.get("content")
            parts = inner if inner is None or isinstance(inner, str) else list_of(inner, f"{name}[{i}].content")
            listed = parts if parts is None or isinstance(parts, str) else [_part(p, f"{name}[{i}]") for p in parts]
            content = content_of(listed, f"{name}[{i}].content", "\n")
            answers.append({"role": "tool", "content": content, "tool_call_id": str(block.get("tool_use_id") or "")})
        else:
            _refuse(kind, f"{name}[{i}]", "text, image or tool_result")
    if said or not answers:
        answers.append({"role": role, "content": content_of(said, name, "\n")})
    return answers


def _part(value: object, name: str) -> Part:
    block = mapping_of(value, name)
    if word(block, "type") == "text":
        return {"type": "text", "text": str(block.get("text", ""))}
    source = mapping_of(block.get("source") or {}, f"{name}.source")
    if word(block, "type") != "image" or word(source, "type") != "base64":
        _refuse(word(block, "type"), name, "text, or an image in base64")
    url = f"data:{source.get('media_type')};base64,{source.get('data')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _refuse(kind: object, name: str, choices: str) -> None:
    msg = f"{name}.type must be {choices}, got {kind!r}"
    raise RequestError(msg)


def _tool(entry: Mapping[str, Any], number: int) -> ToolSchema:
    if word(entry, "type") not in {"", "custom"}:
        msg = f"tools[{number}].type must be 'custom', got {entry['type']!r}: there are no built-in tools here"
        raise RequestError(msg)
    return function_tool({**entry, "parameters": entry.get("input_schema")}, f"tools[{number}]")


def write(reply: Reply) -> dict[str, Any]:
    """Returns the answer as one object."""
    blocks = [block for block, _ in _blocks(reply)]
    return _head(reply) | {"content": blocks, "stop_reason": _finish(reply), "usage": _usage(reply)}


def events(reply: Reply) -> Iterator[Event]:
    """Yields the answer as server-sent events."""
    opening = _head(reply) | {"usage": _usage(reply) | {"output_tokens": 0}}
    yield _event("message_start", message=opening)
    for i, (block, deltas) in enumerate(_blocks(reply)):
        empty = {"text": "", "thinking": "", "input": cast("Any", {})}
        begun = {name: empty.get(name, value) for name, value in block.items()}
        yield _event("content_block_start", index=i, content_block=begun)
        for delta in deltas:
            yield _event("content_block_delta", index=i, delta=delta)
        yield _event("content_block_stop", index=i)
    ending = {"stop_reason": _finish(reply), "stop_sequence": None}
    yield _event("message_delta", delta=ending, usage=_usage(reply))
    yield _event("message_stop")


def error(problem: RequestError) -> dict[str, Any]:
    """Returns an error in this protocol's shape."""
    kind = _ERRORS.get(problem.status, "invalid_request_error" if problem.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": problem.message}}


def error_events(problem: RequestError) -> Iterator[Event]:
    """Yields an error that came after the stream had begun."""
    yield "error", error(problem)


def _event(name: str, **fields: Any) -> Event:
    return name, {"type": name, **fields}


def _blocks(reply: Reply) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yields the blocks of the answer, each with the deltas that it is streamed as."""
    action = reply.action
    if action.reasoning:
        thought = {"type": "thinking", "thinking": action.reasoning, "signature": ""}
        signed = {"type": "signature_delta", "signature": ""}
        yield thought, [{"type": "thinking_delta", "thinking": action.reasoning}, signed]
    if action.content or not action.tool_calls:
        yield {"type": "text", "text": action.content}, [{"type": "text_delta", "text": action.content}]
    for call in action.tool_calls:
        arguments = call.arguments if isinstance(call.arguments, dict) else {RAW_ARGUMENTS: call.arguments}
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
        yield block, [{"type": "input_json_delta", "partial_json": dump(arguments)}]


def _head(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _finish(reply: Reply) -> str:
    if reply.action.finish_reason == "length":
        return "max_tokens"
    return "tool_use" if reply.action.tool_calls else "end_turn"


def _usage(reply: Reply) -> dict[str, int]:
    read = reply.prompt_tokens - reply.cached_tokens
    return {
        "input_tokens": read,
        "cache_read_input_tokens": reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": reply.completion_tokens,
    }
