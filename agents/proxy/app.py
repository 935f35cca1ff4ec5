"""The proxy's HTTP: sessions, and under each of them the three protocols, its tools and its MCP server."""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from typing_extensions import override

from agentenv.errors import AgentEnvError, InfrastructureError
from agentenv.mcp import McpEndpoint
from agentenv.types import Content, Message, ToolSchema

from . import anthropic_messages, openai_chat, openai_responses
from .calls import Call, keys_of, request_key
from .hub import Hub
from .requests import Reply, Request, RequestError, mapping_of, tools_key
from .session import Session, SessionLimits

__all__ = ["make_app"]

_KEEP_ALIVE_SECONDS = 5.0
_log = logging.getLogger(__name__)
_OPENING = {"env", "task", "seed", "tree", "at", "limits"}

Answered = tuple[Reply, Call]


def make_app(hub: Hub) -> Starlette:
    """Returns the proxy's application."""
    routes = _Routes(hub)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with routes.endpoint.run():
            yield

    return Starlette(routes=routes.listed(), lifespan=lifespan)


class _Json(JSONResponse):
    """JSON in ASCII: half a surrogate pair, which models do write, exists only as an escape."""

    @override
    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


@dataclass(frozen=True)
class _Protocol:
    """One of the three: how to read, write, stream and refuse."""

    module: ModuleType
    ping: str

    def refuse(self, problem: RequestError) -> Response:
        return _Json(self.module.error(problem), problem.status)

    def stream(self, events: Iterator[tuple[str | None, Any]]) -> Iterator[str]:
        for name, data in events:
            text = data if isinstance(data, str) else json.dumps(data)
            yield (f"event: {name}\n" if name else "") + f"data: {text}\n\n"


