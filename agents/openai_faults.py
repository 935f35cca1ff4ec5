"""What an error of a server means, and who has to do something about it."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import openai

from .openai_wire import GarbledAnswerError
from .pacing import retry_after_seconds

__all__ = ["EXPECTED", "OPTIONAL", "Fault", "Kind", "judge"]

EXPECTED = (openai.OpenAIError, TimeoutError, OSError, GarbledAnswerError)
"""What a request may raise."""


class Kind(Enum):
    """Who has to do something about an error."""

    RETRY = "the server: try again"
    USER = "whoever started the run: it ends"
    REFUSED = "nobody knows: the server does not take this request"
    CONTEXT = "the agent: the conversation is too long"
    FILTERED = "the agent: its conversation is not allowed"
    ADAPT = "this client: the server does not know a parameter"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error, read.

    Attributes:
        kind: who has to do something about it.
        reason: what the server said.
        wait: seconds that the server asks to wait.
        parameter: what to leave out, or to name otherwise.
        room: tokens that are left for an answer, where the server says so and some are left.
    """

    kind: Kind
    reason: str
    wait: float | None = None
    parameter: str = ""
    room: int | None = None


_RETRIED = {408, 409, 425, 429}
_NO_TOOLS = re.compile(
    r"--jinja|enable-auto-tool-choice|tool-call-parser|(?:not|n't) support (?:\w+ )?(?:tools?|function)"
    r"|(?:tools?|function calling)\b[^.]{0,40}\bnot supported",
)
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|maximum context|max_model_len|longer than the (?:model|maximum)"
    r"|too many (?:input )?tokens|(?:input|prompt) (?:is|was) too long"
    r"|exceeds? the (?:model's )?max\w* (?:number|length)"
    r"|exceed_context_size",
)
_LIMIT = re.compile(r"maximum context length (?:is|of) (?:only )?(\d+)|context length of (\d+)")
_GIVEN = re.compile(r"(\d+) (?:input tokens|tokens in the messages|in the messages|tokens from the input messages)")
_FILTERED = re.compile(r"content[ _]filter|content management policy|content_policy")
_OUT_OF_MONEY = re.compile(r"insufficient_quota|billing|exceeded your current quota|insufficient (?:credit|balance)")
_UNKNOWN = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|not permitted|extra|not supported|not allowed|not support"
    r"|additional|invalid",
)
OPTIONAL = (
    "return_token_ids",
    "logprobs",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_content",
    "reasoning",
)
"""Parameters that a server may not know, and that can be left out, or named otherwise."""


def judge(error: Exception, body: Mapping[str, Any]) -> Fault:
    """Reads an error.

    Args:
        error: one of `EXPECTED`.
        body: the request.
    """
    if isinstance(error, openai.APIStatusError):
        return _judge_status(error, body)
    if isinstance(error, openai.APIConnectionError | TimeoutError | OSError | GarbledAnswerError):
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
        reason = f"{type(cause or error).__name__}: {cause or error}".rstrip(": ")
        return Fault(Kind.RETRY, reason)
    return Fault(Kind.USER, f"{type(error).__name__}: {error}")


def _judge_status(error: openai.APIStatusError, body: Mapping[str, Any]) -> Fault:
    status, words = error.status_code, error.response.text.lower()
    reason = f"{status}: {_said(error)}"
    if body.get("tools") and status not in {401, 403, 404} and _NO_TOOLS.search(words):
        return Fault(Kind.USER, reason, parameter="tools")
    if status in {401, 402, 403, 404} or (status == 429 and _OUT_OF_MONEY.search(words)):
        return Fault(Kind.USER, reason)
    if status == 413 or _TOO_LONG.search(words):
        return Fault(Kind.CONTEXT, reason, room=_room(words))
    if status in _RETRIED or status >= 500:
        return Fault(Kind.RETRY, reason, wait=retry_after_seconds(error.response.headers))
    if _FILTERED.search(words):
        return Fault(Kind.FILTERED, reason)
    parameter = next((name for name in _named(words, body) if _UNKNOWN.search(words)), "")
    return Fault(Kind.ADAPT if parameter else Kind.REFUSED, reason, parameter=parameter)


def _named(words: str, body: Mapping[str, Any]) -> Iterable[str]:
    """The optional parameters of a request that an error speaks of."""
    sent = {*body, *(name for message in body.get("messages", ()) for name in message)}
    for name in OPTIONAL:
        if name in sent and re.search(rf"(?<!\w){name}(?!\w)", words):
            yield name


def _said(error: openai.APIStatusError) -> str:
    body: object = error.body
    if isinstance(body, Mapping):
        entries = cast("Mapping[str, Any]", body)
        said = entries.get("message") or entries.get("detail") or entries.get("error") or entries
        return (said if isinstance(said, str) else json.dumps(said, default=str))[:500]
    return " ".join(error.response.text.split())[:500]


def _room(words: str) -> int | None:
    limit, given = _LIMIT.search(words), _GIVEN.search(words)
    if limit is None or given is None:
        return None
    room = int(limit[1] or limit[2]) - int(given[1])
    return room if room > 0 else None
