"""Any environment as an OpenEnv server: what `agentenv serve --openenv` runs. Needs no package of OpenEnv."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, cast
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from agentenv.env import Env
from agentenv.registry import env_class
from agentenv.web_server import WebServer

from .openenv_session import Book, Session, rpc_params
from .openenv_wire import (
    ACTION_SCHEMA,
    BRANCHING,
    MAX_MESSAGE_BYTES,
    OBSERVATION_SCHEMA,
    STATE_SCHEMA,
    WireError,
    error_message,
)

__all__ = ["OpenEnvServer", "make_app"]

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_API_VERSION = "1.0.0"
_STATUS = {"VALIDATION_ERROR": 422, "INVALID_JSON": 422, "CAPACITY_REACHED": 503, "FACTORY_ERROR": 503}


class OpenEnvServer:
    """Serves an environment to OpenEnv's clients, one episode at a time per connection.

    Beside OpenEnv's messages it understands ours, with which a client takes snapshots of an episode, goes back to them
    and multiplies it; see docs/interop.md.

    Args:
        env: a registered id, `"module:Class"`, a class, or a function that makes one.
        host: to listen at. Where it is this machine only, requests that name another host or come from a page of
            another one are refused.
        port: to listen at; 0 takes a free one.
        branching: whether to offer the extension.
        max_sessions: most connections and forks at once.
        max_snapshots: most snapshots; the one that was not used for longest is dropped for a new one.
        options: arguments of the environment.

    Attributes:
        book: the open sessions and the snapshots.

    Raises:
        ValueError: a number out of range.
        AgentEnvError: the environment cannot be made.
    """

    def __init__(
        self,
        env: str | type[Env] | Callable[[], Env],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        branching: bool = True,
        max_sessions: int = 64,
        max_snapshots: int = 4096,
        **options: Any,
    ) -> None:
        cls: Any = env_class(env) if isinstance(env, str) else env
        self.host, self.port = host, port
        self.book = Book(partial(cls, **options), branching, max_sessions, max_snapshots)
        self._app = make_app(self.book, local=host in _LOOPBACK)
        self._web: WebServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Listens, in a thread of its own, until `close`.

        Raises:
            OSError: the port is taken.
        """
        self._web = WebServer(
            self._app, host=self.host, port=self.port, name="agentenv-openenv", ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
        )  # fmt: skip
        self.port = self._web.port

    def wait(self) -> None:
        """Waits until the server ends, e.g. for Ctrl-C."""
        if self._web is not None:
            self._web.wait()

    def close(self) -> None:
        """Ends the server and closes every environment. May be called twice."""
        if self._web is not None:
            self._web.close()
        self._web = None
        self.book.close()


def make_app(book: Book, *, local: bool = True) -> Any:
    """Returns the application, for a server of one's own.

    Args:
        book: makes and keeps the sessions; closed with the application.
        local: refuses what does not name this machine as its host, or comes from a page of another.
    """
    env = book.make_env()
    try:
        about = _about(env)
    finally:
        env.close()
    routes = _Routes(book, about)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        routes.limiter = anyio.CapacityLimiter(book.max_sessions)
        yield
        await anyio.to_thread.run_sync(book.close)

    app = Starlette(routes=routes.listed(), lifespan=lifespan)
    return _LocalOnly(app) if local else app


def _about(env: Env) -> dict[str, Any]:
    doc = " ".join((type(env).__doc__ or env.env_id).strip().split("\n\n")[0].split())
    return {"name": env.env_id, "description": doc, "version": str(env.version)}


