"""`OpenEnvEnv`: an environment behind an OpenEnv server, as one of ours."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from typing_extensions import override

from agentenv.env import Reply
from agentenv.errors import SnapshotError, TaskError, ToolError
from agentenv.jsonable import json_text, json_value
from agentenv.protocols import Snapshot
from agentenv.replay import Event, ReplayEnv, ReplayState
from agentenv.rows import is_mapping, shorten
from agentenv.types import Action, Message, ToolSchema

from .openenv_client import Remote
from .openenv_wire import WireError

__all__ = ["OpenEnvEnv"]


class OpenEnvState(ReplayState):
    """How the episode came to be where it is.

    Attributes:
        at: the server's name for a snapshot of this state, where one was taken.
        task_id: what the server calls the task.
        signature: what the server says that the state's is; empty where it says none.
    """

    at: str = ""
    task_id: str = ""
    signature: str = ""


class _Words:
    """Between messages and what a server's actions and observations are."""

    def tools(self, env: Any, /) -> tuple[ToolSchema, ...]:
        remote = cast("Remote", env)
        if remote.kind != "fields":
            return remote.tools
        properties = {n: p for n, p in remote.schema.get("properties", {}).items() if n != "metadata"}
        parameters = {**remote.schema, "properties": properties}
        function = {"name": "act", "description": remote.schema.get("description") or "Take one action.",
                    "parameters": parameters}  # fmt: skip
        return ({"type": "function", "function": function},)

    def read_action(self, action: Action, env: Any, /) -> Any:
        remote = cast("Remote", env)
        if remote.kind == "chat":
            return {name: value for name, value in action.to_message().items() if name != "role"}
        names = [tool["function"]["name"] for tool in self.tools(remote)]
        if len(action.tool_calls) != 1 or action.tool_calls[0].name not in names:
            got = ", ".join(call.name for call in action.tool_calls) or "none"
            msg = f"call one tool, once, of {', '.join(names)}; got {got}"
            raise ToolError(msg)
        call = action.tool_calls[0]
        if isinstance(call.arguments, str):
            msg = f"arguments of {call.name} must be a JSON object, got {shorten(call.arguments)}"
            raise ToolError(msg)
        if remote.kind == "fields":
            return call.arguments
        return {"type": "call_tool", "tool_name": call.name, "arguments": call.arguments}

    def write_observation(self, observation: Any, env: Any, /, *, first: bool) -> str | Message:
        del env, first
        shown = cast("Mapping[str, Any]", observation)
        if _are_messages(shown.get("messages")):
            return shown["messages"]
        if shown.get("error"):
            return f"error: {json_text(shown['error'])}"
        return _result_text(shown["result"]) if shown.get("result") is not None else json_text(shown)