_CHAT = _Protocol(openai_chat, ": waiting\n\n")
_RESPONSES = _Protocol(openai_responses, ": waiting\n\n")
_MESSAGES = _Protocol(anthropic_messages, 'event: ping\ndata: {"type": "ping"}\n\n')


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One HTTP request: its body as JSON, and the session it is for, where it must be open."""

    http: HttpRequest
    body: Any
    open_session: Session | None = None

    @property
    def session(self) -> Session:
        return cast("Session", self.open_session)

    @property
    def fields(self) -> Mapping[str, Any]:
        return mapping_of(self.body or {}, "the body")


class _Routes:
    """What is done at which address."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.endpoint = McpEndpoint(lambda found: _SessionTools(hub, str(found["session"])))

    def listed(self) -> list[Route]:
        session, model = "/sessions/{session}", "/sessions/{session}/v1"
        return [
            Route("/health", _health),
            Route("/sessions", self._control(self._open), methods=["POST"]),
            Route(session, self._control(self._status), methods=["GET"]),
            Route(session, self._control(self._end), methods=["DELETE"]),
            Route(f"{session}/end", self._control(self._end), methods=["POST"]),
            Route(f"{session}/reward", self._control(self._reward), methods=["POST"]),
            Route(f"{session}/tools", self._programs(_CHAT, self._tools)),
            Route(f"{session}/tools/{{tool}}", self._programs(_CHAT, self._tool), methods=["POST"]),
            Route(f"{session}/mcp", _Guarded(self._check, self.endpoint)),
            Route(f"{model}/models", self._programs(_CHAT, self._models)),
            Route(f"{model}/models/{{name}}", self._programs(_CHAT, self._models)),
            Route(f"{model}/chat/completions", self._programs(_CHAT, self._chat), methods=["POST"]),
            Route(f"{model}/responses", self._programs(_RESPONSES, self._responses), methods=["POST"]),
            Route(f"{model}/messages", self._programs(_MESSAGES, self._messages), methods=["POST"]),
            Route(f"{model}/messages/count_tokens", self._programs(_MESSAGES, self._count), methods=["POST"]),
            Route("/{rest:path}", _nowhere, methods=["GET", "POST", "PUT", "DELETE"]),
        ]

    def _control(self, endpoint: Callable[[_Exchange], Awaitable[Any]]) -> Callable[[HttpRequest], Any]:
        """For whoever runs the episodes: needs the proxy's key."""

        async def guarded(request: HttpRequest) -> Response:
            try:
                _check_key(request, "the proxy's own key", self._hub.key)
                return _Json(await endpoint(_Exchange(request, await _body(request))))
            except RequestError as problem:
                return _CHAT.refuse(problem)
            except InfrastructureError as problem:
                return _CHAT.refuse(RequestError(str(problem), status=503, code="infrastructure"))
            except (AgentEnvError, ValueError) as problem:
                return _CHAT.refuse(RequestError(str(problem)))

        return guarded

    def _programs(
        self, protocol: _Protocol, endpoint: Callable[[_Exchange], Awaitable[Response]]
    ) -> Callable[[HttpRequest], Any]:
        """For a session's program: needs the session's key."""

        async def guarded(request: HttpRequest) -> Response:
            try:
                session = self._check(request)
                return await endpoint(_Exchange(request, await _body(request), session))
            except RequestError as problem:
                return protocol.refuse(problem)
            except AgentEnvError as problem:
                return protocol.refuse(RequestError(str(problem), status=503, code="infrastructure"))
            except Exception as problem:  # noqa: BLE001  a bug of the environment, or ours: the program is told
                _log.exception("a request could not be answered")
                return protocol.refuse(RequestError(f"{type(problem).__name__}: {problem}", status=500, code="bug"))

        return guarded

    def _check(self, request: HttpRequest) -> Session:
        session = self._session(request)
        _check_key(request, "the session's key", session.key, self._hub.key)
        return session

    def _session(self, request: HttpRequest) -> Session:
        name = request.path_params["session"]
        session = self._hub.sessions.get(name)
        if session is None:
            ended = self._hub.status(name)
            msg = f"the session has ended: {ended.get('ending')}" if ended else f"there is no session {name!r}"
            raise RequestError(msg, status=410 if ended else 404, code="session_ended" if ended else "not_found")
        return session

    # ------------------------------------------------------------------ for whoever runs the episodes

    async def _open(self, exchange: _Exchange) -> Any:
        asked = exchange.fields
        if unknown := set(asked) - _OPENING:
            msg = f"a session takes {', '.join(sorted(_OPENING))}, got {sorted(unknown)}"
            raise RequestError(msg)
        given = {name: asked[name] for name in ("env", "task", "tree") if asked.get(name) is not None}
        for name in {"env", "tree"} & given.keys():
            if not isinstance(given[name], str):
                msg = f"{name} must be text, got {given[name]!r:.80}"
                raise RequestError(msg)
        numbers = {name: _integer(asked[name], name) for name in ("seed", "at") if asked.get(name) is not None}
        limits = None
        if asked.get("limits") is not None:
            try:
                limits = SessionLimits(**mapping_of(asked["limits"], "limits"))
            except TypeError as problem:
                msg = f"limits must hold numbers by name: {problem}"
                raise RequestError(msg) from None
        session = await self._hub.call(self._hub.open, **given, **numbers, limits=limits)
        return self._hub.describe(session)

    async def _status(self, exchange: _Exchange) -> Any:
        found = self._hub.status(exchange.http.path_params["session"])
        if found is None:
            self._session(exchange.http)
        return found

    async def _end(self, exchange: _Exchange) -> Any:
        if exchange.http.path_params["session"] not in self._hub.sessions:
            return await self._status(exchange)
        session = self._session(exchange.http)
        if "reward" in exchange.fields:
            await self._hub.call(session.give_reward, exchange.fields["reward"])
        failure = str(exchange.fields.get("failure") or "")
        return await self._hub.call(self._hub.end, session, failure=failure)

    async def _reward(self, exchange: _Exchange) -> Any:
        session = self._session(exchange.http)
        await self._hub.call(session.give_reward, exchange.fields.get("reward"))
        return session.status()

    # ------------------------------------------------------------------ for programs

    async def _tools(self, exchange: _Exchange) -> Response:
        env = exchange.session.env
        return _Json({"tools": [] if env is None else list(env.tools)})

    async def _tool(self, exchange: _Exchange) -> Response:
        name, body = exchange.http.path_params["tool"], exchange.body
        arguments = body if isinstance(body, str) else dict(exchange.fields)
        step = await self._hub.call(exchange.session.execute, name, arguments)
        mistakes = list(step.transition.info.get("mistakes", ()))
        return _Json({"content": step.answer, "is_error": bool(mistakes), "ended": step.transition.ended})

    async def _models(self, exchange: _Exchange) -> Response:
        model = {"id": self._hub.model, "object": "model", "created": 0, "owned_by": "agentenv"}
        named = "name" in exchange.http.path_params
        return _Json(model if named else {"object": "list", "data": [model]})

    async def _count(self, exchange: _Exchange) -> Response:
        asked = anthropic_messages.read(exchange.fields)
        return _Json({"input_tokens": await self._hub.call(self._hub.count_tokens, asked)})

    async def _chat(self, exchange: _Exchange) -> Response:
        return await self._answer(exchange, openai_chat.read(exchange.fields), _CHAT)

    async def _messages(self, exchange: _Exchange) -> Response:
        return await self._answer(exchange, anthropic_messages.read(exchange.fields), _MESSAGES)

    async def _responses(self, exchange: _Exchange) -> Response:
        asked = openai_responses.read(exchange.fields, exchange.session.earlier)
        return await self._answer(exchange, asked, _RESPONSES)

    async def _answer(self, exchange: _Exchange, asked: Request, protocol: _Protocol) -> Response:
        task = self._task(exchange.http, exchange.session, asked)
        done, _ = await asyncio.wait({task}, timeout=_KEEP_ALIVE_SECONDS if asked.stream else None)
        headers = {"cache-control": "no-cache"}
        if not done:
            lines = _slowly(exchange.session, task, protocol)
            return StreamingResponse(lines, media_type="text/event-stream", headers=headers)
        reply, call = task.result()
        call.delivered = not await exchange.http.is_disconnected()
        _remember(exchange.session, reply)
        if asked.stream:
            events = protocol.stream(protocol.module.events(reply))
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        return _Json(protocol.module.write(reply))

    def _task(self, request: HttpRequest, session: Session, asked: Request) -> "asyncio.Task[Answered]":
        """Asks the agent; a client that asks again, having lost the answer, gets the same."""
        key = request_key(tools_key(asked.tools), keys_of(asked.messages))
        before: asyncio.Task[Answered] | None = session.answers.get(key)
        again = request.headers.get("x-stainless-retry-count", "0") != "0"
        if again and before is not None and not (before.done() and before.exception() is not None):
            return before
        task = asyncio.create_task(self._hub.answer(session, asked))
        session.answers[key] = task
        return task


