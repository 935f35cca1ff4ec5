"""Which parser reads the tool calls of a chat template, found by rendering some and reading them back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agentenv.errors import ModelError
from agentenv.types import Action, Message, ToolCall, ToolSchema, parse_text

from .parsers import PARSERS, Parser
from .templates import ASKED, NO_SCHEMAS, ChatTemplate

__all__ = ["TOOL", "choose_parser", "find_tool_problem", "response_parsers", "rewrites_history"]

TOOL: ToolSchema = {
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

    The tokenizer's own response template comes first where it loses nothing: it reads a call with quotes, line breaks
    and tags in its text, keeps what is said before a call, makes no call out of one that was cut, and shows no
    reasoning as content when it meets one; a message in which it finds no call goes to our parser of the same family.
    Otherwise the families of `PARSERS` come first. One that reads the hard call comes before one that reads only simple
    calls.

    Args:
        template: the chat template.
        stops: the texts of the tokens that end a message.
    """
    families = [*PARSERS.values()]
    family = _first_reading(families, template, stops)
    own = response_parsers(template, stops, fallback=family)
    careful = [parser for parser in own if _loses_nothing(parser, template, stops)]
    return _first_reading([*careful, *families, *own], template, stops)


def _first_reading(parsers: Sequence[Parser], template: ChatTemplate, stops: Sequence[str]) -> Parser | None:
    """Returns the first parser that reads the hard call of a template back, or the first that reads the simple one."""
    for call in _CALLS:
        try:
            text = _written(template, call, stops)
        except ModelError:
            continue
        for parser in parsers:
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
        shown = template.render([ASKED], [TOOL], generate=True).text
        if not all(word in shown for word in ("visit", "town", "days")) and NO_SCHEMAS not in template.source:
            return (
                "it leaves out the tools' schemas: pass parser='text', which writes tools, calls and answers as text "
                f"(if the model knows its tools otherwise, say so in the template: {{#- {NO_SCHEMAS} #}})"
            )
        suffix(answer, _CALLS[1:], TOOL)
    except ModelError as error:
        return str(error)
    return "" if parser else f"no parser reads its calls back: pass parser=, one of {', '.join(PARSERS)} or a function"


def rewrites_history(template: ChatTemplate) -> bool:
    """Says whether a template writes what was there otherwise once a later turn has come."""
    first: Message = {"role": "system", "content": "gamma"}
    said: Message = {"role": "assistant", "content": "alpha", "reasoning": "beta"}
    for tools in ([TOOL], []):
        try:
            prompt = template.render([first, ASKED], tools, generate=True).text
            turn = template.render([first, ASKED, said], tools, generate=False).text
            later = template.render([first, ASKED, said, ASKED], tools, generate=False).text
            return not all(later.startswith(earlier.rstrip()) for earlier in (prompt, turn))
        except ModelError:
            continue
    return False


def _loses_nothing(parser: Parser, template: ChatTemplate, stops: Sequence[str]) -> bool:
    """Says whether a parser keeps text before a call, reasoning apart, and calls that were cut unmade."""
    call = _CALLS[1]
    try:
        text = _written(template, call, stops, reasoning="quietly")
    except ModelError:
        return False
    cut = parser(text[: text.rfind("Oslo") + 2], [TOOL])
    beside = parser(f"Well. {_written(template, call, stops)}", [TOOL])
    unmade = all(isinstance(made.arguments, str) for made in cut.tool_calls)
    apart = "quietly" not in cut.content and ("quietly" in cut.reasoning) == ("quietly" in text)
    return unmade and apart and bool(cut.content or cut.tool_calls) and "Well." in beside.content


def _written(template: ChatTemplate, call: ToolCall, stops: Sequence[str], *, reasoning: str = "") -> str:
    """Returns what a model would have to write to make a call, as `ChatFormat.parse` hands it to parsers."""
    message: Message = {"role": "assistant", "content": "", "tool_calls": [call.to_dict()]}
    if reasoning:
        message["reasoning"] = reasoning
    start = template.render([ASKED], [TOOL], generate=True).text
    whole = template.render([ASKED, message], [TOOL], generate=False)
    same = [a == b for a, b in zip(start, whole.text, strict=False)]
    text = whole.text[same.index(False) if False in same else len(same) :].replace(whole.cut, "")
    ends = [where for stop in stops if (where := text.find(stop)) >= 0]
    opened = start.rfind("<think>") > start.rfind("</think>") and start.rstrip().endswith("<think>")
    return "<think>" * opened + text[: min(ends, default=len(text))]


def _reads(parser: Parser, text: str, call: ToolCall) -> bool:
    action = parser(text, [TOOL])
    return [(found.name, found.arguments) for found in action.tool_calls] == [(call.name, call.arguments)]


def response_parsers(template: ChatTemplate, stops: Sequence[str], *, fallback: Parser | None = None) -> list[Parser]:
    """Returns a parser by the tokenizer's own response template where it has one, and none otherwise.

    Response templates may want to see the token that ended the message, which parsers are not given: so where no call
    is found without it, each of `stops` is tried. A message without a call is left to `fallback`, if there is one.
    """
    tokenizer: Any = template.tokenizer
    if not getattr(tokenizer, "response_template", None):
        return []

    def parse(text: str, tools: Sequence[ToolSchema]) -> Action:
        opening = template.render([ASKED], tools, generate=True).text
        written = text.removeprefix("<think>") if opening.rstrip().endswith("<think>") else text
        found: list[Action] = []
        for end in ("", *stops):
            try:
                read = tokenizer.parse_response(written + end, prefix=opening, tools=list(tools) or None)
                found.append(Action.parse(read))
            except (ValueError, TypeError, KeyError, IndexError, AttributeError):  # on text of another form
                continue
            if found[-1].tool_calls:
                calls = [replace(call, id=f"call_{i}") for i, call in enumerate(found[-1].tool_calls)]
                return replace(found[-1], tool_calls=tuple(calls))
        if fallback is not None:
            return fallback(text, tools)
        return found[0] if found else parse_text(text, find_calls=False)

    return [parse]
