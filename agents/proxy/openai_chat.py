"""OpenAI's chat completions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from agentenv.types import Message, ToolCall

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
    reasoning_of,
    whole_number,
    word,
)
from .tool_forms import custom_call, declared, text_of

__all__ = ["error", "events", "read", "write"]

Event = tuple[str | None, Any]

_IGNORED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "parallel_tool_calls",
    "store",
    "metadata",
    "service_tier",
    "reasoning_effort",
    "verbosity",
    "prediction",
    "user",
)
"""What would change the distribution that is sampled from, which belongs to the agent, or has no meaning here."""


def read(body: Mapping[str, Any]) -> Request:
    """Reads a request.

    Raises:
        RequestError: an argument is wrong, or asks for what an agent cannot do.
    """
    _refuse(body)
    raw = list_of(body.get("messages"), "messages")
    if not raw:
        msg = "messages must hold at least one message, got none"
        raise RequestError(msg)
    messages = [_message(mapping_of(entry, f"messages[{i}]"), f"messages[{i}]") for i, entry in enumerate(raw)]
    tools, forms = declared(body.get("tools"))
    choice = word(body, "tool_choice", "auto")
    limits = [whole_number(body.get(name), name) for name in ("max_tokens", "max_completion_tokens")]
    options = {name: body[name] for name in ("logprobs", "return_token_ids", "stream_options") if body.get(name)}
    return Request(
        messages=name_answers(messages),
        tools=() if choice == "none" else tools,
        max_tokens=min([limit for limit in limits if limit is not None], default=None),
        stream=bool(body.get("stream")),
        model=str(body.get("model", "")),
        ignored=given(body, _IGNORED) + (() if choice in {"auto", "none"} else ("tool_choice",)),
        options=options | {"forms": forms},
    )


def _refuse(body: Mapping[str, Any]) -> None:
    kind = mapping_of(body.get("response_format") or {"type": "text"}, "response_format").get("type")
    for name, wrong, rule in (
        ("n", body.get("n") not in {None, 1}, "must be 1: ask again for another answer"),
        ("stop", bool(body.get("stop")), "must be empty: what was sampled is recorded as it is, and never cut"),
        ("response_format", kind != "text", "must be text: sampling is not constrained; check the answer instead"),
        ("functions", bool(body.get("functions")), "is the old form: use tools"),
        ("audio", bool(body.get("audio")), "must be left out: answers are text"),
        ("top_logprobs", bool(body.get("top_logprobs")), "must be 0: only the sampled token's is known"),
    ):
        if wrong:
            msg = f"{name} {rule}; got {body.get(name)!r:.100}"
            raise RequestError(msg)


def _message(entry: Mapping[str, Any], name: str) -> Message:
    role = word(entry, "role")
    content = entry.get("content")
    if role in {"system", "developer"}:
        return {"role": "system", "content": content_of(content, f"{name}.content")}
    if role == "user":
        return {"role": "user", "content": content_of(content, f"{name}.content")}
    if role == "tool":
        answer: Message = {"role": "tool", "content": content_of(content, f"{name}.content")}
        answer["tool_call_id"] = str(entry.get("tool_call_id") or "")
        return answer
    if role == "assistant":
        try:
            calls = [_call(call) for call in list_of(entry.get("tool_calls"), f"{name}.tool_calls")]
        except ValueError as problem:
            msg = f"{name}.tool_calls: {problem}"
            raise RequestError(msg) from None
        reasoning = reasoning_of(entry, name)
        return assistant(content_of(content or entry.get("refusal"), f"{name}.content"), calls, reasoning)
    msg = f"{name}.role must be system, developer, user, assistant or tool, got {role!r}"
    raise RequestError(msg)


def _call(value: object) -> ToolCall:
    entry: Mapping[str, Any] = cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
    if word(entry, "type") == "custom":
        inner = mapping_of(entry.get("custom"), "custom")
        return ToolCall.parse(custom_call(inner, inner.get("name"), entry.get("id")))
    return ToolCall.parse(value)


def write(reply: Reply) -> dict[str, Any]:
    """Returns the answer as one object."""
    action = reply.action
    message: dict[str, Any] = {"role": "assistant", "content": action.content or None}
    if action.reasoning:
        message |= {"reasoning": action.reasoning, "reasoning_content": action.reasoning}
    if action.tool_calls:
        message["tool_calls"] = [_written(reply, call) for call in action.tool_calls]
    elif not action.content:
        message["content"] = ""
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": _finish(reply),
        "logprobs": _logprobs(reply),
    }
    answer = _head(reply, "chat.completion") | {"choices": [choice], "usage": _usage(reply)}
    if reply.request.options.get("return_token_ids"):
        choice["token_ids"] = None if action.token_ids is None else list(action.token_ids)
        answer["prompt_token_ids"] = None if action.prompt_token_ids is None else list(action.prompt_token_ids)
    return answer


def events(reply: Reply) -> Iterator[Event]:
    """Yields the answer as server-sent events."""
    action, head = reply.action, _head(reply, "chat.completion.chunk")

    def chunk(delta: Mapping[str, Any], finish: str | None = None, logprobs: Any = None) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return None, head | {"choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    if action.reasoning:
        yield chunk({"reasoning": action.reasoning, "reasoning_content": action.reasoning})
    if action.content:
        yield chunk({"content": action.content}, logprobs=_logprobs(reply))
    for i, call in enumerate(action.tool_calls):
        whole = _written(reply, call)
        kind, field = ("custom", "input") if whole["type"] == "custom" else ("function", "arguments")
        yield chunk({"tool_calls": [{"index": i, **whole, kind: whole[kind] | {field: ""}}]})
        yield chunk({"tool_calls": [{"index": i, kind: {field: whole[kind][field]}}]})
    last = chunk({}, _finish(reply))
    if reply.request.options.get("return_token_ids"):
        last[1]["choices"][0]["token_ids"] = None if action.token_ids is None else list(action.token_ids)
        last[1]["prompt_token_ids"] = None if action.prompt_token_ids is None else list(action.prompt_token_ids)
    yield last
    if (reply.request.options.get("stream_options") or {}).get("include_usage"):
        yield None, head | {"choices": [], "usage": _usage(reply)}
    yield None, "[DONE]"


def error(problem: RequestError) -> dict[str, Any]:
    """Returns an error in this protocol's shape."""
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    return {"error": {"message": problem.message, "type": kind, "param": None, "code": problem.code}}


def error_events(problem: RequestError) -> Iterator[Event]:
    """Yields an error that came after the stream had begun."""
    yield None, error(problem)


def _written(reply: Reply, call: ToolCall) -> dict[str, Any]:
    """A call as the program knows the tool."""
    text = text_of(call, reply.request.options["forms"].get(call.name))
    if text is None:
        return call.to_dict()
    return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": text}}


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{reply.id}", "object": kind, "created": reply.created, "model": reply.request.model}


def _finish(reply: Reply) -> str:
    if reply.action.finish_reason == "length":
        return "length"
    return "tool_calls" if reply.action.tool_calls else "stop"


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
    }


def _logprobs(reply: Reply) -> dict[str, Any] | None:
    ids, values = reply.action.token_ids, reply.action.logprobs
    if not reply.request.options.get("logprobs") or ids is None or values is None:
        return None
    pairs = zip(ids, values, strict=True)
    content = [{"token": f"token_id:{i}", "logprob": v, "bytes": None, "top_logprobs": []} for i, v in pairs]
    return {"content": content, "refusal": None}


def dump(value: Any) -> str:
    """Returns JSON text."""
    return json.dumps(value, ensure_ascii=False)
