"""Messages of verifiers, either version, in OpenAI's format."""

import json
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["from_theirs"]


def from_theirs(message: Any) -> dict[str, Any]:
    """Returns a message of theirs, a model or a mapping, as OpenAI writes it; what is not set is left out."""
    given = cast("Mapping[str, Any]", message if isinstance(message, Mapping) else message.model_dump())
    said = {name: value for name, value in given.items() if value is not None}
    kept: dict[str, Any] = {"role": said["role"], "content": said.get("content", "")}
    kept |= {name: said[name] for name in ("tool_call_id", "name") if name in said}
    if reasoning := said.get("reasoning_content"):
        kept["reasoning"] = reasoning
    if said.get("tool_calls"):
        kept["tool_calls"] = [_call(call) for call in said["tool_calls"]]
    return kept


def _call(given: Mapping[str, Any] | str) -> dict[str, Any]:
    call = json.loads(given) if isinstance(given, str) else given  # their outputs have calls as text
    function = call.get("function") or {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call.get("id") or "", "type": "function", "function": dict(function)}
