"""What models write, read as actions: one small parser per family of tool-call formats.

Every parser takes the text of one message and the tools, and keeps reasoning apart: nothing in it is ever a call.
`ChatFormat` chooses the parser that reads back what the tokenizer's own chat template writes, so a family need not be
known by name. Where a format has no quotes for text (the XML ones), the tool's schema says what is a number.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from agentenv.types import Action, Found, ToolCall, ToolSchema, decode_json, parse_text, scan_text

from .python_calls import BROKEN, parse_python, read_python

__all__ = ["PARSERS", "Parser"]

Parser = Callable[[str, Sequence[ToolSchema]], Action]
"""Reads the text of one message, special tokens included but for the one that ended it. It begins with `<think>` where
the chat template had opened that. Returns content, reasoning and tool calls."""

Reader = Callable[[re.Match[str]], Found | None]


def _numbered(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(replace(call, id=f"call_{i}") for i, call in enumerate(calls))


# ---------------------------------------------------------------------- JSON after a tag


def _json_calls(value: object) -> list[ToolCall]:
    """Reads a decoded call, or a list of them, under any of the usual keys."""
    entries: list[Any] = value if isinstance(value, list) else [value]
    return [
        ToolCall.parse({"name": entry["tool_name"], **entry} if "tool_name" in entry else entry) for entry in entries
    ]


def _read_json(closing: re.Pattern[str], tag: re.Match[str]) -> Found | None:
    """Reads JSON after a tag: arguments where the tag names the tool, otherwise a call or a list of calls."""
    try:
        value, end = decode_json(tag.string, tag.end())
        name = tag.groupdict().get("name")
        calls = _json_calls(value) if name is None else [ToolCall.parse({"name": name, "arguments": value})]
    except BROKEN:
        return None
    close = closing.match(tag.string, end)
    return (calls, close.end()) if calls and close else None


def _tagged(
    opening: str, closing: str, *, thought: tuple[str, str] = ("<think>", "</think>"), dropped: str = ""
) -> Parser:
    """Returns a parser of JSON between tags; `dropped` is a pattern of marks that are no content."""
    close = re.compile(rf"\s*(?:{closing}|\Z|(?={opening}))")

    def parse(text: str, _: Sequence[ToolSchema]) -> Action:
        action = scan_text(text, opening, partial(_read_json, close), thought=thought)
        return replace(action, content=re.sub(dropped, "", action.content).strip()) if dropped else action

    return parse


# ---------------------------------------------------------------------- <tool_call>: JSON, Qwen's XML, GLM's pairs

_XML_NAME = re.compile(r"\s*<function=(?P<name>[^<>\n]+)>\s*")
_XML_VALUE = re.compile(
    r"<parameter=([^<>\n]+)>\n?(.*?)\n?</parameter>\s*(?=<parameter=[^<>\n]+>|</function>)", re.DOTALL
)
_XML_END = re.compile(r"</function>\s*(?:</tool_call>|\Z|(?=<tool_call>|<function=))")
_GLM_NAME = re.compile(r"\s*(?P<name>[^\s<{\[]+)\s*(?=<arg_key>|</tool_call>)")
_GLM_VALUE = re.compile(
    r"<arg_key>([^<]+)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*(?=<arg_key>|</tool_call>|\Z)", re.DOTALL
)
_TOOL_CALL_END = re.compile(r"\s*(?:</tool_call>|\Z|(?=<tool_call>))")


def _parse_tool_call_tag(text: str, tools: Sequence[ToolSchema]) -> Action:
    def read(tag: re.Match[str]) -> Found | None:
        start = tag.end() if tag[0] == "<tool_call>" else tag.start()
        found = _read_pairs(text, _XML_NAME.match(text, start), _XML_VALUE, _XML_END, tools)
        if found is not None or tag[0] != "<tool_call>":
            return found
        found = _read_json(_TOOL_CALL_END, tag)
        return found or _read_pairs(text, _GLM_NAME.match(text, start), _GLM_VALUE, _TOOL_CALL_END, tools)

    return scan_text(text, r"<tool_call>|<function=", read)


def _read_pairs(
    text: str,
    name: re.Match[str] | None,
    pairing: re.Pattern[str],
    ending: re.Pattern[str],
    tools: Sequence[ToolSchema],
) -> Found | None:
    """Reads, after a name, any number of keys with values, and an end."""
    if name is None:
        return None
    position, values = name.end(), dict[str, str]()
    while (pair := pairing.match(text, position)) is not None:
        values[pair[1].strip()] = pair[2]
        position = pair.end()
    end = ending.match(text, position)
    return None if end is None else ([_typed_call(name["name"].strip(), values, tools)], end.end())


def _typed_call(name: str, values: Mapping[str, str], tools: Sequence[ToolSchema]) -> ToolCall:
    """Gives the values of a call, which came as plain text, the types that the tool's schema declares."""
    schema = next((tool["function"] for tool in tools if tool["function"].get("name") == name), {})
    properties = cast("dict[str, Any]", (schema.get("parameters") or {}).get("properties") or {})
    return ToolCall(name, {key: _typed(text, _types(properties.get(key, {}))) for key, text in values.items()})


