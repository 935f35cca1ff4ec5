"""HumanAgent: what a person reads and types, through streams and through a real terminal."""

import io
import os
import pty
import select
import subprocess
import sys
import time
from typing import Any

import pytest

import agentenv as ae
from agentenv.agents import HumanAgent, PlayerLeftError
from agentenv.agents.typed_actions import describe_tool, read_action
from agentenv.errors import AgentEnvError
from agentenv.protocols import Agent, Context
from agentenv.types import Action, Message


def tool(function_name: str, *required: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    function = {"name": function_name, "description": f"Does {function_name}.\nAt length.", "parameters": parameters}
    return {"type": "function", "function": function}


GUESS = tool("guess", "number", number={"type": "integer", "description": "From 1 to 100."})
MOVE = tool("move", "steps", "way", steps={"type": "number"}, way={"type": "string"}, fast={"type": "boolean"})
CALCULATE = tool("calculate", "expression", expression={"type": "string"})
SUBMIT = tool("submit", "answer", answer={"anyOf": [{"type": "string"}, {"type": "integer"}]})
LOOK = tool("look")
SET = tool("set", "values", values={"type": "array"})
EDIT = tool("edit", "old", "new", old={"type": "string"}, new={"type": "string"})
FILL = tool("fill", "cells", "map", "note", cells={"type": "array"}, map={"type": "object"}, note={"type": "string"})
SAY = tool("say", "text", text={"type": "string"})
ENUMS = {"$defs": {"Side": {"enum": ["1", "true", "null"], "type": "string"}, "Size": {"enum": [1, "1", "big"]}}}
TRADE = tool(
    "trade", "side", side={"$ref": "#/$defs/Side"}, size={"anyOf": [{"$ref": "#/$defs/Size"}, {"type": "null"}]},
    note={"type": "string"},
)  # fmt: skip
TRADE["function"]["parameters"] |= ENUMS
BUY = tool("buy", "item", item={"type": "string"}, count={"type": "integer"}, note={"type": "string"})
TOOLS = (TRADE, BUY, GUESS, MOVE, CALCULATE, SUBMIT, LOOK, SET, EDIT, FILL, SAY)


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("guess 50", "guess", {"number": 50}),
        ("  guess number=50 ", "guess", {"number": 50}),
        ('{"name": "guess", "arguments": {"number": 50}}', "guess", {"number": 50}),
        ("move 3 far left", "move", {"steps": 3, "way": "far left"}),
        ("move 0.5 left", "move", {"steps": 0.5, "way": "left"}),
        ('move way="far left" steps=3 fast=true', "move", {"steps": 3, "way": "far left", "fast": True}),
        ("calculate (3 + 4) * 2", "calculate", {"expression": "(3 + 4) * 2"}),
        ("calculate 1 x=3", "calculate", {"expression": "1 x=3"}),
        ("calculate x=3", "calculate", {"expression": "x=3"}),
        ('calculate "3 + 4"', "calculate", {"expression": "3 + 4"}),
        ("submit 42", "submit", {"answer": "42"}),
        ('edit "a b" "c d"', "edit", {"old": "a b", "new": "c d"}),
        ("edit 'it is' it\\'s", "edit", {"old": "it is", "new": "it\\'s"}),
        ('edit "say \\"hi\\"" "" ', "edit", {"old": 'say "hi"', "new": ""}),
        ("edit don't do not", "edit", {"old": "don't", "new": "do not"}),
        ('edit "x = 1" x=2', "edit", {"old": "x = 1", "new": "x=2"}),
        ('edit old="a b" new="c d"', "edit", {"old": "a b", "new": "c d"}),
        (
            'fill [1, [2, 3]]  {"a b": [ ]} the rest',
            "fill",
            {"cells": [1, [2, 3]], "map": {"a b": []}, "note": "the rest"},
        ),
        ("fill \"[1, 2]\" {} '[x]'", "fill", {"cells": [1, 2], "map": {}, "note": "[x]"}),
        ("move 3 'far \"left\"'", "move", {"steps": 3, "way": 'far "left"'}),
        (r"calculate expression=\frac{1}{2}", "calculate", {"expression": r"\frac{1}{2}"}),
        (r'calculate expression="\sqrt 2 \\ \"x\""', "calculate", {"expression": r'\sqrt 2 \ "x"'}),
        (r"calculate expression='a\b c'", "calculate", {"expression": r"a\b c"}),
        (r'calculate "\frac{1}{2} + 1"', "calculate", {"expression": r"\frac{1}{2} + 1"}),
        (r'edit "C:\new dir" "D:\\x"', "edit", {"old": r"C:\new dir", "new": r"D:\x"}),
        ("edit old= new=don't", "edit", {"old": "", "new": "don't"}),
        ("fill note='a b' cells=[1, [2]] map={}", "fill", {"note": "a b", "cells": [1, [2]], "map": {}}),
        ('say "hello world"', "say", {"text": "hello world"}),
        ('say text="hello world"', "say", {"text": "hello world"}),
        ('say "hello" she said', "say", {"text": '"hello" she said'}),
        ('calculate "3" + "4"', "calculate", {"expression": '"3" + "4"'}),
        ("look", "look", {}),
        ("trade 1", "trade", {"side": "1"}),
        ("trade side=true size=1", "trade", {"side": "true", "size": "1"}),
        ("trade true big", "trade", {"side": "true", "size": "big"}),
        ("trade null big a note", "trade", {"side": "null", "size": "big", "note": "a note"}),
        ("buy apples", "buy", {"item": "apples"}),
        ("buy apples 3", "buy", {"item": "apples", "count": 3}),
        ("buy red apples", "buy", {"item": "red apples"}),
        ("buy red apples 3", "buy", {"item": "red apples 3"}),
        ('buy "red apples" 3', "buy", {"item": "red apples", "count": 3}),
        ('buy "red apples" 3 the big ones', "buy", {"item": "red apples", "count": 3, "note": "the big ones"}),
        ("buy 'tis 3", "buy", {"item": "'tis 3"}),
        ("move 3 left true", "move", {"steps": 3, "way": "left", "fast": True}),
        ("set [1, 2]", "set", {"values": [1, 2]}),
    ],
)
def test_tool_calls(line: str, name: str, arguments: dict[str, Any]):
    (call,) = read_action(line, TOOLS).tool_calls
    assert (call.name, call.arguments) == (name, arguments)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("I give up", "I give up"),
        ("> guess what", "guess what"),
        ('{"role": "assistant", "content": "hello"}', "hello"),
        ("é 😀", "é 😀"),
    ],
)
def test_text(line: str, text: str):
    assert read_action(line, TOOLS) == Action(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "type an action, or \\? for help"),
        ("guess", "guess needs number. Usage:\nguess NUMBER  Does guess."),
        ("guess fifty", "number must be an integer, got 'fifty'"),
        ("guess true", "number must be an integer, got 'true'"),
        ("move fast=maybe steps=1 way=a", "fast must be true or false, got 'maybe'"),
        ("move step=1", "move has no argument 'step'; it has steps, way, fast"),
        ("move steps=1 left", "name every argument or none: 'left' has no name"),
        ("move steps='1", "the quotes of .* do not match"),
        ('edit "a b', "the quotes of '\"a b' do not match"),
        ('edit "a b"c d', "the quotes of .* do not match"),
        ("fill [1, 2 x y", "does not begin with valid JSON"),
        ('edit "a b"', "edit needs new. Usage:"),
        ("gues 50", "no tool is called 'gues'; did you mean 'guess'\\? To say it as text: > gues 50"),
        ("look here", "look takes no arguments, got 'here'"),
        ('{"a": ' + "[" * 100_000, "not valid JSON: .*recursion"),
        ("fill " + "[" * 100_000, "does not begin with valid JSON: .*recursion"),
        ("guess " + "[" * 100_000, "number must be an integer"),
        ("{guess 50}", "not valid JSON: .* at column 2"),
        ('{"arguments": {}}', "a tool call needs a 'name'"),
        ('{"role": "user", "content": "hi"}', "must be 'assistant'"),
    ],
)
def test_wrong_input_is_explained(line: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_action(line, TOOLS)


def test_a_tool_is_described_as_one_types_it():
    assert describe_tool(MOVE).splitlines() == [
        "move STEPS WAY [FAST]  Does move.",
        "  steps (number)",
        "  way (string)",
        "  fast (boolean)",
    ]
    assert describe_tool(TRADE).splitlines()[1:3] == ["  side (1 or true or null)", "  size (1 or 1 or big)"]
    assert describe_tool(GUESS).splitlines()[1] == "  number (integer): From 1 to 100."


def ask(lines: str, *contexts: Context) -> tuple[list[Action], str]:
    writer = io.StringIO()
    agent = HumanAgent(reader=io.StringIO(lines), writer=writer)
    assert isinstance(agent, Agent)
    return agent.act(contexts), writer.getvalue()


START: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "[1, 2] or [b]3[/b]?"},
)
LATER: tuple[Message, ...] = (
    *START,
    {"role": "assistant", "content": "hm"},
    {"role": "tool", "name": "guess", "content": "higher"},
)