class _Routes:
    """What is done at which address."""

    def __init__(self, book: Book, about: Mapping[str, Any]) -> None:
        self._book = book
        self._about = about
        self.limiter: anyio.CapacityLimiter | None = None

    def listed(self) -> list[Any]:
        schemas = {"action": ACTION_SCHEMA, "observation": OBSERVATION_SCHEMA, "state": STATE_SCHEMA}
        return [
            Route("/health", _constant({"status": "healthy"})),
            Route("/metadata", _constant(self._about)),
            Route("/schema", _constant(schemas)),
            Route("/openapi.json", _constant(_openapi(self._about, self._book.branching))),
            Route("/state", _constant({"episode_id": None, "step_count": 0})),
            Route("/reset", self._reset, methods=["POST"]),
            Route("/step", self._step, methods=["POST"]),
            Route("/mcp", self._mcp, methods=["POST"]),
            WebSocketRoute("/ws", self._session),
        ]

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(partial(function, *arguments), limiter=self.limiter)

    async def _session(self, socket: WebSocket) -> None:
        await socket.accept()
        asked = socket.query_params.get("session_id")
        opened: Session | None = None
        try:
            session: Session = self._book.attach(asked) if asked else await self._call(self._book.open)
            opened, session.attached = session, True
            while (answer := await self._exchange(session, await _received(socket))) is not None:
                await socket.send_text(json.dumps(answer))
            await socket.close()
        except WireError as problem:
            await socket.send_text(json.dumps(error_message(problem)))
            await socket.close()
        except WebSocketDisconnect:
            pass
        finally:
            if opened is not None:
                with anyio.CancelScope(shield=True):
                    await self._call(self._book.detach, opened)

    async def _exchange(self, session: Session, text: str) -> dict[str, Any] | None:
        """Returns the answer to a message; `None` where it says goodbye."""
        try:
            message = _object(text)
            if message.get("type") == "close":
                return None
            return await self._call(session.answer, message)
        except WireError as problem:
            return error_message(problem)

    # ------------------------------------------------------------------ single requests

    async def _reset(self, request: Request) -> Response:
        return await self._once(request, "reset")

    async def _step(self, request: Request) -> Response:
        del request
        msg = "a request alone has no episode to step: keep one over the WebSocket at /ws, as OpenEnv's clients do"
        return JSONResponse({"detail": msg}, 409)

    async def _mcp(self, request: Request) -> Response:
        try:
            asked = _object((await request.body()).decode("utf-8", "replace") or "{}")
        except WireError as problem:
            return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": problem.message}})
        answer = await self._call(self._rpc, asked)
        return Response(json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), **answer}), media_type="application/json")

    def _rpc(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answers a request of JSON-RPC; the sessions that it opens are the same as those of the WebSocket."""
        try:
            params = rpc_params(asked)
            name = params.get("session_id")
            if asked.get("method") == "openenv/session/create":
                session = self._book.open()
                session.stays = True
                return {"result": {"session_id": session.id}}
            if name is None and asked.get("method") == "tools/list":
                session = self._book.open()
                try:
                    return session.call_rpc(asked)
                finally:
                    self._book.end(session)
            session = self._book.find(name)
            if asked.get("method") == "openenv/session/close":
                self._book.end(session)
                return {"result": {"session_id": name, "closed": True}}
            return session.answer({"type": "mcp", "data": asked})["data"]
        except WireError as problem:
            return {"error": {"code": -32602, "message": problem.message}}

    async def _once(self, request: Request, kind: str) -> Response:
        opened: Session | None = None
        try:
            data = _object((await request.body()).decode("utf-8", "replace") or "{}")
            session: Session = await self._call(self._book.open)
            opened = session
            answer = await self._call(session.answer, {"type": kind, "data": data})
            return Response(json.dumps(answer["data"]), media_type="application/json")
        except WireError as problem:
            return JSONResponse({"detail": problem.message}, _STATUS.get(problem.code, 500))
        finally:
            if opened is not None:
                await self._call(self._book.end, opened)


class _LocalOnly:
    """An application for programs of this machine: no page of another site talks to it, by whatever name."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        named = [headers[name] for name in (b"host", b"origin") if name in headers]
        if all(urlsplit(name if "//" in name else f"//{name}").hostname in _LOOPBACK for name in named):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close()
        else:
            await JSONResponse({"detail": "this server answers this machine only"}, 403)(scope, receive, send)


def _constant(value: Mapping[str, Any]) -> Callable[[Request], Any]:
    async def answer(_: Request) -> Response:
        return JSONResponse(value)

    return answer


async def _received(socket: WebSocket) -> str:
    """Returns the next message; one in bytes is read as text."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    return message.get("text") or bytes(message.get("bytes") or b"").decode("utf-8", "replace")


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        msg = f"Invalid JSON: {problem}"
        raise WireError(msg, "INVALID_JSON") from None
    if not isinstance(value, dict):
        msg = f"a message must be a JSON object, got {text[:80]!r}"
        raise WireError(msg, "VALIDATION_ERROR")
    return cast("dict[str, Any]", value)


def _openapi(about: Mapping[str, Any], branching: bool) -> dict[str, Any]:
    answered = {"responses": {"200": {"description": "The answer."}}}
    gets = ("/health", "/metadata", "/schema", "/state")
    paths = {path: {"get": answered} for path in gets} | {
        path: {"post": answered} for path in ("/reset", "/step", "/mcp")
    }
    info = {"title": about["name"], "description": about["description"], "version": _API_VERSION}
    return {"openapi": "3.1.0", "info": info | ({"x-branching": BRANCHING} if branching else {}), "paths": paths}
