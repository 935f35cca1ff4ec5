"""Messages, tool calls and actions: what is read, what is refused, and hostile text."""

import json
import math

import pytest
from envs_for_tests import Guess, texts
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import TreeError
from agentenv.types import Action, ToolCall, parse_tool_calls, to_observation

NAMES = st.text(min_size=1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        '{"name": "f", "arguments": {"x": 1}}',
        "{",
        "}",
        '"',
        "\n",
        "text",
        "\ud800",
        "NaN",
    ]
)


def test_a_call_in_text_is_found_by_hand():
    text = 'Let me see.\n<tool_call>\n{"name": "guess", "arguments": {"number": 50}}\n</tool_call>\nSo.'
    assert parse_tool_calls(text) == ("Let me see.\n\nSo.", (ToolCall("guess", {"number": 50}, "call_0"),))


@pytest.mark.parametrize(
    ("text", "names", "rest"),
    [
        ("no call", [], "no call"),
        ("  spaces stay  ", [], "  spaces stay  "),
        ('<tool_call>{"name": "a"}</tool_call><tool_call>{"name": "b"}</tool_call>', ["a", "b"], ""),
        ('<tool_call>{"name": "a", "arguments": {}}', ["a"], ""),
        ('<tool_call>{"name": "a"}\n<tool_call>{"name": "b"}</tool_call>', ["a", "b"], ""),
        ("<tool_call>{broken}</tool_call> x", [], "<tool_call>{broken}</tool_call> x"),
        ("<tool_call>[1]</tool_call>", [], "<tool_call>[1]</tool_call>"),
        ('<tool_call>{"name": ""}</tool_call>', [], '<tool_call>{"name": ""}</tool_call>'),
        ('<tool_call>{"arguments": {}}</tool_call>', [], '<tool_call>{"arguments": {}}</tool_call>'),
        ('<tool_call>{"name": "a"} and more</tool_call>', [], '<tool_call>{"name": "a"} and more</tool_call>'),
        ('</tool_call>{"name": "a"}<tool_call>', [], '</tool_call>{"name": "a"}<tool_call>'),
        ('<tool_call>{bad</tool_call><tool_call>{"name": "b"}</tool_call>', ["b"], "<tool_call>{bad</tool_call>"),
    ],
)
def test_blocks_that_are_no_calls_stay_in_the_text(text, names, rest):
    content, calls = parse_tool_calls(text)
    assert [call.name for call in calls] == names
    assert [call.id for call in calls] == [f"call_{i}" for i in range(len(names))]
    assert content == rest


HOSTILE = {
    "deep array": '{"name": "f", "arguments": {"x": ' + "[" * 100_000 + "]" * 100_000 + "}}",
    "deep object": '{"name": "f", "arguments": ' + '{"x": ' * 500 + "1" + "}" * 501,
    "huge integer": '{"name": "f", "arguments": {"x": ' + "1" * 5000 + "}}",
    "infinity": '{"name": "f", "arguments": {"x": 1e999}}',
    "nan": '{"name": "f", "arguments": {"x": NaN}}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_json_that_nothing_could_keep_is_no_call(body):
    text = f"<tool_call>{body}</tool_call>"
    assert parse_tool_calls(text) == (text, ())
    arguments = body.partition('"arguments": ')[2].removesuffix("}")
    assert ToolCall.parse({"name": "f", "arguments": arguments}).arguments == arguments
    env = Guess()
    env.reset(seed=0)
    calls = [{"function": {"name": "guess", "arguments": arguments}}]
    assert "must be a JSON object" in texts(env.step({"role": "assistant", "tool_calls": calls})[0])


def test_json_at_the_depth_that_is_allowed_is_a_call():
    def nested(depth):
        return '{"x": ' + "[" * depth + "1" + "]" * depth + "}"

    parsed = [ToolCall.parse({"name": "f", "arguments": nested(depth)}).arguments for depth in range(100)]
    assert [depth for depth in range(100) if isinstance(parsed[depth], dict)] == list(range(64))


@given(st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join))
def test_any_text_is_an_action_and_loses_only_its_calls(text):
    content, calls = parse_tool_calls(text)
    action = Action.parse(text)
    assert (action.content, action.tool_calls) == (content, calls)
    assert len(content) <= len(text)
    if not calls:
        assert content.strip() == text.strip()
    env = Guess()
    env.reset(seed=0)
    env.step(text)


@given(st.lists(st.tuples(NAMES, st.dictionaries(st.text(), st.integers() | st.text() | st.none())), min_size=1))
def test_calls_written_as_text_are_read_back(calls):
    text = "".join(
        f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>" for name, arguments in calls
    )
    safe = [call for call in calls if "tool_call>" not in json.dumps(call)]
    if len(safe) == len(calls):
        assert [(call.name, call.arguments) for call in parse_tool_calls(text)[1]] == calls


