"""Messages, tool calls and actions: what is read, what is refused, and hostile text."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from envs_for_tests import Guess, texts
from hypothesis import given
from hypothesis import strategies as st

import agentenv as ae
from agentenv.errors import TreeError
from agentenv.types import Action, ToolCall, message_reasoning, message_text, parse_text, to_observation

READERS = re.compile(r"""\[['"]content['"]\]|\.get\(['"]content['"]""")
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PARTS = [
    {"type": "text", "text": "a "},
    IMAGE,
    {"type": "output_text", "text": "b"},
    {"type": "refusal", "refusal": "!"},
]
NAMES = st.text(min_size=1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
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
    assert parse_text(text) == Action("Let me see.\n\nSo.", (ToolCall("guess", {"number": 50}, "call_0"),))


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
    action = parse_text(text)
    content, calls = action.content, action.tool_calls
    assert [call.name for call in calls] == names
    assert [call.id for call in calls] == [f"call_{i}" for i in range(len(names))]
    assert content == rest


THOUGHT = '<tool_call>{"name": "a"}</tool_call> \\boxed{1}'


@pytest.mark.parametrize(
    ("text", "reasoning", "content", "names"),
    [
        ("<think>\nhm\n</think>\n\nfour", "hm", "four", []),
        (f"<think>{THOUGHT}</think>no", THOUGHT, "no", []),
        (f"<think>{THOUGHT}", THOUGHT, "", []),
        (f"{THOUGHT}</think>no", THOUGHT, "no", []),
        (f"yes <think>{THOUGHT}</think>no", THOUGHT, "yes no", []),
        (f"<think>one<think>{THOUGHT}</think>two</think>no", f"one{THOUGHT}two", "no", []),
        (f"<think>one</think><think>{THOUGHT}</think>no", f"one\n{THOUGHT}", "no", []),
        ("<think></think>four", "", "four", []),
        ("</think>four", "", "four", []),
        ('<think>hm</think><tool_call>{"name": "b"}</tool_call>', "hm", "", ["b"]),
        ('hm</think><tool_call>{"name": "b"}</tool_call><tool_call>{"name": "c"}', "hm", "", ["b", "c"]),
        ('<tool_call>{"name": "a"}</think><tool_call>{"name": "b"}', '<tool_call>{"name": "a"}', "", ["b"]),
    ],
)
def test_reasoning_is_kept_apart_and_nothing_in_it_is_a_call(text, reasoning, content, names):
    for action in (parse_text(text), Action.parse({"role": "assistant", "content": text})):
        assert (action.reasoning, action.content) == (reasoning, content)
        assert [call.name for call in action.tool_calls] == names
    action = Action.parse(Action(text, token_ids=(1,)))
    assert (action.reasoning, action.tool_calls, action.token_ids) == (reasoning, (), (1,))
    assert action.content.startswith(content)
    assert Action.parse(action) == action


@pytest.mark.parametrize(
    "text",
    ["a </tool_call> b", "<tool_call>", "</think>", "<think> x", "two\nlines", "a\ttab", '"}}</tool_call>', "\x00\x1f"],
)
@pytest.mark.parametrize("raw", [True, False])
def test_strings_of_a_call_may_hold_tags_and_raw_line_breaks(text, raw):
    written = json.dumps({"name": "write", "arguments": {"text": text}})
    if raw:
        written = written.replace("\\n", "\n").replace("\\t", "\t").replace("\\u0000\\u001f", "\x00\x1f")
    action = parse_text(f"Writing.<tool_call>\n{written}\n</tool_call>")
    assert action == Action("Writing.", (ToolCall("write", {"text": text}, "call_0"),))


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
    assert parse_text(text) == Action(text)
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
    given = json.loads(nested(63))
    assert ToolCall.parse({"name": "f", "arguments": given}).arguments == given
    twice: list[Any] = []
    for _ in range(100):
        twice = [twice, twice]
    for deep in (json.loads(nested(64)), json.loads(nested(500)), json.loads(nested(500))["x"], twice):
        with pytest.raises(ValueError, match="arguments must be nested at most 64 deep"):
            ToolCall.parse({"name": "f", "arguments": deep})


@given(st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join))
def test_any_text_is_an_action_and_loses_only_its_calls(text):
    action = parse_text(text)
    assert Action.parse(text) == action
    assert len(action.content) + len(action.reasoning) <= len(text)
    if not action.tool_calls and "think>" not in text:
        assert action == Action(text)
    env = Guess()
    env.reset(seed=0)
    env.step(text)


@given(st.lists(st.tuples(NAMES, st.dictionaries(st.text(), st.integers() | st.text() | st.none())), min_size=1))
def test_calls_written_as_text_are_read_back(calls):
    text = "".join(
        f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>" for name, arguments in calls
    )
    assert [(call.name, call.arguments) for call in parse_text(text).tool_calls] == calls


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
    for text in ("null", " null ", '""', '"{}"', "{}"):
        assert ToolCall.parse({"name": "f", "arguments": text}) == ToolCall("f", {}), text
    assert ToolCall.parse({"name": "f", "arguments": '"{\\"x\\": 1}"'}) == ToolCall("f", {"x": 1})
    assert ToolCall.parse({"name": "f", "arguments": '"x"'}) == ToolCall("f", '"x"')
    assert ToolCall.parse({"name": "f", "arguments": '{"x": "a\nb"}'}) == ToolCall("f", {"x": "a\nb"})
    assert ToolCall.parse({"name": "f", "parameters": {"x": 1}}) == ToolCall("f", {"x": 1})
    for function, beside in (
        ({"name": "f"}, {"arguments": {"x": 1}}),
        ({"name": "f"}, {"arguments": '{"x": 1}'}),
        ({"name": "f"}, {"parameters": {"x": 1}}),
        ({"arguments": {"x": 1}}, {"name": "f"}),
        ({"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {"x": 2}}),
    ):
        assert ToolCall.parse({"function": function, **beside}) == ToolCall("f", {"x": 1})
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
        ({"role": "assistant", "content": [1]}, r"a part of content must be \{'type': 'text', .* got 1"),
        ({"role": "assistant", "content": 7}, r"content must be text or a list of parts .* got 7"),
        ({"content": [{"type": "audio", "text": "x"}]}, r"a part of content must be .* got \{'type': 'audio'"),
        ({"content": [IMAGE]}, r"action\['content'\] must be text or text parts, got an image"),
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


def test_the_text_of_parts_and_of_plain_content_is_read_alike():
    assert message_text(PARTS) == message_text({"role": "user", "content": PARTS}) == "a b!"
    assert message_text("x") == message_text({"content": "x"}) == "x"
    assert message_text(None) == message_text({"role": "assistant"}) == message_text([]) == ""
    with pytest.raises(ValueError, match=r"'url': 'data:image/...'.* got .*http://x/y.png"):
        message_text([{"type": "image_url", "image_url": {"url": "http://x/y.png"}}])


def test_the_content_of_messages_is_read_in_one_place():
    """`message["content"]` may be parts: what needs its text asks `message_text`."""
    root = Path(ae.__file__).parent
    allowed = {"types.py", "wrappers.py", "answers.py", "reading.py", "tiny.py", "events.py"}  # records and templates
    allowed |= {
        "openai_wire.py",
        "vllm_server.py",
        "text_protocol.py",
        "atif.py",
        "openenv_env.py",
        "verifiers_messages.py",
        "verifiers_v0.py",
        "verifiers_v1.py",
    }  # other people's protocols
    allowed |= {"anthropic_messages.py", "openai_chat.py", "openai_responses.py", "requests.py"}
    files = [Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names]
    found = {path.name for path in files if path.suffix == ".py" and READERS.search(path.read_text())}
    assert "types.py" in found <= allowed


def test_reasoning_is_found_under_every_name_it_goes_by():
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for name in ("reasoning", "reasoning_content", "thinking"):
        action = Action.parse({"content": None, name: THOUGHT, "tool_calls": [call]})
        assert (action.content, action.reasoning, len(action.tool_calls)) == ("", THOUGHT, 1)
        assert Action.parse({"content": "<think>b</think>c", name: "a"}) == Action("c", reasoning="a\nb")
        assert Action.parse({"content": "four", name: None}) == Action("four")
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}
    for part in (thought, {"type": "reasoning", "reasoning": THOUGHT}):
        assert Action.parse({"content": [part, *PARTS[2:]]}) == Action("b!", reasoning=THOUGHT)
    assert message_reasoning(Action("four", reasoning="hm").to_message()) == "hm"
    assert Action.parse(Action("four", reasoning="hm").to_message()) == Action("four", reasoning="hm")
    assert Action.parse({"content": None, "refusal": "I won't."}) == Action("I won't.")


def test_numbers_of_other_libraries_become_pythons_own():
    ids, logprobs = np.array([1, 2]), np.array([-0.5, -1.0], dtype=np.float32)
    action = Action("", (), cast("Any", ids), cast("Any", list(logprobs)), cast("Any", (7, *ids)))
    assert action == Action("", (), (1, 2), (-0.5, -1.0), (7, 1, 2))
    numbers = [*(action.token_ids or ()), *(action.logprobs or ()), *(action.prompt_token_ids or ())]
    assert [type(value) for value in numbers] == [int, int, float, float, int, int, int]
    with pytest.raises(TypeError, match="integer"):
        Action("", (), cast("Any", (1.5,)))


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
    parts = {"role": "tool", "content": [*PARTS[:2], "plain"]}
    seen: Any = to_observation(cast("Any", parts))[0]
    assert seen["content"] == [*PARTS[:2], {"type": "text", "text": "plain"}]
    seen["content"][0]["text"] = "changed"
    assert PARTS[0]["text"] == "a "
    copied = to_observation(message)[0]  # pyright: ignore[reportArgumentType]
    copied["content"] = "changed"
    assert message["content"] == "x"


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        {"role": "user"},
        {"content": "x"},
        [{"role": "user", "content": 1}],
        ["x"],
        {"role": "user", "content": [{"type": "video"}]},
    ],
)
def test_a_wrong_observation_says_what_it_got(value):
    with pytest.raises(ValueError, match=r"observation.* got "):
        to_observation(value)
