"""What an OpenEnv server and its clients send each other: names of messages, codes of errors, schemas of values.

Messages are JSON objects with `type` and, mostly, `data`. Beside OpenEnv's own (`reset`, `step`, `state`, `mcp`,
`close`) there is our extension, `branching`, `snapshot`, `restore`, `fork`, `reseed` and `release`; docs/interop.md has
it in full. A server that lacks it answers each of these with an error of code `UNKNOWN_TYPE`, as it does any message
that it does not know.
"""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ACTION_SCHEMA",
    "BRANCHING",
    "OBSERVATION_SCHEMA",
    "STATE_SCHEMA",
    "WireError",
    "error_message",
    "is_chat_schema",
    "is_tool_schema",
]

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


def is_chat_schema(schema: Mapping[str, Any]) -> bool:
    """Whether actions are assistant messages, as ours are."""
    return {"content", "tool_calls"} <= set(schema.get("properties") or ())


def is_tool_schema(schema: Mapping[str, Any]) -> bool:
    """Whether actions are calls of tools, as those of OpenEnv's environments for MCP are."""
    return {"tool_name", "arguments"} <= set(schema.get("properties") or ())