def test_the_first_turn_shows_everything_and_the_tools():
    actions, shown = ask("guess 50\n", Context(START, TOOLS))
    assert actions[0].tool_calls[0].arguments == {"number": 50}
    assert "system: Be brief." in shown
    assert "user: [1, 2] or [b]3[/b]?" in shown  # no markup is read from messages
    assert "guess NUMBER  Does guess." in shown


def test_later_turns_show_what_is_new():
    actions, shown = ask("look\n", Context(LATER, TOOLS))
    assert actions[0].tool_calls[0].name == "look"
    assert "tool guess: higher" in shown
    assert "Be brief" not in shown
    assert "NUMBER" not in shown
    assert "NUMBER" in ask("?\nlook\n", Context(LATER, TOOLS))[1]


def test_it_asks_again_until_it_understands():
    actions, shown = ask("\ngess 1\nguess x\nguess 7\n", Context(LATER, TOOLS))
    assert actions[0].tool_calls[0].arguments == {"number": 7}
    for message in ("type an action", "did you mean 'guess'?", "number must be an integer, got 'x'"):
        assert message in shown


def test_several_episodes_are_numbered():
    actions, shown = ask("one\ntwo\n", Context(START), Context(LATER))
    assert [action.content for action in actions] == ["one", "two"]
    assert "episode 2 of 2" in shown


