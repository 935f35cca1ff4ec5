"""One episode that an OpenEnv server keeps for a client, and the book of all of them."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, cast
from uuid import uuid4

from agentenv.arrays import check_count
from agentenv.env import Env
from agentenv.errors import AgentEnvError, SnapshotError, TaskError
from agentenv.jsonable import json_value
from agentenv.protocols import Snapshot, Transition
from agentenv.rows import shorten
from agentenv.types import Action, Message, Observation, ToolCall, message_text

from .openenv_wire import BRANCHING, WireError

__all__ = ["Book", "Session", "rpc_params"]

_RESET = {"seed", "episode_id", "task"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an episode is, as its client sees it."""

    episode_id: str | None = None
    step_count: int = 0
    observation: Observation = ()
    ended: bool = False


class Session:
    """An environment of its own for one client. Every method may be called from any thread, one at a time.

    Args:
        env: the environment; closed with the session.
        book: where its snapshots are kept, and its forks are opened.

    Attributes:
        id: opens it to whoever knows it.
        attached: whether a client is connected to it.
        stays: whether it outlives that connection, as forks and sessions do that were opened by a single request.
    """

    def __init__(self, env: Env, book: "Book") -> None:
        self.id = secrets.token_urlsafe(16)
        self.lock = RLock()
        self.last_used = time.monotonic()
        self.attached = False
        self.stays = False
        self.env = env
        self._book = book
        self._signatures = False
        self._place = Place()

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the answer to one message.

        Raises:
            WireError: the message is refused, or the environment failed.
        """
        kind, data = message.get("type"), message.get("data", {})
        if not isinstance(data, Mapping):
            msg = f"data of {kind!r} must be an object, got {shorten(data)}"
            raise WireError(msg, "VALIDATION_ERROR")
        methods = _OWN | (_EXTENSION if self._book.branching else {})
        if not isinstance(kind, str) or kind not in methods:
            msg = f"Unknown message type: {kind!r}; there are {', '.join(methods)}"
            raise WireError(msg, "UNKNOWN_TYPE")
        with self.lock:
            self.last_used = time.monotonic()
            try:
                return methods[kind](self, cast("Mapping[str, Any]", data))
            except WireError:
                raise
            except AgentEnvError as problem:
                raise WireError(str(problem), "EXECUTION_ERROR", type(problem).__name__) from problem
            except Exception as problem:  # a bug of the environment: the client is told, and others go on
                msg = f"{type(problem).__name__}: {problem}"
                raise WireError(msg, "EXECUTION_ERROR", type(problem).__name__) from problem

    def close(self) -> None:
        """Closes the environment."""
        with self.lock:
            self.env.close()

    # ------------------------------------------------------------------ OpenEnv's messages

    def reset(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Starts an episode: `seed`, `episode_id`, and `task` as our own `reset` takes it."""
        if unknown := set(data) - _RESET:
            msg = f"reset takes {', '.join(sorted(_RESET))}, got {sorted(unknown)}"
            raise WireError(msg, "VALIDATION_ERROR")
        seed = _integer(data["seed"], "seed") if data.get("seed") is not None else None
        episode_id = data.get("episode_id") or str(uuid4())
        if not isinstance(episode_id, str):
            msg = f"episode_id must be text, got {shorten(episode_id)}"
            raise WireError(msg, "VALIDATION_ERROR")
        options = None if data.get("task") is None else {"task": data["task"]}
        try:
            begun = self._begin(seed, options)
        except TaskError as problem:
            if options is None:  # one of the environment's own
                raise
            raise WireError(str(problem), "VALIDATION_ERROR", "TaskError") from problem
        self._place = Place(episode_id, 0, begun.observation)
        return _observed(_messages(begun.observation), None, False, self._metadata(begun))

    def step(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Takes one action, or lists the tools where it asks for them."""
        action = _read_action(data)
        if action is None:
            tools = [_listed(tool, "input_schema") for tool in self.env.tools]
            return _observed({"messages": [], "tools": tools}, None, self._place.ended, {})
        taken = self._take(action)
        shown = _messages(taken.observation)
        if data.get("type") == "call_tool":
            shown |= {"tool_name": data["tool_name"], "result": _texts(taken.observation)}
        return _observed(shown, float(taken.reward), taken.ended, self._metadata(taken))

    def state(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Returns which episode it is, and how many steps it has."""
        return {"type": "state", "data": {"episode_id": self._place.episode_id, "step_count": self._place.step_count}}

    def mcp(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Answers a request of JSON-RPC as a message."""
        return {"type": "mcp", "data": self.call_rpc(data)}

    def call_rpc(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answers a request of JSON-RPC: `tools/list`, or `tools/call`, which is a step."""
        name: str = str(request.get("method"))
        params = rpc_params(request)
        if name == "tools/list":
            return _rpc(request, result={"tools": [_listed(tool, "inputSchema") for tool in self.env.tools]})
        if name != "tools/call":
            return _rpc(request, error={"code": -32601, "message": f"there is no method {name!r}"})
        try:
            call = {"name": params.get("name"), "arguments": params.get("arguments", {})}
            taken = self._take(Action(tool_calls=(ToolCall.parse(call),)))
        except (AgentEnvError, ValueError) as problem:
            return _rpc(request, error={"code": -32603, "message": f"{type(problem).__name__}: {problem}"})
        text = _texts(taken.observation)
        result = {
            "content": [{"type": "text", "text": text}],
            "isError": bool(taken.info.get("mistakes")),
            "data": text,
        }
        return _rpc(request, result=result)

    # ------------------------------------------------------------------ the extension

    def hello(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Says what the extension is here; `signatures` wants those of states and actions with every answer."""
        self._signatures = bool(data.get("signatures", False))
        about = {
            "version": BRANCHING,
            "session_id": self.id,
            "env_id": self.env.env_id,
            "success_threshold": self.env.success_threshold,
        }
        return {"type": "branching", "data": about}

    def snapshot(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps the state of the episode."""
        kept = self._book.keep(self.env.snapshot(), self._place)
        return {"type": "snapshot", "data": {"snapshot_id": kept, "step_count": self._place.step_count}}

    def restore(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Goes back to a snapshot, of this session or any other."""
        snapshot, place = self._book.kept(data.get("snapshot_id"))
        self.env.restore(snapshot)
        self._place = place
        metadata: dict[str, Any] = {"step_count": place.step_count}
        if self._signatures:
            metadata["state_signature"] = self.env.state_signature()
        return _observed(_messages(place.observation), None, place.ended, metadata)

    def fork(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Opens `n` sessions in the state of this one, which goes on untouched."""
        count = _integer(data.get("n", 1), "n")
        self._book.check_room(count)
        envs = self.env.fork(count)
        children = [self._book.open(env) for env in envs]
        for child in children:
            child.stays, child._place, child._signatures = True, self._place, self._signatures
        return {"type": "fork", "data": {"session_ids": [child.id for child in children]}}

    def reseed(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Gives the rest of the episode other random numbers."""
        self.env.reseed(_integer(data.get("seed"), "seed"))
        return {"type": "reseed", "data": {}}

    def release(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Drops a snapshot."""
        self._book.release(data.get("snapshot_id"))
        return {"type": "release", "data": {}}

    # ------------------------------------------------------------------ inside

    def _begin(self, seed: int | None, options: dict[str, Any] | None) -> Transition:
        if self._signatures:
            return self.env.begin(seed=seed, options=options, snapshot=False)
        observation, info = self.env.reset(seed=seed, options=options)
        return Transition(observation, info=info)

    def _take(self, action: Action) -> Transition:
        taken = self.env.advance(action) if self._signatures else Transition(*self.env.step(action))
        before = self._place
        self._place = Place(before.episode_id, before.step_count + 1, taken.observation, taken.ended)
        return taken

    def _metadata(self, after: Transition) -> dict[str, Any]:
        metadata = dict(json_value(dict(after.info)))
        if after.ended:
            metadata |= {"terminated": bool(after.terminated), "truncated": bool(after.truncated)}
        if self._signatures:
            metadata |= {"state_signature": after.state_signature, "action_signature": after.action_signature}
        return metadata


Handler = Callable[[Session, Mapping[str, Any]], dict[str, Any]]

_OWN: dict[str, Handler] = {
    "reset": Session.reset,
    "step": Session.step,
    "state": Session.state,
    "mcp": Session.mcp,
}
_EXTENSION: dict[str, Handler] = {
    "branching": Session.hello,
    "snapshot": Session.snapshot,
    "restore": Session.restore,
    "fork": Session.fork,
    "reseed": Session.reseed,
    "release": Session.release,
}


@dataclass
class Book:
    """The sessions and the snapshots of a server.

    Attributes:
        make_env: returns a new environment.
        branching: whether the extension is offered.
        max_sessions: most sessions at once.
        max_snapshots: most snapshots; the one that was not used for longest is dropped for a new one.
        idle_seconds: a session that no client has been connected to for so long is closed.
    """

    make_env: Callable[[], Env]
    branching: bool = True
    max_sessions: int = 64
    max_snapshots: int = 4096
    idle_seconds: float = 600.0
    sessions: dict[str, Session] = field(default_factory=dict[str, Session])
    _snapshots: OrderedDict[str, tuple[Snapshot, Place]] = field(default_factory=OrderedDict[str, Any])
    _lock: Any = field(default_factory=RLock)

    def __post_init__(self) -> None:
        for name in ("max_sessions", "max_snapshots"):
            check_count(name, getattr(self, name), least=1)

    def open(self, env: Env | None = None) -> Session:
        """Opens a session, around an environment that is there or a new one.

        Raises:
            WireError: there are too many, or no environment can be made.
        """
        if env is None:
            self.check_room(1)
        try:
            session = Session(self.make_env() if env is None else env, self)
        except Exception as problem:
            msg = f"no environment could be made: {type(problem).__name__}: {problem}"
            raise WireError(msg, "FACTORY_ERROR", type(problem).__name__) from problem
        with self._lock:
            self.sessions[session.id] = session
        return session

    def check_room(self, count: int) -> None:
        """Raises where so many more sessions would be too many; closes those that nobody came back to first."""
        self.sweep()
        if len(self.sessions) + count > self.max_sessions:
            there = len(self.sessions)
            msg = f"there are {there} sessions, of at most {self.max_sessions}, and {count} more were asked for"
            raise WireError(msg, "CAPACITY_REACHED")

    def find(self, session_id: Any) -> Session:
        """Returns a session that is there."""
        with self._lock:
            if not isinstance(session_id, str) or session_id not in self.sessions:
                msg = f"the session {session_id!r} is not there: it was closed, or never opened"
                raise WireError(msg, "SESSION_ERROR")
            return self.sessions[session_id]

    def attach(self, session_id: str) -> Session:
        """Returns a session that is there, for one client at a time."""
        with self._lock:
            session = self.find(session_id)
            if session.attached:
                msg = f"the session {session_id!r} has a client already"
                raise WireError(msg, "SESSION_ERROR")
            session.attached = True
            return session

    def detach(self, session: Session) -> None:
        """Closes a session whose client is gone, unless it stays."""
        session.attached, session.last_used = False, time.monotonic()
        if not session.stays:
            self.end(session)

    def end(self, session: Session) -> None:
        """Closes a session."""
        with self._lock:
            self.sessions.pop(session.id, None)
        session.close()

    def sweep(self) -> None:
        """Closes the sessions that no client came back to in time."""
        since = time.monotonic() - self.idle_seconds
        with self._lock:
            late = [one for one in self.sessions.values() if not one.attached and one.last_used < since]
        for session in late:
            self.end(session)

    def close(self) -> None:
        """Closes all sessions and drops all snapshots."""
        for session in list(self.sessions.values()):
            self.end(session)
        self._snapshots.clear()

    # ------------------------------------------------------------------ snapshots

    def keep(self, snapshot: Snapshot, place: Place) -> str:
        """Keeps a snapshot; returns its id, which opens it to whoever knows it."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            while len(self._snapshots) >= self.max_snapshots:
                self._snapshots.popitem(last=False)
            self._snapshots[name] = (snapshot, place)
        return name

    def kept(self, name: Any) -> tuple[Snapshot, Place]:
        """Returns a snapshot and where the episode was.

        Raises:
            SnapshotError: it is not there.
        """
        with self._lock:
            if not isinstance(name, str) or name not in self._snapshots:
                msg = f"there is no snapshot {shorten(name)}: it was released, or dropped for newer ones"
                raise SnapshotError(msg)
            self._snapshots.move_to_end(name)
            return self._snapshots[name]

    def release(self, name: Any) -> None:
        """Drops a snapshot; does nothing where it is not there."""
        with self._lock:
            self._snapshots.pop(str(name), None)


def _read_action(data: Mapping[str, Any]) -> Action | None:
    """Returns the action of a message; `None` where it asks for the tools.

    Raises:
        WireError: there is none in it.
    """
    try:
        return _parse_action(data)
    except ValueError as problem:
        raise WireError(str(problem), "VALIDATION_ERROR", "ValueError") from problem


def _parse_action(data: Mapping[str, Any]) -> Action | None:
    kind = data.get("type", "message")
    if kind == "list_tools":
        return None
    if kind == "call_tool":
        call = {"name": data.get("tool_name"), "arguments": data.get("arguments", {})}
        return Action(tool_calls=(ToolCall.parse(call),))
    words = {name: value for name, value in data.items() if name not in _ASIDE}
    if kind != "message" or set(words) - _WORDS:
        got = repr(kind) if kind != "message" else str(sorted(set(words) - _WORDS))
        msg = f"an action has content, tool_calls and reasoning, or is of type 'call_tool' or 'list_tools'; got {got}"
        raise WireError(msg, "VALIDATION_ERROR")
    return Action.parse({"role": "assistant", "content": "", **words})


_WORDS = {"content", "tool_calls", "reasoning"}
_ASIDE = {"metadata", "type", "role"}


def _observed(
    observation: dict[str, Any], reward: float | None, done: bool, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    shown = {**observation, "metadata": metadata}
    return {"type": "observation", "data": {"observation": shown, "reward": reward, "done": done, "metadata": metadata}}


def _messages(observation: Sequence[Message]) -> dict[str, Any]:
    return {"messages": [dict(message) for message in observation]}


def _texts(observation: Sequence[Message]) -> str:
    return "\n".join(message_text(message) for message in observation)


def _listed(tool: Mapping[str, Any], schema: str) -> dict[str, Any]:
    function = tool["function"]
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        schema: function.get("parameters") or {"type": "object", "properties": {}},
    }


def _rpc(request: Mapping[str, Any], **answer: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request.get("id"), **answer}


def rpc_params(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the parameters of a request of JSON-RPC; raises `WireError` where they are no object."""
    params: Any = request.get("params") or {}
    if not isinstance(params, Mapping):
        msg = f"params must be an object, got {shorten(params)}"
        raise WireError(msg, "VALIDATION_ERROR")
    return cast("Mapping[str, Any]", params)


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        msg = f"{name} must be an integer of at least 0, got {shorten(value)}"
        raise WireError(msg, "VALIDATION_ERROR")
    return value
