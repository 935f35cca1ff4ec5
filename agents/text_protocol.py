"""Tools for a model whose chat template knows none: schemas, calls and answers as plain text of ordinary messages."""

import json
from collections.abc import Sequence
from typing import Any

from agentenv.types import Message, ToolCall, ToolSchema, message_reasoning, message_text

__all__ = ["fold_system", "write_as_text"]

_INTRODUCTION = """\
You can call tools. To call one, write, anywhere in your message,
<tool_call>
{"name": <the tool's name>, "arguments": <its arguments as a JSON object>}
</tool_call>
and end the message. You may make several calls. The answers come in <tool_response></tool_response>.
The tools, one per line:
"""


def write_as_text(messages: Sequence[Message], tools: Sequence[ToolSchema]) -> list[Message]:
    """Returns a conversation without tool calls, tool messages or two users in a row, that says the same.

    The schemas come before what the system message says; a call is Hermes' `<tool_call>`, which the parser `tool_call`
    reads; answers of tools are the user's, in `<tool_response>`.

    Args:
        messages: the conversation, or a later part of it.
        tools: introduced in the system message; none introduces nothing.
    """
    written: list[Message] = []
    if tools:
        schemas = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
        written.append({"role": "system", "content": _INTRODUCTION + schemas})
    for message in messages:
        plain: Message = _plain(message)
        if written and plain["role"] == written[-1]["role"] != "assistant":
            joint = "\n\n" if plain["role"] == "system" else "\n"
            plain["content"] = f"{message_text(written.pop())}{joint}{message_text(plain)}"
        written.append(plain)
    return written


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Puts what a first system message says before the first user's words, for templates that know no such role."""
    if not messages or messages[0]["role"] not in {"system", "developer"}:
        return list(messages)
    said, rest = message_text(messages[0]), list(messages[1:])
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{said}\n\n{message_text(rest[0])}"}, *rest[1:]]
    return [{"role": "user", "content": said}, *rest]


def _plain(message: Message) -> Message:
    """Returns one message as one of the three roles that every template knows, its content as text."""
    role, text = message["role"], message_text(message)
    if role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}
    calls = [_written(ToolCall.parse(call)) for call in message.get("tool_calls", ())]
    plain: Message = {"role": role, "content": "\n".join(filter(None, [text, *calls]))}
    if reasoning := message_reasoning(message):
        plain["reasoning"] = reasoning
    return plain


def _written(call: ToolCall) -> str:
    arguments: Any = call.arguments
    body = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {body}}}\n</tool_call>'