class OpenEnvEnv(ReplayEnv):
    """An environment behind an OpenEnv server, branching by state where the server offers it, else by replay.

    Where actions are assistant messages (as those of our server), messages pass as they are. Where they are calls of
    tools, the agent has the server's tools. Otherwise it has one tool, `act`, with the fields of the server's action;
    an action that the server refuses as wrong is a mistake of the agent's. Observations that are no messages are JSON.

    A server with our extension keeps snapshots, and going back costs one message. Where it has dropped one, and at all
    other servers, the environment goes back by `reset` with the same seed and the same actions, as `ReplayEnv` does,
    and compares.

    Args:
        url: of the server, e.g. `http://127.0.0.1:8000`. Each environment has a connection and session of its own.
        timeout_s: seconds to wait for an answer.
        headers: of every request.
        options: of `ReplayEnv`. A task is what the server's `reset` takes as `task` (ours), or a mapping of further
            arguments of its `reset`.

    Raises:
        ToolServerError: the server does not answer, or not as OpenEnv's servers do.
    """

    name = "agentenv/OpenEnv"
    State = OpenEnvState
    state: OpenEnvState

    def __init__(
        self, url: str, *, timeout_s: float = 60.0, headers: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        make = partial(Remote, url, timeout_s=timeout_s, headers=headers)
        super().__init__(cast("Any", make), adapter=_Words(), **options)
        about = self.remote.branching
        self._branches = bool(about)
        self._chat = self.remote.kind == "chat"
        self._id = str(about.get("env_id") or self._name())
        self._action_signature = ""
        if about.get("success_threshold") is not None and options.get("success_threshold") is None:
            self.success_threshold = float(about["success_threshold"])

    def _name(self) -> str:
        about = self.remote.about
        name = str(about.get("name") or "environment")
        return name if name.rpartition("-v")[2].isdigit() else f"{name}-v0"

    @property
    def remote(self) -> Remote:
        """The connection."""
        return cast("Remote", self.inside)

    @property
    @override
    def env_id(self) -> str:
        """`openenv/` and what the server calls its environment."""
        return f"openenv/{self._id}"

    @property
    @override
    def task_id(self) -> str:
        """Names the episode's task, as the server does where it does."""
        return self.state.task_id or super().task_id

    @override
    def start(self, task: Any) -> Reply:
        reply = super().start(task)
        self._note(self._info)
        self.state.task_id = str(self._info.get("task_id") or "")
        return reply

    @override
    def respond(self, action: Action) -> Reply:
        try:
            return super().respond(action)
        except WireError as problem:
            self._live = self.state.events  # what is refused is no step
            return self.note_mistake(f"the action was refused: {problem}")

    @override
    def state_signature(self) -> str:
        """Returns the server's signature of the state; of everything since reset where it gives none."""
        return self.state.signature or super().state_signature()

    @override
    def action_signature(self, action: Action, /) -> str:
        return self._action_signature or super().action_signature(action)

    @override
    def _reset_inside(self, seed: int, task: Any) -> tuple[Event, Any]:
        if self._chat:
            task = None if task is None else {"task": json_value(task)}
        elif task is not None and not isinstance(task, Mapping):
            msg = f"options['task'] must be a mapping of arguments of the server's reset, got {shorten(task)}"
            raise TaskError(msg)
        try:
            return super()._reset_inside(seed, task)
        except WireError as problem:
            msg = f"the OpenEnv server {self.remote.url} refused to reset: {problem}"
            raise TaskError(msg) from problem

    @override
    def _take_over(self, reward: float, info: dict[str, Any]) -> None:
        super()._take_over(reward, self._note(info))
        if "rewards" in info:
            self._rewards = dict(self._info["rewards"])
        self._mistakes = list(self._info.get("mistakes", ()))

    def _note(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Keeps the signatures, and returns what else a server says beside an observation."""
        self.state.signature = str(metadata.get("state_signature") or "")
        self._action_signature = str(metadata.get("action_signature") or "")
        self._info = {name: value for name, value in metadata.items() if name not in _NOT_SHOWN}
        return self._info

    @override
    def _went(self, event: Event) -> None:
        super()._went(event)
        self.state.at = ""

    @override
    def _reseed_inside(self, seed: int) -> None:
        if self._branches:
            self.remote.reseed(seed)

    # ------------------------------------------------------------------ going back

    @override
    def _snapshot(self, *, with_sandbox: bool) -> Snapshot:
        if self._branches and self._live and not self.state.at and self._phase in {"running", "ended"}:
            self.state.at = self.remote.snapshot()
        return super()._snapshot(with_sandbox=with_sandbox)

    @override
    def _go_to(self, target: ReplayState) -> None:
        at = cast("OpenEnvState", target).at
        if not at:
            super()._go_to(target)
            return
        self._live = ()
        try:
            self.remote.restore(at)
        except SnapshotError:  # the server dropped it for newer ones
            cast("OpenEnvState", target).at = ""
            super()._go_to(target)
        self._live = target.events


_NOT_SHOWN = {"state_signature", "action_signature", "terminated", "truncated"}


def _are_messages(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(
        is_mapping(one) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str | list)
        for one in cast("list[Any]", value)
    )


def _result_text(result: Any) -> str:
    """Returns what a tool answered: text, the text of MCP's content, or JSON."""
    found: Any = result
    if isinstance(result, Mapping):
        answer = cast("Mapping[str, Any]", result)
        content = answer.get("content")
        if isinstance(content, list):
            parts = [part for part in cast("list[Any]", content) if is_mapping(part)]
            texts = [str(part["text"]) for part in parts if part.get("type") == "text" and "text" in part]
            if texts and len(texts) == len(parts):
                return "\n".join(texts)
        found = answer.get("data", answer)
    return found if isinstance(found, str) else json_text(found)
