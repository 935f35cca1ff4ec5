"""What agents write is read in little time, however long and however strange: regular expressions hold the GIL."""

import time
from collections.abc import Callable
from functools import partial

import pytest
from envs_for_tests import Guess

from agentenv.agents.parsers import PARSERS, Parser
from agentenv.envs.search_qa.search_r1 import extract_answer, parse_block
from agentenv.malformed import call_problem, json_problem
from agentenv.types import Action, parse_text

MARKS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<function=",
    "<function=a>",
    "</function>",
    "<parameter=",
    "<parameter=a>",
    "</parameter>",
    "<arg_key>",
    "a</arg_key><arg_value>",
    "</arg_value>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call|>",
    "<|START_ACTION|>",
    "<|tool_call>call:a",
    '<|"|>',
    "<escape>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
    '<invoke name="a">',
    '<parameter name="a">',
    "</parameter></",
    "to=a<|message|>",
    "<|end|>",
    "<|python_tag|>",
    "```json",
    "<search>",
    "<answer>",
    "</answer>",
]
PLAIN = ["a", "1", " ", "\n", "{", "[", "(", '"', "'", "\\", ",", "=", ":", "<", "a(a=", '{"name":']
BEGUN = [
    "<function=a><parameter=a>",
    "<tool_call>a<arg_key>a</arg_key><arg_value>",
    '<tool_call>{"name": "a", "arguments": {"a": [',
    '<tool_call>{"name": "a"}',
    '<invoke name="a"><parameter name="a">',
    "<|tool_call>call:a{a:",
    '<|tool_call>call:a{a:<|"|>',
    "<|tool_call_start|>[a(a=",
    "<|tool_call_start|>[a(a='",
    "<|tool_call_start|>[a(a=x, ",
    "[a(a=x",
    "[TOOL_CALLS]a[CALL_ID]a",
    "<｜tool▁call▁begin｜>a<｜tool▁sep｜>",
    "<|tool_call_begin|>a:1",
    "to=a<|message|>",
    "<|channel|>",
]


def _step(text: str) -> None:
    env = Guess()
    env.reset(seed=1)
    env.step(text)


def _read_with(parser: Parser, text: str) -> None:
    parser(text, ())


READERS: dict[str, Callable[[str], object]] = {
    "parse_text": parse_text,
    "call_problem": call_problem,
    "json_problem": json_problem,
    "parse_block": parse_block,
    "extract_answer": extract_answer,
    "ToolEnv.step": _step,
    **{f"parsers.{family}": partial(_read_with, parser) for family, parser in PARSERS.items()},
    "Action.parse": lambda text: Action.parse({"content": text, "tool_calls": [{"name": "a", "arguments": text}]}),
}


@pytest.mark.parametrize("reader", READERS)
def test_repeats_of_any_two_pieces_are_read_in_time(reader):
    for mark in (*MARKS, *PLAIN):
        for other in (*MARKS, *PLAIN):
            pair = mark + other
            texts = pair * (1000 // len(pair)), mark * (500 // len(mark)) + other * (500 // len(other))
            start = time.process_time()
            for text in texts:
                READERS[reader](text)
            assert time.process_time() - start < 0.3, pair


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mark", MARKS)
def test_long_repeats_are_read_in_time(reader, mark):
    for piece in (mark, f"{mark}a", f'{mark}{{"'):
        start = time.process_time()
        READERS[reader](piece * (32_000 // len(piece)))
        assert time.process_time() - start < 2.0, piece


@pytest.mark.parametrize("reader", READERS)
def test_what_follows_the_beginning_of_a_call_is_read_in_time(reader):
    for begun in BEGUN:
        for piece in (*MARKS, *PLAIN, "a=1, ", "' ,", "a.", "\\'", "=a "):
            start = time.process_time()
            READERS[reader](begun + piece * (16_000 // len(piece)))
            assert time.process_time() - start < 1.0, (begun, piece)


@pytest.mark.parametrize("name", ["calculate_sum_of_numbers(3, 4)", "a" * 100_000, "a.b:c-" * 10_000, " " * 100_000])
@pytest.mark.parametrize("opening", ["<tool_call>", "<function=", "[TOOL_CALLS]", "<|tool_call_begin|>", ""])
def test_the_name_of_a_broken_call_is_read_in_time(opening, name):
    start = time.process_time()
    call_problem(opening + name)
    call_problem(f"{opening}{name}</tool_call>")
    assert time.process_time() - start < 2.0
