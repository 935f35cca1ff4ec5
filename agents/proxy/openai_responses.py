"""OpenAI's responses."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentenv.types import Message, Part, ToolCall

from .openai_chat import Event, error
from .requests import (
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
from .tool_forms import ToolForm, custom_call, declared, flat_name, text_of

__all__ = ["error", "error_events", "events", "read", "write"]

_IGNORED = (
    "temperature",
    "top_p",
    "top_logprobs",
    "parallel_tool_calls",
    "store",
    "metadata",
    "service_tier",
    "reasoning",
    "include",
    "truncation",
    "user",
    "prompt_cache_key",
    "safety_identifier",
    "max_tool_calls",
)
_REFUSED = ("background", "conversation", "prompt")


def read(body: Mapping[str, Any], earlier: Mapping[str, Sequence[Message]] | None = None) -> Request:
    """Reads a request.

    Args:
        body: what was sent.
        earlier: the conversations that `previous_response_id` may name.

    Raises:
        RequestError: an argument is wrong, or asks for what an agent cannot do.
    """
    _refuse(body)
    messages: list[Message] = []
    if isinstance(body.get("instructions"), str) and body["instructions"]:
        messages.append({"role": "system", "content": body["instructions"]})
    if (before := body.get("previous_response_id")) is not None:
        if earlier is None or before not in earlier:
            msg = f"previous_response_id must name a response of this session, got {before!r}"
            raise RequestError(msg, status=404, code="not_found")
        messages += earlier[before]
    messages += _items(body.get("input"))
    if not any(message["role"] != "system" for message in messages):
        msg = "input must hold at least one message, got none"
        raise RequestError(msg)
    tools, forms = declared(body.get("tools"))
    choice = word(body, "tool_choice", "auto")
    return Request(
        messages=name_answers(messages),
        tools=() if choice == "none" else tools,
        max_tokens=whole_number(body.get("max_output_tokens"), "max_output_tokens"),
        stream=bool(body.get("stream")),
        model=str(body.get("model", "")),
        ignored=given(body, _IGNORED) + (() if choice in {"auto", "none"} else ("tool_choice",)),
        options={
            "instructions": body.get("instructions"),
            "previous": before,
            "forms": forms,
            "tools": body.get("tools") or [],
        },
    )


def _refuse(body: Mapping[str, Any]) -> None:
    form = mapping_of(body.get("text") or {}, "text").get("format") or {"type": "text"}
    if mapping_of(form, "text.format").get("type") != "text":
        msg = f"text.format must be text: sampling is not constrained; check the answer instead; got {form!r:.100}"
        raise RequestError(msg)
    for name in _REFUSED:
        if body.get(name):
            msg = f"{name} must be left out: there is no such thing here; got {body[name]!r:.100}"
            raise RequestError(msg)


def _items(value: object) -> list[Message]:
    """Reads the input. What an assistant thought, said and called in a row is one message."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    messages: list[Message] = []
    turn = _Turn()
    for i, entry in enumerate(list_of(value, "input")):
        item = mapping_of(entry, f"input[{i}]")
        if not turn.takes(item, f"input[{i}]"):
            messages += turn.message()
            turn = _Turn()
            messages.append(_message(item, f"input[{i}]"))
    return messages + turn.message()


class _Turn:
    """Items that are parts of one assistant message."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[ToolCall] = []
        self.used = False

    def takes(self, item: Mapping[str, Any], name: str) -> bool:
        """Takes an item, where it is the assistant's."""
        kind = word(item, "type", "message")
        if kind == "reasoning":
            for part in (*list_of(item.get("content"), name), *list_of(item.get("summary"), name)):
                self.thoughts.append(str(mapping_of(part, name).get("text", "")))
        elif kind in {"function_call", "custom_tool_call"}:
            self.calls.append(_call(item, name, custom=kind == "custom_tool_call"))
        elif kind == "message" and word(item, "role") == "assistant":
            self.texts.append(str(content_of(_parts(item.get("content"), name), name)))
        else:
            return False
        self.used = True
        return True

    def message(self) -> list[Message]:
        """The message, where there is one."""
        if not self.used:
            return []
        return [assistant("\n".join(filter(None, self.texts)), self.calls, "\n".join(filter(None, self.thoughts)))]


def _call(item: Mapping[str, Any], name: str, *, custom: bool) -> ToolCall:
    flat = flat_name(item.get("namespace"), item["name"]) if isinstance(item.get("name"), str) else None
    call = {"name": flat, "arguments": item.get("arguments"), "id": item.get("call_id")}
    try:
        return ToolCall.parse(custom_call(item, flat, item.get("call_id")) if custom else call)
    except ValueError as problem:
        msg = f"{name}: {problem}"
        raise RequestError(msg) from None


