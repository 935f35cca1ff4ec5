"""What models of each family write, read by hand-written examples, and hostile text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.agents.parsers import PARSERS
from agentenv.types import Action, ToolCall

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "write",
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "count": {"type": "integer"},
                    "flag": {"type": "boolean"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "items": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    }
]
HERMES = '{"name": "write", "arguments": {"text": "a", "count": 3}}'
XML = "<function=write>\n<parameter=text>\na\n</parameter>\n<parameter=count>\n3\n</parameter>\n</function>"
GLM = "write\n<arg_key>text</arg_key>\n<arg_value>a</arg_value>\n<arg_key>count</arg_key>\n<arg_value>3</arg_value>\n"
CODE = "```json\n"
WRITTEN = [
    ("tool_call", f"<tool_call>\n{HERMES}\n</tool_call>"),
    ("tool_call", f"<tool_call>[{HERMES}]</tool_call>"),
    ("tool_call", f"<tool_call>\n{XML}\n</tool_call>"),
    ("tool_call", XML),
    ("tool_call", f"<tool_call>{GLM}</tool_call>"),
    ("tool_call", f"<tool_call>\n{HERMES}"),
    ("bare", '{"name": "write", "parameters": {"text": "a", "count": 3}}'),
    ("bare", '<|python_tag|>{"type": "function", "name": "write", "parameters": {"text": "a", "count": 3}}'),
    ("bare", "[write(text='a', count=3)]"),
    ("bare", '<|python_tag|>write(text="a", count=3)'),
    ("bare", '<|python_tag|>write.call(text="a", count=3)'),
    ("bare", f"[{HERMES}]"),
    ("mistral", f"[TOOL_CALLS] [{HERMES}]"),
    ("mistral", '[TOOL_CALLS]write[ARGS]{"text": "a", "count": 3}'),
    ("mistral", '[TOOL_CALLS]write[CALL_ID]abcdefghi[ARGS]{"text": "a", "count": 3}'),
    ("mistral", '[TOOL_CALLS]write{"text": "a", "count": 3}'),
    (
        "deepseek",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>write\n{CODE}"
        '{"text": "a", "count": 3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    ("deepseek", '<｜tool▁call▁begin｜>write<｜tool▁sep｜>{"text": "a", "count": 3}<｜tool▁call▁end｜>'),
    (
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.write:0<|tool_call_argument_begin|>"
        '{"text": "a", "count": 3}<|tool_call_end|><|tool_calls_section_end|>',
    ),
    ("phi", f"<|tool_call|>[{HERMES}]<|/tool_call|>"),
    (
        "cohere",
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "write", "parameters": {"text": "a", "count": 3}}]'
        "<|END_ACTION|>",
    ),
    ("gemma", '<|tool_call>call:write{text:<|"|>a<|"|>,count:3}<tool_call|>'),
    ("gemma", "<start_function_call>call:write{text:<escape>a<escape>,count:3}<end_function_call>"),
    ("lfm2", "<|tool_call_start|>[write(text='a', count=3)]<|tool_call_end|>"),
    ("lfm2", f"<|tool_call_start|>[{HERMES}]<|tool_call_end|>"),
    (
        "invoke",
        '<minimax:tool_call>\n<invoke name="write">\n<parameter name="text">a</parameter>\n'
        '<parameter name="count">3</parameter>\n</invoke>\n</minimax:tool_call>',
    ),
    (
        "invoke",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="write">\n<｜DSML｜parameter name="text" string="true">a'
        '</｜DSML｜parameter>\n<｜DSML｜parameter name="count" string="false">3</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n"
        "</｜DSML｜function_calls>",
    ),
    ("harmony", '<|channel|>commentary to=functions.write <|constrain|>json<|message|>{"text": "a", "count": 3}'),
    ("harmony", ' to=functions.write<|channel|>commentary json<|message|>{"text": "a", "count": 3}<|call|>'),
]
THOUGHTS = {
    "mistral": ("[THINK]", "[/THINK]"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
}


@pytest.mark.parametrize(("family", "text"), WRITTEN)
def test_calls_of_every_family_by_hand(family, text):
    expected = ToolCall("write", {"text": "a", "count": 3}, "call_0")
    assert PARSERS[family](text, TOOLS) == Action("", (expected,))
    opens, closes = THOUGHTS.get(family, ("<think>", "</think>"))
    action = PARSERS[family](f"{opens}hm {text.replace('<|call|>', '')}{closes}{text}", TOOLS)
    if family != "harmony":  # whose channels do not nest
        assert action.tool_calls == (expected,)
        assert action.reasoning.startswith("hm")
        assert PARSERS[family](f"{opens}hm {text}", TOOLS).tool_calls == ()
    if family not in {"harmony", "bare"}:
        action = PARSERS[family](f"Well.\n{text}\n{text}", TOOLS)
        assert (action.content, [call.id for call in action.tool_calls]) == ("Well.", ["call_0", "call_1"])


def test_channels_of_harmony():
    parse = PARSERS["harmony"]
    text = "<|channel|>analysis<|message|>hm {}<|end|><|start|>assistant<|channel|>final<|message|>four"
    assert parse(text, TOOLS) == Action("four", reasoning="hm {}")
    assert parse("<|channel|>analysis<|message|>cut", TOOLS) == Action(reasoning="cut")
    assert parse("plain", TOOLS) == Action("plain")
    text = "<|channel|>analysis<|message|>a<|end|><|start|>assistant"
    text += '<|channel|>commentary to=functions.f json<|message|>{"x'
    assert parse(text, TOOLS) == Action("", (ToolCall("f", '{"x', "call_0"),), reasoning="a")


INVOKE = '<invoke name="write"><parameter name="text">a</parameter><parameter name="count">3</parameter></invoke>'
MARKS = "</tool_call> </parameter> <|tool_call_end|> <|/tool_call|> <|END_ACTION|> <|call|>"
HARD = f"a 'b' \"c\"\n<d> {MARKS} {{e}} [f], g=1) é😀"


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("tool_call", "<tool_call>" + HERMES.replace('"a"', json.dumps(HARD)) + "</tool_call>"),
        ("tool_call", "<tool_call>" + HERMES.replace('"a"', json.dumps(HARD).replace("\\n", "\n")) + "</tool_call>"),
        ("tool_call", "<tool_call>" + XML.replace("\na\n", "\n" + HARD + "\n") + "</tool_call>"),
        ("tool_call", f"<tool_call>{GLM.replace('>a<', f'>{HARD}<')}</tool_call>"),
        ("bare", HERMES.replace('"a"', json.dumps(HARD).replace("\\n", "\n"))),
        ("bare", f"[write(text={HARD!r}, count=3)]"),
        ("mistral", "[TOOL_CALLS]write[ARGS]" + json.dumps({"text": HARD, "count": 3})),
        ("phi", "<|tool_call|>[" + HERMES.replace('"a"', json.dumps(HARD)) + "]<|/tool_call|>"),
        ("cohere", "<|START_ACTION|>[" + HERMES.replace('"a"', json.dumps(HARD)) + "]<|END_ACTION|>"),
        ("kimi", "<|tool_call_begin|>write:0<|tool_call_argument_begin|>" + json.dumps({"text": HARD, "count": 3})),
        ("gemma", f'<|tool_call>call:write{{text:<|"|>{HARD}<|"|>,count:3}}<tool_call|>'),
        ("lfm2", f"<|tool_call_start|>[write(text={HARD!r}, count=3)]<|tool_call_end|>"),
        ("lfm2", "<|tool_call_start|>[" + HERMES.replace('"a"', json.dumps(HARD)) + "]<|tool_call_end|>"),
        ("invoke", INVOKE.replace(">a<", f">{HARD}<")),
        ("harmony", "<|channel|>commentary to=write<|message|>" + json.dumps({"text": HARD, "count": 3})),
    ],
)  # fmt: skip
def test_strings_may_hold_anything(family, text):
    (call,) = PARSERS[family](text, TOOLS).tool_calls
    assert call.arguments == {"text": HARD, "count": 3}


def test_two_calls_of_which_one_holds_the_mark_of_an_end():
    ends = "<|tool_call_start|>[write(text='it\\'s <|tool_call_end|>')]<|tool_call_end|>"
    loose = "<|tool_call_start|>[write(text='it's')]<|tool_call_end|>"
    for texts in ((ends, loose), (loose, ends), (loose, loose), (ends, ends)):
        action = PARSERS["lfm2"](" and ".join(texts), TOOLS)
        wanted = ["it's <|tool_call_end|>" if text is ends else "it's" for text in texts]
        assert [call.arguments for call in action.tool_calls] == [{"text": text} for text in wanted]
        assert action.content == "and"


def test_a_tool_without_arguments_is_called_by_its_name_between_tags():
    action = PARSERS["tool_call"]("I look. <tool_call>look\n</tool_call>", TOOLS)
    assert action == Action("I look.", (ToolCall("look", {}, "call_0"),))


@pytest.mark.parametrize("text", ["don't", "two\nlines", 'say "x"'])
def test_python_strings_that_were_not_escaped(text):
    written = f"<|tool_call_start|>[write(text='{text}', items=['x', 'y'], flag=True, note=None)]<|tool_call_end|>"
    (call,) = PARSERS["lfm2"](written, TOOLS).tool_calls
    assert (call.arguments["text"], call.arguments["flag"]) == (text, True)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "3", "3"),
        ("text", "null", "null"),
        ("count", "3", 3),
        ("count", "three", "three"),
        ("flag", "True", True),
        ("flag", "false", False),
        ("note", "null", None),
        ("note", "3", "3"),
        ("items", '["a", "3"]', ["a", "3"]),
        ("unknown", "3", 3),
        ("unknown", "3 apples", "3 apples"),
        ("text", " two\n\nlines ", " two\n\nlines "),
    ],
)
def test_the_schema_says_what_plain_text_is(key, text, value):
    for body in (
        f"<function=write>\n<parameter={key}>\n{text}\n</parameter>\n</function>",
        f"write\n<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value>\n",
    ):
        (call,) = PARSERS["tool_call"](f"<tool_call>\n{body}</tool_call>", TOOLS).tool_calls
        assert call.arguments == {key: value}


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("bare", '{"name": "Bob", "age": 3}'),
        ("bare", 'Such as {"name": "write", "parameters": {}}'),
        ("bare", "[1, 2]"),
        ("bare", "[a, b]"),
        ("bare", "[see(2020)]"),
        ("lfm2", "<|tool_call_start|>[write(text=__import__('os'))"),
        ("tool_call", "<tool_call><function=write>\n<parameter=text>\ncut"),
        ("tool_call", "<tool_call>{'name': 'write'}</tool_call>"),
        ("mistral", "[TOOL_CALLS] none"),
        ("tool_call", "I use <tool_call> tags"),
        ("tool_call", "<tool_call>hello"),
        ("tool_call", "<tool_call> opens and <tool_call> opens again"),
        ("tool_call", "<tool_call>hello<tool_call>"),
        ("tool_call", "<tool_call>write <arg_key>text</arg_key>"),
        ("deepseek", "<｜tool▁call▁begin｜>write<｜tool▁sep｜>{broken<｜tool▁call▁end｜>"),
        ("gemma", "<|tool_call>call:write{text:<|\"|>cut"),
        ("invoke", '<invoke name="write"><parameter name="text">cut'),
    ],
)  # fmt: skip
def test_what_is_no_call_stays_in_the_text(family, text):
    action = PARSERS[family](text, TOOLS)
    assert (action.content, action.tool_calls) == (text, ())


@pytest.mark.parametrize("family", ["tool_call", "phi", "lfm2", "invoke"])
def test_a_call_after_many_that_are_broken_is_read(family):
    written = next(text for name, text in WRITTEN if name == family)
    opening = {"tool_call": "<tool_call>", "phi": "<|tool_call|>", "lfm2": "<|tool_call_start|>"}.get(
        family, '<invoke name="a">'
    )
    mentions = f"{opening}? <|tool_call_end|> " * 90
    action = PARSERS[family](mentions + written, TOOLS)
    assert (action.content, len(action.tool_calls)) == (mentions.strip(), 1)


def test_without_tools_json_is_an_answer():
    text = '{"name": "write", "parameters": {"text": "a"}}'
    assert PARSERS["bare"](text, ()) == Action(text)


ODD = ["<think>", "</think>", "{", "[" * 3000, "'", '"', "\x00", "\ud800", "1" * 5000, "=" * 100, "(" * 300]
WORDS = sorted({piece for _, text in WRITTEN for piece in text.replace("write", " write ").split(" ")})
PIECES = st.sampled_from([*WORDS, *ODD])


@pytest.mark.parametrize("family", PARSERS)
@given(text=st.lists(PIECES | st.text(max_size=5), max_size=10).map("".join))
def test_any_text_is_an_action(family, text):
    action = PARSERS[family](text, TOOLS)
    assert [call.id for call in action.tool_calls] == [f"call_{i}" for i in range(len(action.tool_calls))]
    json.dumps(action.to_message())
    assert len(action.content) <= len(text)


@pytest.mark.parametrize("family", PARSERS)
def test_long_text_is_read_in_time(family):
    for piece in (
        *(text for _, text in WRITTEN),
        "<think>",
        '<|"|>',
        "<parameter=a>",
        "(a='",
        "a=1, ",
        "[TOOL_CALLS]x",
    ):
        PARSERS[family](piece * 300, TOOLS)
