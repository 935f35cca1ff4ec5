"""A connection to an OpenEnv server, as a plain `gymnasium.Env` whose observations are what the server sends."""

import json
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import gymnasium
from typing_extensions import override
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from agentenv.errors import InfrastructureError, SnapshotError, TaskError, ToolServerError
from agentenv.rows import shorten

from .openenv_wire import (
    BRANCHING,
    MAX_MESSAGE_BYTES,
    About,
    ActionSchema,
    Kept,
    Observed,
    Tool,
    Tools,
    WireError,
    is_chat_schema,
    is_tool_schema,
    read_answer,
)

__all__ = ["Remote"]

_ASIDE = {"metadata"}
_FULL = "CAPACITY_REACHED"
ROOM_WAIT_S = 2.0
"""How long a server that is full is asked again."""
_HELLO: dict[str, Any] = {"kind": "branching", "data": {"signatures": True}}


class Remote(gymnasium.Env[Any, Any]):
    """An OpenEnv server's environment: one connection, which is one session of the server.

    Args:
        url: of the server, `http://...` or `ws://...`.
        timeout_s: seconds to wait for an answer.
        headers: of every request.

    Attributes:
        kind: `"chat"` where actions are assistant messages, `"tools"` where they are calls of tools, `"fields"`
            otherwise.
        schema: of an action.
        tools: as the server lists them, in OpenAI's format; none where `kind` is `"fields"`.
        about: name, version and description.
        branching: what the server says of the extension; empty where it has none.

    Raises:
        ToolServerError: it does not answer, or not as OpenEnv's servers do.
    """

    def __init__(self, url: str, *, timeout_s: float = 60.0, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https", "ws", "wss"} or not parts.netloc:
            msg = f"url must be that of an OpenEnv server, such as http://127.0.0.1:8000, got {url!r}"
            raise ValueError(msg)
        if not timeout_s > 0:
            msg = f"timeout_s must be above 0, got {timeout_s!r}"
            raise ValueError(msg)
        rest = f"//{parts.netloc}{parts.path.rstrip('/')}"
        self.url = ("https:" if parts.scheme in {"https", "wss"} else "http:") + rest
        self._socket_url = ("wss:" if parts.scheme in {"https", "wss"} else "ws:") + rest + "/ws"
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._socket: ClientConnection | None = None
        self.branching: dict[str, Any] = {}
        self.about = self._get("/metadata")
        action: Any = self._get("/schema").get("action") or {}
        self.schema = read_answer(ActionSchema, action, f"{self.url}/schema").model_dump(exclude_unset=True)
        self.kind = "chat" if is_chat_schema(self.schema) else "tools" if is_tool_schema(self.schema) else "fields"
        self.branching = self._hello()
        self.tools = () if self.kind == "fields" else self._list_tools()

    @override
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; `options` are further arguments of the server's reset."""
        answer = self._observe("reset", ({} if seed is None else {"seed": seed}) | (options or {}))
        return _seen(answer), _beside(answer)

    @override
    def step(self, action: dict[str, Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one action, a JSON object as the server's schema has it."""
        answer = self._observe("step", action)
        metadata = _beside(answer)
        truncated, done = bool(metadata.get("truncated")), bool(answer.done)
        return _seen(answer), answer.reward or 0.0, done and not truncated, truncated, metadata

    def _observe(self, kind: str, data: Mapping[str, Any]) -> Observed:
        return read_answer(Observed, self.ask(kind, data), f"{self.url}: {kind}")

    def snapshot(self) -> str:
        """Has the server keep the state; returns its name for it."""
        return read_answer(Kept, self._demand("snapshot"), f"{self.url}: snapshot").snapshot_id

    def restore(self, snapshot_id: str) -> dict[str, Any]:
        """Has the server go back; returns its answer's metadata."""
        answer = self._demand("restore", {"snapshot_id": snapshot_id})
        return _beside(read_answer(Observed, answer, f"{self.url}: restore"))

    def reseed(self, seed: int) -> None:
        """Gives the rest of the episode other random numbers."""
        self._demand("reseed", {"seed": seed})

    def _demand(self, kind: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks what a server that said what it can must not refuse."""
        try:
            return self.ask(kind, data)
        except WireError as problem:
            msg = f"the OpenEnv server {self.url} refused {kind}: {problem}"
            raise ToolServerError(msg) from problem

    def ask(self, kind: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends a message and returns the data of the answer.

        Raises:
            WireError: the server refused the message as wrong: `VALIDATION_ERROR`, `UNKNOWN_TYPE`.
            TaskError, SnapshotError: the server's environment says so.
            InfrastructureError: its environment failed.
            ToolServerError: it is gone, does not answer, or answers nonsense.
        """
        text = json.dumps({"type": kind, "data": dict(data or {})})
        fresh, until = self._socket is None, time.monotonic() + ROOM_WAIT_S
        while (answer := self._exchange(text)) and fresh and _is_full(answer) and time.monotonic() < until:
            self.close()  # a session that was ended a moment ago may still take its place
            time.sleep(0.1)
        found = answer.get("data")
        if not isinstance(found, dict):
            msg = f"the OpenEnv server {self.url} answered {kind} with {shorten(answer)}, where data was expected"
            raise ToolServerError(msg)
        found = cast("dict[str, Any]", found)
        if answer.get("type") != "error":
            return found
        said, code = str(found.get("message", found)), str(found.get("code", ""))
        if found.get("errors"):
            said = f"{said}: {shorten(found['errors'], 300)}"
        self._refuse(said, code, str(found.get("kind", "")))
        raise AssertionError

    def _refuse(self, said: str, code: str, kind: str) -> None:
        if kind == "TaskError":
            raise TaskError(said)
        if kind == "SnapshotError":
            raise SnapshotError(said)
        if code in {"VALIDATION_ERROR", "UNKNOWN_TYPE"}:
            raise WireError(said, code, kind)
        if code == _FULL:
            said += "; start it with room for more sessions, or branch by restore, one environment at a time"
        msg = f"the environment of the OpenEnv server {self.url} failed: {kind or code}: {said}"
        raise InfrastructureError(msg)

    @override
    def close(self) -> None:
        """Ends the connection, and so the session."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    # ------------------------------------------------------------------ the connection

    def _exchange(self, text: str) -> dict[str, Any]:
        try:
            if self._socket is None:
                self._socket = self._connect()
            with suppress(WebSocketException):  # a server that is full says so and hangs up: that is read below
                self._socket.send(text)
            answer: object = json.loads(self._socket.recv(self._timeout_s))
        except (OSError, WebSocketException, ValueError, RecursionError) as problem:
            self.close()
            msg = f"the OpenEnv server {self.url} does not answer: {type(problem).__name__}: {problem}"
            raise ToolServerError(msg) from problem
        return cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}

    def _connect(self) -> ClientConnection:
        socket = connect(
            self._socket_url, additional_headers=self._headers, open_timeout=self._timeout_s,
            max_size=MAX_MESSAGE_BYTES, proxy=None,
        )  # fmt: skip
        if self.branching:  # a session that follows a lost one: what was agreed is said again
            socket.send(json.dumps({"type": _HELLO["kind"], "data": _HELLO["data"]}))
            socket.recv(self._timeout_s)
        return socket

    def _get(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, headers=self._headers)  # noqa: S310  http or https, see above
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310
                value: object = json.loads(answer.read())
        except (OSError, ValueError, RecursionError) as problem:
            msg = f"the OpenEnv server {self.url} does not answer {path}: {type(problem).__name__}: {problem}"
            raise ToolServerError(msg) from problem
        if not isinstance(value, dict):
            msg = f"{self.url}{path} must be a JSON object, got {shorten(value)}: is this an OpenEnv server?"
            raise ToolServerError(msg)
        return cast("dict[str, Any]", value)

    def _hello(self) -> dict[str, Any]:
        try:
            answer = self.ask(**_HELLO)
        except WireError:  # it knows no such message
            return {}
        if answer.get("version") != BRANCHING:
            return {}
        return read_answer(About, answer, f"{self.url}: branching").model_dump(exclude_unset=True)

    def _list_tools(self) -> tuple[dict[str, Any], ...]:
        asked: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        answer = self._demand("mcp", asked)
        listed = read_answer(Tools, answer.get("result", answer), f"{self.url}: tools/list").tools
        return tuple(_schema(tool) for tool in listed)


def _is_full(answer: Mapping[str, Any]) -> bool:
    return answer.get("type") == "error" and _FULL in str(answer.get("data"))


def _schema(tool: Tool) -> dict[str, Any]:
    given = tool.parameters.model_dump(exclude_unset=True) if tool.parameters else {}
    parameters: dict[str, Any] = {"type": "object", "properties": {}, **given}
    function = {"name": tool.name, "description": tool.description or "", "parameters": parameters}
    return {"type": "function", "function": function}


def _seen(answer: Observed) -> dict[str, Any]:
    """Returns what the agent may see of an answer."""
    return {name: value for name, value in (answer.observation or {}).items() if name not in _ASIDE}


def _beside(answer: Observed) -> dict[str, Any]:
    return answer.metadata.model_dump(exclude_unset=True) if answer.metadata else {}