def _message(item: Mapping[str, Any], name: str) -> Message:
    kind, role = word(item, "type", "message"), word(item, "role")
    if kind in {"function_call_output", "custom_tool_call_output"}:
        output = content_of(_parts(item.get("output"), f"{name}.output"), f"{name}.output")
        return {"role": "tool", "content": output, "tool_call_id": str(item.get("call_id") or "")}
    if kind != "message":
        msg = (
            f"{name}.type must be message, reasoning, or the call or output of a function or custom tool, got {kind!r}"
        )
        raise RequestError(msg)
    if role not in {"user", "system", "developer"}:
        msg = f"{name}.role must be user, assistant, system or developer, got {role!r}"
        raise RequestError(msg)
    content = content_of(_parts(item.get("content"), f"{name}.content"), f"{name}.content")
    return {"role": "user" if role == "user" else "system", "content": content}


def _parts(value: object, name: str) -> object:
    if value is None or isinstance(value, str):
        return value
    return [_part(mapping_of(part, name)) for part in list_of(value, name)]


def _part(part: Mapping[str, Any]) -> Part:
    if word(part, "type") == "input_image" and part.get("image_url"):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    return dict(part)


def write(reply: Reply) -> dict[str, Any]:
    """Returns the answer as one object."""
    cut = reply.action.finish_reason == "length"
    return _head(reply, "incomplete" if cut else "completed") | {
        "output": [item for item, _ in _output(reply)],
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "usage": {
            "input_tokens": reply.prompt_tokens,
            "input_tokens_details": {"cached_tokens": reply.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": reply.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


def events(reply: Reply) -> Iterator[Event]:
    """Yields the answer as server-sent events."""
    number = 0

    def event(kind: str, **fields: Any) -> Event:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number - 1, **fields}

    begun = _head(reply, "in_progress")
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for i, (item, parts) in enumerate(_output(reply)):
        field = "content" if parts else "input" if item["type"] == "custom_tool_call" else "arguments"
        opening = item | {"status": "in_progress", field: [] if parts else ""}
        yield event("response.output_item.added", output_index=i, item=opening)
        where = {"item_id": item["id"], "output_index": i}
        for number_of_part, part in enumerate(parts):
            place = where | {"content_index": number_of_part}
            kind = part["type"]
            yield event("response.content_part.added", **place, part=part | {"text": ""})
            extra: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
            yield event(f"response.{kind}.delta", **place, delta=part["text"], **extra)
            yield event(f"response.{kind}.done", **place, text=part["text"], **extra)
            yield event("response.content_part.done", **place, part=part)
        if field == "input":
            yield event("response.custom_tool_call_input.delta", **where, delta=item["input"])
            yield event("response.custom_tool_call_input.done", **where, input=item["input"])
        elif field == "arguments":
            yield event("response.function_call_arguments.delta", **where, delta=item["arguments"])
            done = where | {"name": item["name"], "arguments": item["arguments"]}
            yield event("response.function_call_arguments.done", **done)
        yield event("response.output_item.done", output_index=i, item=item)
    ended = write(reply)
    yield event(f"response.{ended['status']}", response=ended)


def error_events(problem: RequestError) -> Iterator[Event]:
    """Yields an error that came after the stream had begun."""
    fields = {
        "code": problem.code,
        "message": problem.message,
        "param": None,
        **error(problem),
    }  # clients raise on `error`
    yield "error", {"type": "error", "sequence_number": 0, **fields}


def _output(reply: Reply) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yields the items of the answer, each with the parts of its content; a call has none."""
    action = reply.action
    if action.reasoning:
        parts = [{"type": "reasoning_text", "text": action.reasoning}]
        item = {"type": "reasoning", "id": f"rs_{reply.id}", "summary": [], "content": parts, "status": "completed"}
        yield item, parts
    if action.content or not action.tool_calls:
        parts = [{"type": "output_text", "text": action.content, "annotations": [], "logprobs": []}]
        item = {
            "type": "message",
            "id": f"msg_{reply.id}",
            "role": "assistant",
            "content": parts,
            "status": "completed",
        }
        yield item, parts
    for i, call in enumerate(action.tool_calls):
        yield _written(call, reply.request.options["forms"].get(call.name), f"{reply.id}_{i}"), []


def _written(call: ToolCall, form: ToolForm | None, number: str) -> dict[str, Any]:
    """A call as the program knows the tool."""
    known = form or ToolForm(call.name)
    item: dict[str, Any] = {"call_id": call.id, "name": known.name, "status": "completed"}
    if known.namespace:
        item["namespace"] = known.namespace
    if (text := text_of(call, form)) is not None:
        return {"type": "custom_tool_call", "id": f"ctc_{number}", **item, "input": text}
    arguments = call.to_dict()["function"]["arguments"]
    return {"type": "function_call", "id": f"fc_{number}", **item, "arguments": arguments}


def _head(reply: Reply, status: str) -> dict[str, Any]:
    request = reply.request
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "model": request.model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": request.options.get("instructions"),
        "previous_response_id": request.options.get("previous"),
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": request.options["tools"],
        "temperature": None,
        "top_p": None,
    }
