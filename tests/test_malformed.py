"""Broken tool calls: the observation says what is wrong, and where."""

import json

import pytest
from envs_for_tests import Guess
from hypothesis import given
from hypothesis import strategies as st

from agentenv.malformed import call_problem, json_problem
from agentenv.types import message_text

TICKS = "`" * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<tool_call>\n{"name": "guess", "arguments": {"number": 5 6}}\n</tool_call>', "at line 1, column 45, near"),
        ('<tool_call>\n{"name": "guess",\n "arguments": {number: 5}}\n</tool_call>', "at line 2, column 16, near"),
        ('<tool_call>\n{"name": "guess", "arguments": {"number": 5', "it ends before it is complete"),
        ('<tool_call>{"name": "guess", "arguments": {"number": "5', "Unterminated string starting"),
        ('<tool_call>{"arguments": {"number": 5}}</tool_call>', "a tool call needs a 'name'"),
        ('<tool_call>{"name": "guess"} }</tool_call>', "After its JSON comes '}</tool_call>'"),
        ("<tool_call>guess(5)</tool_call>", "It begins with 'guess(5)</tool_call>'"),
        (
            "<tool_call>\n<function=guess>\n<parameter=number>\n5\n</function>\n</tool_call>",
            "'<parameter=number>' is never closed by '</parameter>'",
        ),
        ("<function=guess>\n<parameter=a>\n5\n</parameter>", "'<function=guess>' is never closed by '</function>'"),
        (
            "<tool_call>guess\n<arg_key>number</arg_key>\n<arg_value>5\n</tool_call>",
            "'<arg_value>5' is never closed by '</arg_value>'",
        ),
        ('[TOOL_CALLS]guess[ARGS]{"number" 5}', "Expecting ':' delimiter at line 1, column 11, near"),
        ('[TOOL_CALLS][{"name": "guess", "arguments": {"number": 5}]', "Expecting ',' delimiter"),
        (
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>guess\n{TICKS}json\n{{number: 5}}\n{TICKS}",
            "enclosed in double quotes at line 1, column 2, near",
        ),
        ('{"name": "guess", "parameters": {"number": 5}', "it ends before it is complete"),
        ('<|python_tag|>{"name": "guess", "parameters": {"number" = 5}}', "Expecting ':' delimiter"),
        ('<tool_call>{"name": "guess", "arguments": {"number": NaN}}</tool_call>', "is not a JSON number"),
        ('<tool_call>{"a": ' + "[" * 200_000 + "</tool_call>", "nested too deep"),
        ('<invoke name="guess"><parameter name="number">5</invoke>', "is never closed by 'parameter>'"),
    ],
)
def test_a_broken_call_is_named_with_its_place(text, words):
    assert words in call_problem(text)
    env = Guess()
    env.reset(seed=1)
    observation, _, _, _, info = env.step(text)
    assert words in message_text(observation[0])
    assert len(info["mistakes"]) == 1


@pytest.mark.parametrize(
    "text", ["", "forty-two", '{"name": "Bob", "age": 3}', "[1, 2]", "a < b", "I called the tool."]
)
def test_text_that_opens_no_call_has_no_problem(text):
    assert call_problem(text) == ""


def test_a_broken_call_beside_a_good_one_is_told_with_the_answer():
    env = Guess()
    env.reset(seed=1)
    good = '<tool_call>{"name": "guess", "arguments": {"number": 50}}</tool_call>'
    observation, _, _, _, info = env.step(f'{good}\n<tool_call>{{"name": "guess", "arguments": {{5}}}}</tool_call>')
    (answer,) = observation
    assert answer["role"] == "tool"
    assert "another tool call of the message was not made: the tool call is not valid JSON: " in message_text(answer)
    assert len(info["mistakes"]) == 1
    assert "not made" not in message_text(env.step(good)[0][0])


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_has_no_problem_and_a_cut_one_has(value):
    written = json.dumps({"a": value})
    assert json_problem(written) == json_problem(f"x{written}", 1) == ""
    assert "it ends before it is complete" in json_problem(written[:-1])


@given(text=st.text(max_size=30), tag=st.sampled_from(["<tool_call>", "<function=", "[TOOL_CALLS]", "<invoke ", ""]))
def test_any_text_has_a_short_answer(text, tag):
    assert len(call_problem(tag + text)) < 400
    assert bool(call_problem(tag + text)) or not tag
