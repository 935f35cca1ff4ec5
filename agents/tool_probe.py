"""Which parser reads the tool calls of a chat template, found by rendering some and reading them back."""

from collections.abc import Callable, Sequence
from typing import Any

from agentenv.errors import ModelError
from agentenv.types import Action, Message, ToolCall, ToolSchema, parse_text

from .parsers import PARSERS, Parser
from .templates import ASKED, NO_SCHEMAS, ChatTemplate

__all__ = ["choose_parser", "find_tool_problem", "rewrites_history"]

_TOOL: ToolSchema = {
    "type": "function",
    "function": {
        "name": "visit",
        "description": "Visit a place.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer"}, "alone": {"type": "boolean"}},
            "required": ["town"],
        },
    },
}
_CALLS = (
    ToolCall("visit", {"town": 'O\'er "x"\n</tool_call> <b>é', "days": 3, "alone": True}, "call_0"),
    ToolCall("visit", {"town": "Oslo", "days": 3}, "call_0"),
)
"""What a parser should read back, and what it must."""


def choose_parser(template: ChatTemplate, stops: Sequence[str]) -> Parser | None:
    """Returns the parser that reads back what the template writes; `None` where none does.

    The tokenizer's own response template comes first, then the families of `PARSERS`; one that reads a call with
    quotes, line breaks and tags in its text comes before one that reads only simple calls.

    Args:
        template: the chat template.
        stops: the texts of the tokens that end a message.
    """
    candidates = [*_response_parsers(template), *PARSERS.values()]
    for call in _CALLS:
        try:
            text = _written(template, call, stops)
        except ModelError:
            continue
        for parser in candidates:
            if _reads(parser, text, call):
                return parser
    return None


def find_tool_problem(
    template: ChatTemplate, parser: Parser | None, suffix: Callable[[Message, Sequence[ToolCall], ToolSchema], object]
) -> str:
    """Says why a template cannot be used with tools; empty where it can.

    Args:
        template: the chat template.
        parser: what reads its calls, where anything does.
        suffix: renders a tool's answer after calls of the tool, and raises `ModelError` where it gets lost.
    """
    answer: Message = {"role": "tool", "content": "sunny 21", "name": "visit", "tool_call_id": "call_0"}
    try:
        shown = template.render([ASKED], [_TOOL], generate=True).text
        if not all(word in shown for word in ("visit", "town", "days")) and NO_SCHEMAS not in template.source:
            return (
                "it leaves out the tools' schemas: pass parser='text', which writes tools, calls and answers as text "
                f"(if the model knows its tools otherwise, say so in the template: {{#- {NO_SCHEMAS} #}})"
            )
        suffix(answer, _CALLS[1:], _TOOL)
    except ModelError as error:
        return str(error)
    return "" if parser else f"no parser reads its calls back: pass parser=, one of {', '.join(PARSERS)} or a function"


def rewrites_history(template: ChatTemplate) -> bool:
    """Says whether a template writes what was there otherwise once a later turn has come."""
    first: Message = {"role": "system", "content": "gamma"}
    said: Message = {"role": "assistant", "content": "alpha", "reasoning": "beta"}
    for tools in ([_TOOL], []):
        try:
            turn = [first, ASKED, said]
            before = template.render(turn, tools, generate=False).text
            return not template.render([*turn, ASKED, said], tools, generate=False).text.startswith(before.rstrip())
        except ModelError:
            continue
    return False


def _written(template: ChatTemplate, call: ToolCall, stops: Sequence[str]) -> str:
    """Returns what a model would have to write to make a call, as `ChatFormat.parse` hands it to parsers."""
    message: Message = {"role": "assistant", "content": "", "tool_calls": [call.to_dict()]}
    start = template.render([ASKED], [_TOOL], generate=True).text
    whole = template.render([ASKED, message], [_TOOL], generate=False)
    same = [a == b for a, b in zip(start, whole.text, strict=False)]
    text = whole.text[same.index(False) if False in same else len(same) :].replace(whole.cut, "")
    ends = [where for stop in stops if (where := text.find(stop)) >= 0]
    opened = start.rfind("<think>") > start.rfind("</think>") and start.rstrip().endswith("<think>")
    return "<think>" * opened + text[: min(ends, default=len(text))]


def _reads(parser: Parser, text: str, call: ToolCall) -> bool:
    action = parser(text, [_TOOL])
    return [(found.name, found.arguments) for found in action.tool_calls] == [(call.name, call.arguments)]


def _response_parsers(template: ChatTemplate) -> list[Parser]:
    """Returns a parser by the tokenizer's own response template, where it has one."""
    tokenizer: Any = template.tokenizer
    if not getattr(tokenizer, "response_template", None):
        return []

    def parse(text: str, tools: Sequence[ToolSchema]) -> Action:
        opening = template.render([ASKED], tools, generate=True).text
        written = text.removeprefix("<think>") if opening.rstrip().endswith("<think>") else text
        try:
            return Action.parse(tokenizer.parse_response(written, prefix=opening, tools=list(tools) or None))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):  # on text of another form
            return parse_text(text, find_calls=False)

    return [parse]
