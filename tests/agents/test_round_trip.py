"""Calls with any arguments, written by the template of each family and read back."""

import re
from typing import Any

import pytest
from chat_families import FAMILIES, chat_of
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from agentenv.types import Action, ToolCall

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "write",
        "description": "Write something.",
        "parameters": {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "count": {"type": "integer"},
                "size": {"type": "number"},
                "flag": {"type": "boolean"},
                "items": {"type": "array", "items": {}},
                "where": {"type": "object"},
            },
            "required": [],
        },
    },
}
MARKS = [
    *"{}[]\"';\\\n\r\t\u2028\x00é😀 ",
    *("</tool_call>", "<tool_call>", "<think>", "</think>", "<function=f>", "<parameter=a>", "<arg_key>"),
    *("<|im_end|>", "<|eot_id|>", "[TOOL_CALLS]", "[ARGS]", "</s>", "<｜tool▁call▁end｜>", "<|call|>", "<|message|>"),
    *("to=functions.f", "<|python_tag|>", "```", "null", "3", "true", '{"name": "f", "arguments": {}}', "mark0mark"),
]
ENDINGS = ["</parameter>", "</function>", "</arg_value>"]
NO_QUOTES = re.compile(r"</parameter>\s*(?:<parameter=|</function>)|</arg_value>\s*(?:<arg_key>|</tool_call>)")
"""What formats without quotes cannot hold: their own end of a value, together with what must follow it."""
TEXTS = st.lists(st.sampled_from([*MARKS, *ENDINGS]) | st.text(max_size=6), max_size=6).map("".join)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "count": st.integers(-(10**20), 10**20),
        "size": NUMBERS,
        "flag": st.booleans(),
        "items": st.lists(VALUES, max_size=3),
        "where": st.dictionaries(TEXTS, VALUES, max_size=3),
    },
)
HARD = {"text": 'a "b"\n</tool_call> <|im_end|>\\', "items": ["x", {"y": None}], "where": {"é\n": [1.5, True, "3"]}}
SINGLE = {"llama3_1", "gpt_oss"}
"""Families whose template writes one call per message."""


def texts(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in texts(part)]


@pytest.mark.parametrize("name", FAMILIES)
@given(arguments=st.lists(ARGUMENTS, min_size=1, max_size=2), content=st.sampled_from(["", "Well, é."]))
@example(arguments=[HARD, {"text": "\n"}], content="Well.")
@settings(max_examples=40)
def test_calls_come_back_as_they_went_in(name, arguments, content):
    assume(name not in {"qwen3_coder", "glm4_5"} or not any(map(NO_QUOTES.search, texts(arguments))))
    chat = chat_of(name)
    made = arguments[: 1 if name in SINGLE else None]
    calls = tuple(ToolCall("write", one, f"call_{i}") for i, one in enumerate(made))
    action = Action(content if name not in {"llama3_1", "mistral", "gpt_oss"} else "", calls)
    ids = chat.action_ids(action.to_message(), tools=[TOOL])
    assert [i for i, token in enumerate(ids) if token in chat.stop_token_ids] == [len(ids) - 1]
    assert chat.parse(ids, tools=[TOOL]) == action