def test_the_end_of_input_is_an_error_of_its_own():
    with pytest.raises(PlayerLeftError, match="the input ended before an action was given") as caught:
        ask("gess 1\n", Context(LATER, TOOLS))
    assert isinstance(caught.value, AgentEnvError)
    assert isinstance(caught.value, EOFError)


PROGRAM = """
import agentenv as ae
from agentenv.agents import HumanAgent
from agentenv.protocols import Context

class Guess(ae.ToolEnv):
    "Guess a number."
    max_steps = 7
    class State(ae.State):
        target: int = 42
    def start(self, task):
        return "I am thinking of a number from 1 to 100."
    @ae.tool
    def guess(self, number: int) -> str:
        "Submit one guess."
        if number == self.state.target:
            return self.finish("correct", reward=1.0)
        return "higher" if number < self.state.target else "lower"

env, agent = Guess(), HumanAgent()
messages, reward, ended = list(env.reset(seed=0)[0]), 0.0, False
while not ended:
    action = agent.act([Context(tuple(messages), env.tools)])[0]
    observation, reward, terminated, truncated, _ = env.step(action)
    messages += [action.to_message(), *observation]
    ended = terminated or truncated
print("reward", reward)
"""


def at_a_terminal(*answers: bytes) -> tuple[str, int]:
    """Runs the program at a pseudo-terminal, types an answer at each prompt, and returns what stood on the screen."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True
    )
    os.close(slave)
    screen, pending, deadline = b"", list(answers), time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    screen += os.read(master, 4096)
                except OSError:  # the other side closed
                    break
            if pending and screen.rstrip(b" ").endswith(b"\n>"):
                os.write(master, pending.pop(0))
                screen += b"|"
        return screen.decode(), process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_whole_episode_at_a_real_terminal():
    assert ae.ToolEnv  # the program below uses it
    screen, code = at_a_terminal(b"guess 10\n", b"guess fifty\n", b"guess 42\n")
    assert code == 0, screen
    assert "higher" in screen
    assert "number must be an integer, got 'fifty'" in screen
    assert "reward 1.0" in screen


def test_ctrl_d_at_a_real_terminal():
    screen, code = at_a_terminal(b"\x04")
    assert code == 1
    assert "PlayerLeftError: the input ended before an action was given" in screen