def _types(schema: Mapping[str, Any]) -> set[str]:
    declared: Any = schema.get("type") or ()
    found = {declared} if isinstance(declared, str) else set(cast("Iterable[str]", declared))
    for key in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(key, ()):
            found |= _types(option)
    if "enum" in schema and not found and all(isinstance(value, str) for value in schema["enum"]):
        found = {"string"}
    return found


def _typed(text: str, types: set[str]) -> Any:
    if "string" in types and not ("null" in types and text.strip() in {"null", "None"}):
        return text
    try:
        value, end = decode_json(text)
    except BROKEN:
        return {"True": True, "False": False, "None": None}.get(text.strip(), text)
    return text if text[end:].strip() else value


# ---------------------------------------------------------------------- <invoke name="...">

_PREFIX = r"(?:[\w|｜]+:|｜DSML｜)?"
_INVOKE = (
    rf"(?:to=[\w.\-]+<\|message\|>\s*)?(?:<{_PREFIX}(?:function_calls|tool_call)>\s*)?"
    rf'<{_PREFIX}invoke name="(?P<name>[^"]+)">\s*'
)
_INVOKE_VALUE = re.compile(
    rf'<{_PREFIX}parameter name="([^"]+)"[^>]*>(.*?)</{_PREFIX}parameter>\s*'
    rf"(?=<{_PREFIX}parameter name=|</{_PREFIX}invoke>)",
    re.DOTALL,
)
_INVOKE_END = re.compile(rf"</{_PREFIX}invoke>(?:\s*</{_PREFIX}(?:function_calls|tool_call)>)?")


def _parse_invoke(text: str, tools: Sequence[ToolSchema]) -> Action:
    return scan_text(text, _INVOKE, lambda tag: _read_pairs(text, tag, _INVOKE_VALUE, _INVOKE_END, tools))


# ---------------------------------------------------------------------- Gemma: call:name{key:<|"|>text<|"|>}

_GEMMA_STRING = re.compile(r"(<\|\"\|>|<escape>)(.*?)\1", re.DOTALL)
_GEMMA_BODY = re.compile(
    r"((?:(?><\|\"\|>.*?<\|\"\|>|<escape>.*?<escape>|.))*?)(?:<tool_call\|>|<end_function_call>)\s*", re.DOTALL
)
_GEMMA_KEY = re.compile(r"([{,]\s*)([\w.\-]+)\s*:")


def _read_gemma(tag: re.Match[str]) -> Found | None:
    body = _GEMMA_BODY.match(tag.string, tag.end())
    if body is None:
        return None
    pieces, position = list[str](), 0
    for text in _GEMMA_STRING.finditer(body[1]):
        pieces += [_GEMMA_KEY.sub(r'\1"\2":', body[1][position : text.start()]), json.dumps(text[2])]
        position = text.end()
    pieces.append(_GEMMA_KEY.sub(r'\1"\2":', body[1][position:]))
    call = ToolCall.parse({"name": tag["name"], "arguments": "".join(pieces)})
    return None if isinstance(call.arguments, str) else ([call], body.end())


def _parse_gemma(text: str, _: Sequence[ToolSchema]) -> Action:
    opening = r"(?:<\|tool_call>|<start_function_call>)call:(?P<name>[\w.\-]+)"
    action = scan_text(text, opening, _read_gemma, thought=("<|channel>thought", "<channel|>"))
    return replace(action, content=re.sub(r"<\|tool_response>\Z", "", action.content).strip())


# ---------------------------------------------------------------------- LFM2: Python or JSON after a tag


_LFM2_QUOTED = re.compile(
    r"""((?>(?:[^'"<]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|<(?!\|tool_call_end\|>))*))(?:<\|tool_call_end\|>|\Z)""",
    re.DOTALL,
)
_LFM2_ANY = re.compile(r"(.*?)(?:<\|tool_call_end\|>|\Z)", re.DOTALL)


def _read_lfm2(tag: re.Match[str]) -> Found | None:
    """Reads up to the first mark of an end that is in no string; where quotes are not escaped, up to the first."""
    for pattern, read in ((_LFM2_QUOTED, parse_python), (_LFM2_ANY, read_python)):
        if (body := pattern.match(tag.string, tag.end())) is None:
            continue
        try:
            is_json = body[1].lstrip()[:2] in {"[{", '{"'}
            return _json_calls(decode_json(body[1])[0]) if is_json else read(body[1]), body.end()
        except BROKEN:
            continue
    return None


def _parse_lfm2(text: str, _: Sequence[ToolSchema]) -> Action:
    return scan_text(text, re.escape("<|tool_call_start|>"), _read_lfm2)


# ---------------------------------------------------------------------- messages that are nothing but calls

_SPACE = re.compile(r"\s*")
_SEPARATOR = re.compile(r"[\s;,]*(?:<\|python_tag\|>\s*)?")


