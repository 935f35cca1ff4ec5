"""An agent behind any server that speaks OpenAI's chat completions: llama.cpp, SGLang, vLLM, or a hosted one."""

import asyncio
import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakKeyDictionary

import httpx2
import openai
from typing_extensions import override

from agentenv.errors import AgentError, ModelError
from agentenv.protocols import AsyncAgent, Context
from agentenv.types import Action

from .openai_faults import EXPECTED, OPTIONAL, Fault, Kind, judge
from .openai_session import Session
from .openai_wire import GarbledAnswerError, read_completion, write_messages
from .pacing import Backoff, Pace

__all__ = ["OpenAIAgent"]

_HOSTED = "https://api.openai.com/v1"
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_k": (None, 0, -1),
    "min_p": (None, 0),
    "typical_p": (None, 1),
    "repetition_penalty": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
}
"""Settings that make the sampled distribution another than the model's own, and the values with which they do not."""


@dataclass(slots=True)
class _Attempts:
    """One action on its way: what went wrong so far."""

    context: Context
    began: float | None = None
    failures: int = 0
    adapted: int = 0
    room: int | None = None
    given_up: AgentError | None = field(default=None)


class OpenAIAgent(AsyncAgent):
    """Asks a server for every action, each episode on its own.

    What a server that is away, busy or broken answers (no connection, 408, 409, 425, 429, 5xx, a time-out, no JSON) is
    tried again, after what `Retry-After` says, or else `0.5 * 2^n` seconds with jitter; an action that fails `retries`
    times more is an `AgentError`: its episode is tried again by the rollout, and no other is touched. What only the
    user can mend (401, 403, 404, an empty account, tools that the server does not take) is a `ModelError`, which ends
    the run at once. A conversation that is too long for the model gives an empty action with `finish_reason`
    `"context_length"`: the agent's own doing, and the episode is truncated.

    Parameters that a server does not know (`seed`, `logprobs`, `return_token_ids`, the reasoning of earlier messages)
    are left out from then on, with a warning; `max_tokens` becomes `max_completion_tokens` where it wants that.

    Args:
        base_url: the server, such as `http://127.0.0.1:8000/v1`; default: `OPENAI_BASE_URL`, or OpenAI's own.
        model: the model's name there; default: the one that the server has.
        api_key: default: `OPENAI_API_KEY`; servers of one's own mostly want none.
        temperature: `None` leaves it to the server.
        top_p: likewise.
        max_tokens: most tokens of one action; `None` leaves it to the server.
        retries: how often an action is asked for again.
        timeout: seconds for one answer, to its last byte.
        deadline: seconds for one action from its first request on, retries and waits included; `None` for no limit.
        concurrency: requests at once.
        requests_per_minute: sends no more; `None` for no limit.
        tokens_per_minute: likewise; prompts are guessed at 4 characters a token, and corrected by the server's count.
        record_tokens: whether to ask for token ids and log-probabilities: `None` takes them where the server gives
            them; `True` refuses a server that does not.
        processed_logprobs: the server's log-probabilities are those after temperature and top-p (vLLM's
            `--logprobs-mode processed_logprobs`). Otherwise they are kept only at temperature 1 without top-p, where
            both are the same.
        options: further entries of the request, such as `{"top_k": 20}` or `{"chat_template_kwargs": {...}}`.
        headers: further headers.

    Raises:
        ModelError: there is no key for OpenAI's own server.
        ValueError: a number is out of range.
    """

    honors = frozenset({"max_tokens"})

    def __init__(  # noqa: PLR0913  all but two keyword-only
        self,
        base_url: str | None = None,
        model: str | None = None,
        *,
        api_key: str | None = None,
        temperature: float | None = 1.0,
        top_p: float | None = None,
        max_tokens: int | None = None,
        retries: int = 6,
        timeout: float = 600.0,
        deadline: float | None = None,
        concurrency: int = 256,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        record_tokens: bool | None = None,
        processed_logprobs: bool = False,
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        _check_range("retries", retries, least=0)
        for name, value in (("concurrency", concurrency), ("max_tokens", max_tokens)):
            _check_range(name, value, least=1)
        rates = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, value in ({"timeout": timeout, "deadline": deadline} | rates).items():
            _check_range(name, value, above=0)
        self.base_url = _base_url(base_url)
        self.model = model
        self.retries = retries
        self.timeout = timeout
        self.deadline = deadline
        self.concurrency = concurrency
        self.record_tokens = record_tokens
        self.backoff = Backoff()
        self._key = _api_key(api_key, self.base_url)
        self._headers = dict(headers or {})
        self._requests = Pace(requests_per_minute) if requests_per_minute else None
        self._tokens = Pace(tokens_per_minute) if tokens_per_minute else None
        self._max_tokens = max_tokens
        self._limit_name = "max_completion_tokens" if self.base_url == _HOSTED else "max_tokens"
        asked = {"temperature": temperature, "top_p": top_p}
        self._options = {name: value for name, value in asked.items() if value is not None} | dict(options or {})
        if record_tokens is not False:
            hosted = self.base_url == _HOSTED  # knows no token ids
            self._options |= {} if hosted and record_tokens is None else {"logprobs": True, "return_token_ids": True}
        drawn = self._options.get("temperature") == 1 and self._options.get("top_p", 1) == 1
        plain = all(self._options.get(name) in neutral for name, neutral in _NEUTRAL.items())
        self._keep_logprobs = processed_logprobs or (drawn and plain)
        self._left_out: set[str] = set()
        self._paused_until = 0.0
        self._answered = False
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, Session] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIAgent({self.base_url!r}, model={self.model!r})"

    # ------------------------------------------------------------------ what it does

    @override
    async def respond(self, context: Context, /) -> Action:
        """Asks for one action.

        Raises:
            AgentError: the server did not answer, or not with a completion, as often as it was asked.
            ModelError: only the user can mend it: a wrong key, no such model, tools that the server does not take.
        """
        session = self._session()
        attempts = _Attempts(context)
        while True:
            body: dict[str, Any] = {}
            try:
                body = self._body(context, await self._model(session), attempts.room)
                return self._read(await self._post(session, body, attempts), context)
            except EXPECTED as error:
                fault = judge(error, body)
                if (action := self._settle(fault, body, attempts)) is not None:
                    return action
                if attempts.given_up is not None:
                    raise attempts.given_up from error
            if fault.kind is Kind.RETRY:
                await self._wait(fault, attempts)

    async def check(self) -> tuple[str, ...]:
        """Asks the server which models it has, so that a wrong URL or key is found before anything is played.

        Returns:
            Their names; none where the server does not tell.

        Raises:
            ModelError: nothing answers there, or it refuses the key.
        """
        session = self._session()
        try:
            async with asyncio.timeout(min(self.timeout, 30.0)):
                return await session.list_models()
        except EXPECTED as error:
            fault = judge(error, {})
            if fault.kind is Kind.USER and not fault.reason.startswith("404"):
                raise self._users_fault(fault) from error
            if isinstance(error, openai.APIConnectionError | TimeoutError | OSError):
                msg = f"no server answers at {self.base_url} ({fault.reason}): is it running, and is the URL right?"
                raise ModelError(msg) from error
            return ()

    @override
    async def leave_loop(self) -> None:
        """Closes the connections that belong to the running event loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    # ------------------------------------------------------------------ one request

    def _session(self) -> Session:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            options: dict[str, Any] = {"headers": self._headers, "concurrency": self.concurrency}
            session = Session(self.base_url, self._key, timeout=self.timeout, **options)
            self._sessions[loop] = session
        return session

    async def _model(self, session: Session) -> str:
        if self.model is None:
            async with session.naming:
                if self.model is None:
                    self.model = await self._only_model(session)
        return self.model

    async def _only_model(self, session: Session) -> str:
        names = await session.list_models()
        if len(names) != 1:
            msg = f"model must be named: {self.base_url} has {', '.join(names) or 'none that it tells of'}"
            raise ModelError(msg)
        return names[0]

    def _body(self, context: Context, model: str, room: int | None) -> dict[str, Any]:
        limits = [n for n in (self._max_tokens, context.max_tokens, room) if n is not None]
        thoughts = not {"reasoning", "reasoning_content"} & self._left_out
        body: dict[str, Any] = {
            "model": model,
            "messages": write_messages(context.messages, reasoning=thoughts),
            "seed": context.seed % 2**31,
            **self._options,
        }
        if context.tools:
            body["tools"] = list(context.tools)
        if limits:
            body[self._limit_name] = min(limits)
        return {name: value for name, value in body.items() if name not in self._left_out}

    async def _post(self, session: Session, body: Mapping[str, Any], attempts: _Attempts) -> object:
        async with session.room:
            guess = await self._keep_pace(body)
            attempts.began = time.monotonic() if attempts.began is None else attempts.began
            left = math.inf if self.deadline is None else attempts.began + self.deadline - time.monotonic()
            async with asyncio.timeout(max(0.001, min(self.timeout, left))):
                response = await session.complete(body)
        try:
            data = json.loads(response.content)
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no content type")
            msg = f"the answer is no JSON ({kind}): {response.text[:200]!r}; does base_url end as it should (/v1)?"
            raise GarbledAnswerError(msg) from None
        self._count_tokens(data, guess)
        return data

    async def _keep_pace(self, body: Mapping[str, Any]) -> float:
        """Waits until the rates allow a request; returns the tokens it was taken to need."""
        waits = [self._paused_until - time.monotonic()]
        guess = 0.0
        if self._requests is not None:
            waits.append(self._requests.reserve())
        if self._tokens is not None:
            guess = len(json.dumps(body["messages"])) / 4 + float(body.get(self._limit_name, 256))
            waits.append(self._tokens.reserve(guess))
        if (wait := max(waits)) > 0:
            await asyncio.sleep(wait)
        return guess

    def _count_tokens(self, data: object, guess: float) -> None:
        usage = cast("dict[str, Any]", data).get("usage") if isinstance(data, dict) else None
        if self._tokens is not None and isinstance(usage, dict):
            used = cast("dict[str, Any]", usage).get("total_tokens")
            if isinstance(used, int):
                self._tokens.correct(used - guess)

    def _read(self, data: object, context: Context) -> Action:
        turn = sum(message["role"] == "assistant" for message in context.messages)
        action = read_completion(data, turn=turn, keep_logprobs=self._keep_logprobs)
        self._answered = True
        if self.record_tokens and (action.token_ids is None or action.prompt_token_ids is None):
            msg = (
                f"record_tokens=True needs a server that returns token ids, and {self.base_url} does not: vLLM from "
                "0.10.2 on does, with no further setting; use record_tokens=None to go without"
            )
            raise ModelError(msg)
        return action

    # ------------------------------------------------------------------ what went wrong

    def _settle(self, fault: Fault, body: Mapping[str, Any], attempts: _Attempts) -> Action | None:
        """Decides what an error comes to: an action, the end of the attempts, or `None` to ask again."""
        match fault.kind:
            case Kind.USER:
                raise self._users_fault(fault)
            case Kind.CONTEXT:
                asked = body.get(self._limit_name)
                if fault.room is None or attempts.room is not None or (asked is not None and fault.room >= asked):
                    return Action(finish_reason="context_length")
                attempts.room = fault.room
            case Kind.FILTERED:
                return Action(finish_reason="content_filter")
            case Kind.ADAPT if attempts.adapted < 2 * len(OPTIONAL):
                attempts.adapted += 1
                self._adapt(fault)
            case Kind.RETRY:
                attempts.failures += 1
                if attempts.failures > self.retries:
                    msg = f"{self.base_url} failed {attempts.failures} times, at last with {fault.reason}"
                    attempts.given_up = AgentError(msg)
            case _:
                msg = f"{self.base_url} refuses the request ({fault.reason})"
                if not self._answered:
                    raise ModelError(msg)
                attempts.given_up = AgentError(msg)
        return None

    def _users_fault(self, fault: Fault) -> ModelError:
        status = fault.reason.partition(":")[0]
        remedy = {
            "401": "the key is missing or wrong: pass api_key=, or set OPENAI_API_KEY",
            "403": "the key may not do this: pass another api_key=",
            "402": "the account is empty",
            "404": f"there is no model {self.model!r} there, or no /chat/completions below that URL",
            "429": "the account is empty or over its quota",
        }.get(status, "see what it says")
        if fault.parameter == "tools":
            remedy = (
                "it does not take tools: start vLLM with --enable-auto-tool-choice --tool-call-parser NAME, llama.cpp "
                "with --jinja, SGLang with --tool-call-parser NAME, or take a model that has them"
            )
        return ModelError(f"{self.base_url}: {remedy}. It said {fault.reason}")

    def _adapt(self, fault: Fault) -> None:
        """Leaves a parameter out from now on, or names it otherwise."""
        names = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
        if self.record_tokens and fault.parameter in {"logprobs", "return_token_ids"}:
            msg = f"record_tokens=True, and {self.base_url} does not take {fault.parameter} ({fault.reason})"
            raise ModelError(msg)
        if fault.parameter in names:  # others in flight may have found out already
            self._limit_name = names[fault.parameter] if fault.parameter == self._limit_name else self._limit_name
        elif fault.parameter not in self._left_out:
            self._left_out.add(fault.parameter)
            msg = f"{self.base_url} does not take {fault.parameter!r}, which is left out from now on ({fault.reason})"
            warnings.warn(msg, RuntimeWarning, stacklevel=2)

    async def _wait(self, fault: Fault, attempts: _Attempts) -> None:
        wait = self.backoff.seconds(attempts.failures)
        now = time.monotonic()
        if fault.wait is not None:
            wait = fault.wait + min(wait, 0.1 * fault.wait)  # not all at the same moment
            self._paused_until = max(self._paused_until, now + fault.wait)
        if self.deadline is not None and now + wait >= (attempts.began or now) + self.deadline:
            msg = f"{self.base_url} gave no action within deadline={self.deadline} seconds, at last {fault.reason}"
            raise AgentError(msg)
        await asyncio.sleep(wait)


def _check_range(name: str, value: float | None, *, least: float | None = None, above: float | None = None) -> None:
    if value is None:
        return
    if (least is not None and value < least) or (above is not None and value <= above):
        msg = f"{name} must be {f'at least {least}' if above is None else f'above {above}'}, got {value!r}"
        raise ValueError(msg)


def _base_url(given: str | None) -> str:
    url = given or os.environ.get("OPENAI_BASE_URL") or _HOSTED
    parsed = httpx2.URL(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        msg = f"base_url must be like http://127.0.0.1:8000/v1, got {url!r}"
        raise ValueError(msg)
    return f"{url.rstrip('/')}/v1" if parsed.path in {"", "/"} else url.rstrip("/")


def _api_key(given: str | None, url: str) -> str:
    key = given or os.environ.get("OPENAI_API_KEY")
    if key is None and url == _HOSTED:
        msg = f"{url} wants a key: pass api_key=, or set OPENAI_API_KEY"
        raise ModelError(msg)
    if key is not None and not (key.isascii() and key.isprintable()):
        msg = "api_key must be printable ASCII: is there a line break or a typographic sign in it?"
        raise ValueError(msg)
    return key or "none"