@dataclass(frozen=True, slots=True)
class _SessionTools:
    """A session's environment, for MCP."""

    hub: Hub
    session: str

    @property
    def _open(self) -> Session:
        return self.hub.sessions[self.session]

    @property
    def tools(self) -> Sequence[ToolSchema]:
        return () if self._open.env is None else self._open.env.tools

    @property
    def first(self) -> Sequence[Message]:
        return self._open.first

    def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[Content, bool]:
        try:
            step = self._open.execute(name, arguments)
        except RequestError as problem:
            return problem.message, True
        return step.answer, bool(step.transition.info.get("mistakes"))


@dataclass(frozen=True, slots=True)
class _Guarded:
    """An application behind a key."""

    check: Callable[[HttpRequest], Session]
    app: McpEndpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            self.check(HttpRequest(scope, receive))
        except RequestError as problem:
            await _CHAT.refuse(problem)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def _slowly(session: Session, task: "asyncio.Task[Answered]", protocol: _Protocol) -> AsyncIterator[str]:
    """Streams an answer that takes long: signs of life until it is there."""
    while not task.done():
        yield protocol.ping
        await asyncio.wait({task}, timeout=_KEEP_ALIVE_SECONDS)
    try:
        reply, _ = task.result()
    except RequestError as problem:
        events = protocol.module.error_events(problem)
    else:
        _remember(session, reply)
        events = protocol.module.events(reply)
    for line in protocol.stream(events):
        yield line


def _remember(session: Session, reply: Reply) -> None:
    """Keeps the conversation for `previous_response_id`; instructions belong to one request only."""
    messages = reply.request.messages
    kept = messages[1:] if reply.request.options.get("instructions") else messages
    session.earlier[f"resp_{reply.id}"] = (*kept, reply.action.to_message())


def _check_key(request: HttpRequest, what: str, *keys: str) -> None:
    shown = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if not any(hmac.compare_digest(shown.strip().encode(), key.encode()) for key in keys):
        msg = f"this needs {what}, as `Authorization: Bearer KEY` or `x-api-key: KEY`"
        raise RequestError(msg, status=401, code="unauthorized")


async def _body(request: HttpRequest) -> Any:
    raw = await request.body()
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError) as problem:
        msg = f"the body must be JSON: {problem}"
        raise RequestError(msg) from None


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        msg = f"{name} must be an integer of at least 0, got {value!r}"
        raise RequestError(msg)
    return value


async def _health(_: HttpRequest) -> Response:
    return _Json({"status": "ok"})


async def _nowhere(request: HttpRequest) -> Response:
    msg = f"there is nothing at {request.method} {request.url.path}"
    problem = RequestError(msg, status=404, code="not_found")
    return (_MESSAGES if "anthropic-version" in request.headers else _CHAT).refuse(problem)