def _bare_calls(text: str) -> list[ToolCall]:
    """Reads a message that is nothing but calls, as JSON or Python. Raises one of `BROKEN`."""
    position = cast("re.Match[str]", _SEPARATOR.match(text)).end()
    head = re.sub(r"\s", "", text[position : position + 20])
    if not head.startswith(("{", "[{")):
        if not head.startswith("[") and "<|python_tag|>" not in text[:position]:
            return []
        # Llama 3.1 calls the tools that it was trained with as `brave_search.call(query="...")`.
        return [replace(call, name=call.name.removesuffix(".call")) for call in read_python(text[position:])]
    calls = list[ToolCall]()
    while position < len(text):
        value, position = decode_json(text, position)
        entries: list[Any] = value if isinstance(value, list) else [value]
        for entry in entries:
            if not {"arguments", "parameters", "function"} & set(entry):  # JSON may be an answer, too
                return []
            calls += _json_calls(entry)
        position = cast("re.Match[str]", _SEPARATOR.match(text, position)).end()
    return calls


def _parse_bare(text: str, tools: Sequence[ToolSchema]) -> Action:
    written = parse_text(text, find_calls=False)
    for content, reasoning in ((text, ""), (written.content, written.reasoning)) if tools else ():
        try:
            calls = _bare_calls(content)
        except BROKEN:
            continue
        if calls:
            return Action("", _numbered(calls), reasoning=reasoning)
    return written


# ---------------------------------------------------------------------- harmony

_HARMONY_HEAD = re.compile(r"(?P<head>[^<]*(?:<\|(?:channel|constrain)\|>[^<]*)*)<\|message\|>")
_HARMONY_END = re.compile(r"(?:<\|end\|>|<\|call\|>|<\|return\|>|\Z)\s*(?:<\|start\|>)?")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.\-]+)")


def _parse_harmony(text: str, _: Sequence[ToolSchema]) -> Action:
    """Reads the messages of a turn: to a tool, on the channel `analysis` (reasoning), or on another (content)."""
    thoughts, said, calls, position = list[str](), list[str](), list[ToolCall](), 0
    while (message := _HARMONY_HEAD.match(text, position)) is not None:
        recipient = _RECIPIENT.search(message["head"])
        end = _harmony_end(text, message.end(), is_call=recipient is not None)
        body, position = text[message.end() : end.start()], end.end()
        if recipient:
            calls.append(ToolCall.parse({"name": recipient[1], "arguments": body}))
        else:
            (thoughts if "analysis" in message["head"] else said).append(body)
    content = "\n".join([*said, text[position:].strip()]).strip() if position else text
    return Action(content, _numbered(calls), reasoning="\n".join(thoughts).strip())


def _harmony_end(text: str, start: int, *, is_call: bool) -> re.Match[str]:
    """Returns the mark that ends a message, at the latest the end of the text; in the JSON of a call it is text."""
    if is_call:
        try:
            _, end = decode_json(text, start)
        except BROKEN:
            pass
        else:
            space = cast("re.Match[str]", _SPACE.match(text, end))
            if (found := _HARMONY_END.match(text, space.end())) is not None:
                return found
    return cast("re.Match[str]", _HARMONY_END.search(text, start))


PARSERS: dict[str, Parser] = {
    "tool_call": _parse_tool_call_tag,
    "bare": _parse_bare,
    "mistral": _tagged(
        r"\[TOOL_CALLS\]\s*(?:(?P<name>[\w.\-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{))?",
        "</s>",
        thought=("[THINK]", "[/THINK]"),
    ),
    "deepseek": _tagged(
        r"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<name>[^\s<]+?)"
        r"(?:<｜tool▁sep｜>|\s*```json)\s*",
        r"(?:```\s*)?<｜tool▁call▁end｜>(?:\s*<｜tool▁calls▁end｜>)?",
    ),
    "kimi": _tagged(
        r"(?:<\|tool_calls_section_begin\|>\s*)?<\|tool_call_begin\|>\s*(?:functions\.)?(?P<name>[\w.\-]+?)(?::\d+)?"
        r"\s*<\|tool_call_argument_begin\|>\s*",
        r"<\|tool_call_end\|>(?:\s*<\|tool_calls_section_end\|>)?",
    ),
    "phi": _tagged(r"<\|tool_call\|>", r"<\|/tool_call\|>"),
    "cohere": _tagged(
        r"<\|START_ACTION\|>",
        r"<\|END_ACTION\|>",
        thought=("<|START_THINKING|>", "<|END_THINKING|>"),
        dropped=r"<\|(?:START|END)_RESPONSE\|>",
    ),
    "gemma": _parse_gemma,
    "lfm2": _parse_lfm2,
    "invoke": _parse_invoke,
    "harmony": _parse_harmony,
}
"""The formats by name. `tool_call` reads all that stands in `<tool_call>`: JSON as Hermes and Qwen write it, the XML of
Qwen3-Coder, Qwen3.5 and Nemotron 3, the pairs of GLM; `bare` a message that is nothing but JSON or Python calls, as
Llama 3 and 4 write it."""
