"""The proxy and whatever a program may send; and streams whose answer takes long, or breaks."""

import asyncio
import json
from typing import Any

import anthropic
import httpx
import openai
import pytest
from proxy_clients import call

from agentenv.agents import ScriptedAgent
from agentenv.agents.proxy import Proxy, SessionLimits
from agentenv.errors import AgentError
from agentenv.protocols import AsyncAgent

pytestmark = pytest.mark.slow

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WHOLE = {
    "chat/completions": {
        "model": "m", "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto", "max_tokens": 5,
        "messages": [
            {"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]},
            {"role": "assistant", "content": None, "reasoning": "r", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "a", "content": "t"},
        ],
    },
    "responses": {
        "model": "m", "instructions": "i", "tools": [{"type": "function", **FUNCTION}], "stream": True,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "content": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "o"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "o"},
        ],
    },
    "messages": {
        "model": "m", "max_tokens": 4, "system": [{"type": "text", "text": "s"}], "tool_choice": {"type": "auto"},
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "x"},
                {"type": "tool_use", "id": "i", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": "r"}]},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}},
            ]},
        ],
    },
}  # fmt: skip
JUNK = [None, True, -1, 1e308, "", "x", "\ud800", [], {}, [None], [[]], {"type": "x"}, [{"type": "text", "text": 3}]]


def places(value, place=()):
    yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*place, name))


def replaced(value, place, junk):
    if not place:
        return junk
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = replaced(copied[place[0]], place[1:], junk)
    return copied


@pytest.mark.parametrize("path", WHOLE)
def test_whatever_is_wrong_is_a_bad_request_or_answered(path):
    with Proxy(ScriptedAgent(lambda _: call("f", a="\ud800")), limits=SessionLimits(max_calls=None)) as proxy:
        told = proxy.describe(proxy.open())
        with httpx.Client(headers={"x-api-key": told["api_key"]}) as client:
            address = f"{told['base_url']}/{path}"
            assert client.post(address, content=json.dumps(WHOLE[path])).status_code == 200
            for number, place in enumerate(places(WHOLE[path])):
                for junk in JUNK[number % 5 :: 5]:
                    body = json.dumps(replaced(WHOLE[path], place, junk))
                    answer = client.post(address, content=body)
                    assert answer.status_code in {200, 400, 404}, f"{place} {junk!r}: {answer.text}"
                    assert answer.status_code == 200 or '"message"' in answer.text


# ---------------------------------------------------------------------- slow streams


class Slow(AsyncAgent):
    """Takes its time, and then answers or breaks."""

    def __init__(self, breaks):
        self.breaks = breaks

    async def respond(self, context, /) -> Any:
        await asyncio.sleep(0.3)
        if self.breaks:
            msg = "out of memory"
            raise AgentError(msg)
        return {**call("look", "well", at="x"), "reasoning": "hm"}


def stream_chat(session):
    with openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"], max_retries=0) as client:
        tools: Any = [{"type": "function", "function": FUNCTION | {"name": "look"}}]
        ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools}
        with client.chat.completions.stream(**ask) as events:
            made = events.get_final_completion().choices[0].message
    return made.content, [(one.function.name, one.function.arguments) for one in made.tool_calls or ()]


def stream_responses(session):
    with (
        openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"], max_retries=0) as client,
        client.responses.stream(model="m", input="hi") as events,
    ):
        made = events.get_final_response()
    calls = [item for item in made.output if item.type == "function_call"]
    return made.output_text, [(one.name, one.arguments) for one in calls]


def stream_messages(session):
    url = session["anthropic_base_url"]
    with anthropic.Anthropic(base_url=url, api_key=session["api_key"], max_retries=0) as client:
        ask: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        with client.messages.stream(**ask) as events:
            made = events.get_final_message()
    text = "".join(block.text for block in made.content if block.type == "text")
    return text, [(one.name, json.dumps(one.input)) for one in made.content if one.type == "tool_use"]


@pytest.mark.parametrize("converse", [stream_chat, stream_responses, stream_messages])
def test_a_stream_shows_signs_of_life_while_the_agent_thinks(converse, monkeypatch):
    monkeypatch.setattr("agentenv.agents.proxy.app._KEEP_ALIVE_SECONDS", 0.05)
    with Proxy(Slow(breaks=False)) as proxy:
        session = proxy.open(tree="t")
        assert converse(proxy.describe(session)) == ("well", [("look", '{"at": "x"}')])
        session.give_reward(1)
        proxy.end(session)
        action = proxy.trees["t"].nodes[1].action
        assert action is not None
        assert (action.reasoning, len(proxy.trees["t"])) == ("hm", 2)


@pytest.mark.parametrize("converse", [stream_chat, stream_responses, stream_messages])
def test_an_outage_in_mid_stream_is_an_error_of_the_client(converse, monkeypatch):
    monkeypatch.setattr("agentenv.agents.proxy.app._KEEP_ALIVE_SECONDS", 0.05)
    with Proxy(Slow(breaks=True)) as proxy:
        session = proxy.open()
        with pytest.raises((openai.APIError, anthropic.APIError), match="out of memory"):
            converse(proxy.describe(session))
        assert "out of memory" in proxy.end(session)["failure"]
