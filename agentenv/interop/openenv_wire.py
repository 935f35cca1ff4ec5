"""What an OpenEnv server and its clients send each other: names of messages, codes of errors, schemas of values.

Messages are JSON objects with `type` and, mostly, `data`. Beside OpenEnv's own (`reset`, `step`, `state`, `mcp`,
`close`) there is our extension, `branching`, `snapshot`, `restore`, `fork`, `reseed` and `release`; docs/interop.md has
it in full. A server that lacks it answers each of these with an error of code `UNKNOWN_TYPE`, as it does any message
that it does not know.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from agentenv.errors import ToolServerError
from agentenv.rows import shorten

__all__ = [
    "ACTION_SCHEMA",
    "BRANCHING",
    "MAX_MESSAGE_BYTES",
    "OBSERVATION_SCHEMA",
    "STATE_SCHEMA",
    "About",
    "ActionSchema",
    "Kept",
    "Observed",
    "Tool",
    "Tools",
    "WireError",
    "error_message",
    "is_chat_schema",
    "is_tool_schema",
    "read_answer",
]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
BRANCHING = 1
"""The version of the extension that is spoken here."""

_METADATA = {"type": "object", "additionalProperties": True}
_OBJECT = {"type": "object", "additionalProperties": True}

ACTION_SCHEMA: dict[str, Any] = {
    "title": "ChatAction",
    "type": "object",
    "description": "An assistant message in OpenAI's format, or the call of a tool (`type`, `tool_name`, `arguments`).",
    "properties": {
        "content": {"type": "string", "default": ""},
        "tool_calls": {"type": "array", "items": _OBJECT, "default": []},
        "reasoning": {"type": "string", "default": ""},
        "type": {"type": "string", "enum": ["message", "call_tool", "list_tools"], "default": "message"},
        "tool_name": {"type": "string"},
        "arguments": _OBJECT,
        "metadata": _METADATA,
    },
    "additionalProperties": False,
}
"""An action of ours as OpenEnv's `/schema` declares it. The second form is that of OpenEnv's clients for tools."""

OBSERVATION_SCHEMA: dict[str, Any] = {
    "title": "ChatObservation",
    "type": "object",
    "description": "The messages that are new since the last action, in OpenAI's format.",
    "properties": {
        "done": {"type": "boolean", "default": False},
        "reward": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "metadata": _METADATA,
        "messages": {"type": "array", "items": _OBJECT, "default": []},
        "tools": {"type": "array", "items": _OBJECT, "description": "After list_tools: what may be called."},
        "tool_name": {"type": "string", "description": "After call_tool: what was called."},
        "result": {"type": "string", "description": "After call_tool: what it answered."},
    },
    "additionalProperties": False,
}

STATE_SCHEMA: dict[str, Any] = {
    "title": "EpisodeState",
    "type": "object",
    "properties": {
        "episode_id": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "step_count": {"type": "integer", "minimum": 0, "default": 0},
    },
    "additionalProperties": True,
}


class WireError(Exception):
    """A message that is refused, or a refusal that was received.

    Attributes:
        code: `INVALID_JSON`, `UNKNOWN_TYPE`, `VALIDATION_ERROR`, `EXECUTION_ERROR`, `CAPACITY_REACHED`,
            `FACTORY_ERROR` or `SESSION_ERROR`, OpenEnv's codes.
        kind: the name of the exception behind it, where the server says it.
    """

    def __init__(self, message: str, code: str, kind: str = "") -> None:
        super().__init__(message, code, kind)
        self.message, self.code, self.kind = message, code, kind

    def __str__(self) -> str:
        return self.message


def error_message(problem: WireError) -> dict[str, Any]:
    """Returns an error as a message."""
    kind = {"kind": problem.kind} if problem.kind else {}
    return {"type": "error", "data": {"message": problem.message, "code": problem.code, **kind}}


# ---------------------------------------------------------------------- what a server may answer


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


_Number = Annotated[float, Field(allow_inf_nan=False)]


class Metadata(_Open):
    """What is said beside an observation; a server of ours says more than others."""

    rewards: dict[str, _Number] = {}
    mistakes: list[str] = []
    truncated: bool = False


class Observed(_Open):
    """The data of an `observation` message."""

    observation: dict[str, Any] | None = None
    reward: _Number | None = None
    done: bool | None = None
    metadata: Metadata | None = None


class About(_Open):
    """The data of a `branching` message."""

    version: Any = None
    env_id: str = ""
    success_threshold: _Number | None = None


class Kept(_Open):
    """The data of a `snapshot` message."""

    snapshot_id: str


class ActionSchema(_Open):
    """The JSON schema of an action."""

    description: str | None = None
    properties: dict[str, dict[str, Any]] = {}


class Tool(_Open):
    """A tool as MCP lists it."""

    name: str
    description: str | None = None
    parameters: ActionSchema | None = Field(None, validation_alias=AliasChoices("inputSchema", "input_schema"))


class Tools(_Open):
    """The result of `tools/list`."""

    tools: list[Tool]


_Model = TypeVar("_Model", bound=BaseModel)


def read_answer(model: type[_Model], value: Any, who: str) -> _Model:
    """Returns what a server answered, read.

    Args:
        model: what it must be.
        value: what it is.
        who: server and request, for the message.

    Raises:
        ToolServerError: it is something else.
    """
    try:
        return model.model_validate(value)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        msg = f"{who} answers what OpenEnv's servers do not: {where}: {first['msg']}, got {shorten(first['input'])}"
        raise ToolServerError(msg) from problem


def is_chat_schema(schema: Mapping[str, Any]) -> bool:
    """Whether actions are assistant messages, as ours are."""
    return {"content", "tool_calls"} <= set(schema.get("properties") or ())


def is_tool_schema(schema: Mapping[str, Any]) -> bool:
    """Whether actions are calls of tools, as those of OpenEnv's environments for MCP are."""
    return {"tool_name", "arguments"} <= set(schema.get("properties") or ())
