"""What is wrong with a tool call that could not be read, and where: the words that an agent gets to see."""

import json
import re
from typing import cast

from agentenv.types import ToolCall, decode_json

__all__ = ["call_problem", "json_problem"]

_OPENING = re.compile(
    r"<tool_call>|<function=|\[TOOL_CALLS\]|<\|tool_call(?:s_section_begin|_begin|_start)?\|?>|<｜tool▁calls?▁begin｜>"
    r"|<start_function_call>|<(?:[\w|｜]+:|｜DSML｜)?invoke |<\|START_ACTION\|>|<\|python_tag\|>"
)
"""What opens a tool call in the formats of several models: where it is left in the text, the call was broken."""

_BARE = re.compile(r'\s*+\[?\s*+\{\s*"(?:name|type|function|tool_name)"\s*:')
"""How a message begins that is nothing but a call, as Llama 3 writes it."""

_HEAD = re.compile(
    r"(?>(?:<｜tool▁calls?▁begin｜>|<\|tool_call_begin\|>|<｜tool▁sep｜>|[\w.\-:])*)"
    r"(?:<\|tool_call_argument_begin\|>|\[(?:ARGS|CALL_ID)\]\w*+|```json|\s)*(?=[{\[])"
)
"""What may stand between an opening and the JSON of its call: names and marks."""

_PAIRS = (
    (re.compile(r"<function=([^<>\n]*)>"), "</function>"),
    (re.compile(r"<parameter=([^<>\n]*)>"), "</parameter>"),
    (re.compile(r"<arg_key>([^<]*)"), "</arg_key>"),
    (re.compile(r"<arg_value>([^<\n]{0,20})"), "</arg_value>"),
    (re.compile(r"<(?:[\w|｜]+:|｜DSML｜)?parameter name=\"([^\"]*)\""), "parameter>"),
    (re.compile(r"<(?:[\w|｜]+:|｜DSML｜)?invoke name=\"([^\"]*)\""), "invoke>"),
)
_UNREADABLE = "the tool call could not be read: is it complete?"
_AROUND = 24


def call_problem(text: str) -> str:
    """Says what is wrong with the first tool call that a text opens, and where; empty where it opens none.

    Args:
        text: what parsers left of a message: a call that stands in it was not read. Reasoning is no part of it.
    """
    opening = _OPENING.search(text)
    bare = _BARE.match(text) if opening is None else None
    if opening is None and bare is None:
        return ""
    start = 0 if opening is None else opening.start() if opening[0].startswith("<function") else opening.end()
    head = _HEAD.match(text, start)
    if head is None:
        return _tag_problem(text, start)
    if problem := json_problem(text, head.end()):
        return f"the tool call is not valid JSON: {problem}"
    if bare is not None:  # JSON, but no call: it may be an answer
        return ""
    value, end = decode_json(text, head.end())
    try:
        for entry in cast("list[object]", value) if isinstance(value, list) else [value]:
            ToolCall.parse(entry)
    except ValueError as error:
        return f"the tool call could not be read: {error}"
    rest = text[end:].lstrip()
    return f"{_UNREADABLE} After its JSON comes {_shown(rest)}" if rest else f"{_UNREADABLE} Nothing ends it"


def json_problem(text: str, start: int = 0) -> str:
    """Says why the JSON value that begins at `start` cannot be decoded, and where; empty where it can.

    Line and column are counted from `start`. Line breaks within strings are no problem, as in `decode_json`.
    """
    try:
        decode_json(text, start)
    except json.JSONDecodeError as error:
        before = text[start : error.pos]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return f"{error.msg.removesuffix(' at')} (line {line}, column {column}), it ends before it is complete"
        near = text[max(start, error.pos - _AROUND) : error.pos + _AROUND]
        return f"{error.msg} at line {line}, column {column}, near {_shown(near)}"
    except RecursionError:
        return "it is nested too deep"
    except ValueError as error:
        return str(error)
    return ""


def _tag_problem(text: str, start: int) -> str:
    """Names the first tag of a call in XML that nothing closes."""
    for opening, closing in _PAIRS:
        for tag in opening.finditer(text, start):
            following = opening.search(text, tag.end())
            if closing not in text[tag.end() : following.start() if following else None]:
                return f"{_UNREADABLE} {_shown(tag[0])} is never closed by {closing!r}"
    return f"{_UNREADABLE} It begins with {_shown(text[start:])}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 2 * _AROUND else text[: 2 * _AROUND] + "...")
