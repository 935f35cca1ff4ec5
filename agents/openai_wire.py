"""What goes to a server that speaks OpenAI's chat completions, and what comes back, with the quirks of both."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from agentenv.types import Action, Message, ToolCall, Usage, message_reasoning

__all__ = ["GarbledAnswerError", "read_completion", "write_messages"]

_FINISHED = {
    **dict.fromkeys(("stop", "tool_calls", "function_call", "eos", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
    "content_filter": "content_filter",
}
_THOUGHTS = ("reasoning", "reasoning_content", "thinking")


class GarbledAnswerError(ValueError):
    """A server answered with success, and with something that is no completion."""


def write_messages(messages: Sequence[Message], *, reasoning: bool = True) -> list[dict[str, Any]]:
    """Returns a conversation as servers want it.

    Every call has an id, and every answer of a tool names the call that it answers: where ids are missing, answers
    belong to the calls in order. Arguments are always the JSON text of an object, since most servers decode them again
    for their template; those that a model wrote wrongly become `{"arguments": "what it wrote"}`.

    Args:
        messages: the conversation.
        reasoning: sends what the agent thought, as `reasoning` (vLLM) and as `reasoning_content` (llama.cpp, SGLang).
    """
    written: list[dict[str, Any]] = []
    turn, waiting = 0, list[str]()
    for message in messages:
        out: dict[str, Any] = {key: value for key, value in message.items() if key not in _THOUGHTS}
        if message["role"] == "assistant":
            if reasoning and (thought := message_reasoning(message)):
                out |= {"reasoning": thought, "reasoning_content": thought}
            calls = [ToolCall.parse(call) for call in message.get("tool_calls", ())]
            calls = list(_with_ids(calls, turn))
            waiting = [call.id for call in calls]
            turn += 1
            if calls:
                out["tool_calls"] = [_written(call) for call in calls]
            else:
                out.pop("tool_calls", None)
        elif message["role"] == "tool":
            answered = str(message.get("tool_call_id") or "") or (waiting[0] if waiting else "call_0")
            waiting = [name for name in waiting if name != answered]
            out["tool_call_id"] = answered
        written.append(out)
    return written


def _with_ids(calls: Iterable[ToolCall], turn: int) -> Iterable[ToolCall]:
    seen: set[str] = set()
    for number, call in enumerate(calls):
        name = call.id if call.id and call.id not in seen else f"call_{turn}_{number}"
        seen.add(name)
        yield call if name == call.id else replace(call, id=name)


def _written(call: ToolCall) -> dict[str, Any]:
    arguments = {"arguments": call.arguments} if isinstance(call.arguments, str) else call.arguments
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": text}}


def read_completion(data: object, *, turn: int = 0, keep_logprobs: bool = True) -> Action:
    """Reads the first choice of a chat completion as an action.

    Ids of calls that are missing or come twice are made up; arguments may be a mapping. Token ids are read from vLLM's
    `token_ids` and `prompt_token_ids`, from `token_id:N` in the place of a token, or from llama.cpp's `id` of each
    entry of the log-probabilities; without ids there are no log-probabilities either.

    Args:
        data: the decoded answer.
        turn: how many actions came before in the conversation; part of the ids that are made up.
        keep_logprobs: whether the server's log-probabilities are those of the distribution that was sampled from.

    Raises:
        GarbledAnswerError: it is no completion.
    """
    completion = _mapping(data, "the answer")
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        msg = f"the answer has no choices: {json.dumps(completion, default=str)[:300]}"
        raise GarbledAnswerError(msg)
    choice = _mapping(cast("list[object]", choices)[0], "choices[0]")
    message = _mapping(choice.get("message"), "choices[0].message")
    finish = _FINISHED.get(str(choice.get("finish_reason") or ""), "")
    try:
        action = Action.parse(_assistant(message, cut=finish == "length"))
    except ValueError as error:
        msg = f"choices[0].message cannot be read: {error}"
        raise GarbledAnswerError(msg) from error
    token_ids, logprobs = _tokens(choice)
    prompt = _ids(completion.get("prompt_token_ids", choice.get("prompt_token_ids")))
    return replace(
        action,
        tool_calls=tuple(_with_ids(action.tool_calls, turn)),
        token_ids=token_ids,
        logprobs=logprobs if keep_logprobs else None,
        prompt_token_ids=prompt if token_ids is not None else None,
        finish_reason=finish,
        usage=_usage(completion),
    )


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"{what} must be a JSON object, got {value!r:.200}"
        raise GarbledAnswerError(msg)
    return cast("Mapping[str, Any]", value)


def _assistant(message: Mapping[str, Any], *, cut: bool) -> dict[str, Any]:
    """The message without what is null; of a message that the token limit cut, the last call may lack its name."""
    known = {key: message[key] for key in ("content", "refusal", *_THOUGHTS) if message.get(key) is not None}
    calls: Any = message.get("tool_calls") or []
    if not calls and isinstance(message.get("function_call"), Mapping):
        calls = [message["function_call"]]
    if cut and isinstance(calls, list):
        calls = [call for call in cast("list[object]", calls) if _is_named(call)]
    return {"role": "assistant", "content": "", **known, "tool_calls": calls}


def _is_named(call: object) -> bool:
    outer = cast("Mapping[str, Any]", call) if isinstance(call, Mapping) else {}
    inner: object = outer.get("function", outer)
    return isinstance(inner, Mapping) and bool(cast("Mapping[str, Any]", inner).get("name"))


def _ids(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    ids = tuple(cast("list[object]", value))
    return cast("tuple[int, ...]", ids) if all(isinstance(i, int) for i in ids) else None


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    logprobs = choice.get("logprobs")
    given: object = cast("Mapping[str, Any]", logprobs).get("content") if isinstance(logprobs, Mapping) else None
    listed = cast("list[object]", given) if isinstance(given, list) else []
    entries = [cast("Mapping[str, Any]", entry) for entry in listed if isinstance(entry, Mapping)]
    ids = _ids(choice.get("token_ids")) or _ids(cast("object", [_id_of(entry) for entry in entries]))
    values = [entry.get("logprob") for entry in entries]
    known = ids is not None and len(ids) == len(values)
    if not known or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return ids, None
    return ids, tuple(float(value) for value in values if value is not None)


def _id_of(entry: Mapping[str, Any]) -> int | None:
    name, _, number = str(entry.get("token", "")).partition(":")
    if name == "token_id" and number.isdecimal():
        return int(number)
    return entry["id"] if isinstance(entry.get("id"), int) else None


def _usage(completion: Mapping[str, Any]) -> Usage | None:
    given: object = completion.get("usage")
    if not isinstance(given, Mapping):
        return None
    usage = cast("Mapping[str, Any]", given)
    details: object = usage.get("prompt_tokens_details")
    cached = cast("Mapping[str, Any]", details).get("cached_tokens") if isinstance(details, Mapping) else None
    counts = usage.get("prompt_tokens"), cached or usage.get("prompt_cache_hit_tokens"), usage.get("completion_tokens")
    return Usage(*(count if isinstance(count, int) else 0 for count in counts))
