"""ScriptedAgent: functions and lists, in batches and in branches."""

import pytest

from agentenv.agents import ScriptedAgent
from agentenv.errors import EpisodeError
from agentenv.protocols import Agent, Context
from agentenv.types import Action, Message, ToolCall

QUESTION: Message = {"role": "user", "content": "?"}


def said(*texts: str) -> Context:
    messages: list[Message] = [QUESTION]
    for text in texts:
        reply: Message = {"role": "assistant", "content": text}
        messages += [reply, QUESTION]
    return Context(tuple(messages))


def test_a_function_of_the_context():
    agent = ScriptedAgent(lambda context: f"{len(context.messages)} messages")
    assert isinstance(agent, Agent)
    assert agent.act([said(), said("a")]) == [Action("1 messages"), Action("3 messages")]
    assert agent.act([]) == []


def test_a_list_is_read_by_position_so_branches_agree():
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "go", "arguments": {"far": True}}}],
    }
    agent = ScriptedAgent(["first", call, Action("third")])
    late, early, middle = agent.act([said("a", "b"), said(), said("other")])
    assert (early, late) == (Action("first"), Action("third"))
    assert middle.tool_calls == (ToolCall("go", {"far": True}),)
    assert agent.act([said()]) == [early]


def test_text_may_hold_a_tool_call():
    (action,) = ScriptedAgent(['<tool_call>{"name": "go", "arguments": {}}</tool_call>']).act([said()])
    assert action.tool_calls == (ToolCall("go", {}, "call_0"),)


def test_a_list_that_is_used_up_is_said():
    with pytest.raises(EpisodeError, match="it has 1, and step 2 is due"):
        ScriptedAgent(["only"]).act([said("only")])


def test_what_is_no_action_is_refused():
    with pytest.raises(ValueError, match="action must be a str, an assistant message"):
        ScriptedAgent([7]).act([said()])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("policy", [5, None, "one action", {"role": "assistant", "content": "one"}, Action("one")])
def test_a_policy_is_a_function_or_a_list(policy):
    with pytest.raises(TypeError, match="policy must be a function of the context, or a list of actions, got "):
        ScriptedAgent(policy)