# ---------------------------------------------------------------------- ToolCall and Action


@given(
    NAMES,
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(NUMBERS)),
    st.text(),
)
def test_a_tool_call_survives_openai_format(name, arguments, call_id):
    call = ToolCall(name, arguments, call_id)
    assert ToolCall.parse(call.to_dict()) == call


def test_arguments_that_are_no_object_stay_text():
    assert ToolCall.parse({"name": "f", "arguments": "[1]"}) == ToolCall("f", "[1]")
    assert ToolCall.parse({"name": "f", "arguments": [1]}) == ToolCall("f", "[1]")
    assert ToolCall.parse({"name": "f", "arguments": " "}) == ToolCall("f", {})
    assert ToolCall.parse({"name": "f", "arguments": None}) == ToolCall("f", {})
    assert ToolCall.parse({"name": "f", "parameters": {"x": 1}}) == ToolCall("f", {"x": 1})
    assert ToolCall("f", "{broken").to_dict()["function"]["arguments"] == "{broken"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, r"a tool call needs a 'name' \(text\), got \{\}"),
        ({"name": 3}, "needs a 'name'"),
        ({"function": 5}, "a tool call's function must be a mapping, got 5"),
        ("f", "a tool call must be a mapping, got 'f'"),
    ],
)
def test_a_wrong_tool_call_is_named(value, words):
    with pytest.raises(ValueError, match=words):
        ToolCall.parse(value)


def test_an_action_is_read_from_every_accepted_form():
    action = Action("hi", token_ids=(1,))
    assert Action.parse(action) is action
    assert Action.parse("hi") == Action("hi")
    assert Action.parse({"role": "assistant", "content": "hi"}) == Action("hi")
    assert Action.parse({"content": None, "tool_calls": None}) == Action("")
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
    assert Action.parse({"role": "assistant", "tool_calls": [call]}) == Action("", (ToolCall("f", {"n": 1}, "x"),))
    hermes = '<tool_call>{"name": "f"}</tool_call>'
    assert Action.parse({"role": "assistant", "content": hermes}).tool_calls == (ToolCall("f", {}, "call_0"),)
    both = Action.parse({"role": "assistant", "content": hermes, "tool_calls": [call]})
    assert (both.content, len(both.tool_calls)) == (hermes, 1), "written calls count only where there are no others"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "action must be a str, an assistant message .* got 3"),
        ({"role": "user", "content": "x"}, r"action\['role'\] must be 'assistant', got 'user'"),
        ({"role": "assistant", "content": [1]}, r"action\['content'\] must be text, got \[1\]"),
        ({"role": "assistant", "tool_calls": {"name": "f"}}, r"action\['tool_calls'\] must be a list"),
    ],
)
def test_a_wrong_action_names_rule_and_value(value, words):
    with pytest.raises(ValueError, match=words):
        Action.parse(value)


def test_an_action_as_a_message_and_without_its_prompt():
    action = Action("hi", (ToolCall("f", {"ä": 1}, "x"),), (1, 2), (-0.5, -1.0), (7, 8), "stop")
    assert Action.parse(action.to_message()) == Action("hi", (ToolCall("f", {"ä": 1}, "x"),))
    assert action.without_prompt().prompt_token_ids is None
    assert action.without_prompt().logprobs == action.logprobs
    assert "tool_calls" not in Action("hi").to_message()


@pytest.mark.parametrize("ids", [None, (1,), (1, 2, 3)])
def test_logprobs_need_one_token_each(ids):
    with pytest.raises(TreeError, match=rf"one entry per token: got 2 for {len(ids or ())} token_ids"):
        Action("", (), ids, (-0.5, -math.inf))


# ---------------------------------------------------------------------- observations


def test_text_a_message_and_several_become_an_observation():
    message = {"role": "tool", "content": "x", "name": "f"}
    assert to_observation("x") == ({"role": "user", "content": "x"},)
    assert to_observation("x", role="system") == ({"role": "system", "content": "x"},)
    assert to_observation(message) == (message,) == to_observation([message])  # pyright: ignore[reportArgumentType]
    assert to_observation(()) == ()
    copied = to_observation(message)[0]  # pyright: ignore[reportArgumentType]
    copied["content"] = "changed"
    assert message["content"] == "x"


@pytest.mark.parametrize(
    "value", [None, 5, {"role": "user"}, {"content": "x"}, [{"role": "user", "content": 1}], ["x"]]
)
def test_a_wrong_observation_says_what_it_got(value):
    with pytest.raises(ValueError, match=r"observation.* got "):
        to_observation(value)
