"""What can be told of a model's folder without loading its weights: the findings of `agentenv doctor --model`."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from agentenv.errors import ModelError

from .machine import Finding

__all__ = ["find_model"]

_CHOICE = "history=exact keeps them, history=template follows"


def find_model(folder: str) -> Iterator[Finding]:
    """Yields what the configuration, the chat template and the tokenizer of a model say.

    Args:
        folder: that `save_pretrained` wrote, or a name on the Hugging Face hub.
    """
    transformers: Any = import_module("transformers")

    from agentenv.agents.folders import check_folder, generation_stops

    try:
        check_folder(folder)
        config: Any = transformers.AutoConfig.from_pretrained(folder)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ModelError) as error:
        yield Finding("Model", "folder", "problem", _line(error), "name a folder that save_pretrained wrote")
        return
    names = ", ".join(config.architectures or [type(config).__name__])
    window = getattr(config.get_text_config(), "max_position_embeddings", "unknown")
    yield Finding("Model", "folder", "ok", f"{names}, window {window}")
    yield from _format(tokenizer, generation_stops(folder))


def _format(tokenizer: Any, stops: tuple[int, ...]) -> Iterator[Finding]:
    from agentenv.agents.chat import ChatFormat
    from agentenv.agents.parsers import PARSERS

    try:
        chat = ChatFormat(tokenizer, stop_token_ids=stops)
        if chat.tool_problem:
            yield Finding("Model", "tools", "note", _line(chat.tool_problem), "--agent-option parser=text")
            chat = ChatFormat(tokenizer, stop_token_ids=stops, parser="text")
    except ModelError as error:
        yield Finding("Model", "chat template", "problem", _line(error), "give it another chat template")
        return
    ends = ", ".join(repr(chat.decode([stop])) for stop in sorted(chat.stop_token_ids))
    yield Finding("Model", "chat template", "ok", f"loses no message; messages end with {ends}")
    own = "the tokenizer's response template"
    parser = next((name for name, known in PARSERS.items() if known is chat.parser), own)
    yield Finding("Model", "tool calls", "ok", f"read by {parser}")
    yield from _history(chat)


def _history(chat: Any) -> Iterator[Finding]:
    from agentenv.agents.history_probe import probe_history

    habits = probe_history(chat)
    for habit in habits:
        name, drift = f"after {habit.what}", habit.drift
        if habit.appends:
            yield Finding("History", name, "ok", "appends: an exact prompt is the template's own, token by token")
        elif drift.refused:
            yield Finding("History", name, "note", f"refuses: {_line(habit.reason)}", "what was sampled stays")
        elif not habit.known:
            yield Finding("History", name, "note", f"knows no reasoning: leaves out {drift.dropped} tokens", _CHOICE)
        else:
            text = f"rewrites: leaves out {drift.dropped} of {drift.tokens} tokens, writes {drift.added} others"
            yield Finding("History", name, "note", text, _CHOICE)
    known = [habit.drift for habit in habits if habit.known]
    kinds = [
        *["rewrites history"] * any(drift.different for drift in known),
        *["refuses some turns"] * any(drift.refused for drift in known),
    ]
    if kinds:
        yield Finding("History", "in all", "note", " and ".join(kinds), "history= decides: docs/agents.md")
    else:
        yield Finding("History", "in all", "ok", "appends only: both kinds of history= are the same")


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
