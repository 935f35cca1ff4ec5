"""OpenEnv servers and clients that say what nobody expects: an error that names it, and no other session suffers."""

import json
from typing import Any

import pytest
from envs_for_tests import Dice, call
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from websockets.sync.client import connect

from agentenv.errors import InfrastructureError, ToolServerError
from agentenv.interop import OpenEnvEnv, OpenEnvServer, openenv_client
from agentenv.types import message_text
from agentenv.web_server import WebServer

FIELDS = {"action": {"properties": {"x": {"type": "integer"}}}}
TOOLS = {"action": {"properties": {"tool_name": {}, "arguments": {}}}}
CHAT = {"action": {"properties": {"content": {}, "tool_calls": {}}}}
UNKNOWN = {"type": "error", "data": {"code": "UNKNOWN_TYPE", "message": "?"}}


class Liar:
    """A server that answers by a table: from an address, or a type of message, to what is said."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        routes = [Route("/metadata", self._get), Route("/schema", self._get), WebSocketRoute("/ws", self._talk)]
        self._web = WebServer(
            Starlette(routes=routes), host="127.0.0.1", port=0, name="liar", ws="websockets-sansio", ws_max_size=1 << 27
        )
        self.url = f"http://127.0.0.1:{self._web.port}"
        self.close = self._web.close

    async def _get(self, request: Any) -> Response:
        return Response(text(self.answers[request.url.path]), media_type="application/json")

    async def _talk(self, socket: Any) -> None:
        await socket.accept()
        while (message := await socket.receive())["type"] == "websocket.receive":
            answer = self.answers.get(json.loads(message["text"])["type"], UNKNOWN)
            if answer == "hang up":
                await socket.close()
                return
            await socket.send_text(text(answer))


def text(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer)


def seen(**changes: Any) -> dict[str, Any]:
    return {"type": "observation", "data": {"observation": {"x": 1}, "reward": 0.5, "done": False} | changes}


@pytest.fixture(scope="module")
def server():
    liar = Liar()
    yield liar
    liar.close()


@pytest.fixture
def liar(server):
    server.answers = {"/metadata": {"name": "liar"}, "/schema": FIELDS, "reset": seen(), "step": seen()}
    return server


def listed(result: Any) -> dict[str, Any]:
    return {"/schema": TOOLS, "mcp": {"type": "mcp", "data": {"result": result}}}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"/metadata": [1]}, "must be a JSON object"),
        ({"/metadata": "[" * 100_000}, "does not answer /metadata"),
        ({"/schema": {"action": "text"}}, "/schema answers what OpenEnv's servers do not: the whole"),
        (
            {"/schema": {"action": {"properties": ["content", "tool_calls"]}}},
            "properties: Input should be a valid dict",
        ),
        ({"/schema": {"action": {"properties": {"x": 5}}}}, r"properties\.x: Input should be"),
        ({"/schema": CHAT}, "refused mcp"),
        (listed("text"), "tools/list answers what"),
        (listed({"tools": [{}]}), r"tools\.0\.name: Field required"),
        (listed({"tools": [{"name": "a", "inputSchema": "text"}]}), r"tools\.0\.inputSchema: Input should be"),
        (
            {"branching": {"type": "branching", "data": {"version": 1, "success_threshold": "high"}}},
            "success_threshold",
        ),
    ],
)
def test_a_server_that_says_odd_things_of_itself_is_named(liar, answers, why):
    liar.answers |= answers
    with pytest.raises(ToolServerError, match=why):
        OpenEnvEnv(liar.url, timeout_s=20)


ODD: dict[str, Any] = {
    "reward: Input should be a valid number": seen(reward="much"),
    "reward: Input should be a finite number": seen(reward=float("nan")),
    "done: Input should be a valid boolean": seen(done="perhaps"),
    "observation: Input should be a valid dictionary": seen(observation=[1]),
    "metadata: Input should be": seen(metadata=[1]),
    r"metadata\.rewards\.a: Input should be a valid number": seen(metadata={"rewards": {"a": "b"}}),
    r"metadata\.mistakes: Input should be a valid list": seen(metadata={"mistakes": "none"}),
    "where data was expected": seen() | {"data": None},
    "data was expected": [1],
    "JSONDecodeError": "{",
    "RecursionError": '{"type": "observation", "data": ' + "[" * 50_000,
    "ConnectionClosed": "hang up",
    "message too big": seen(observation={"x": "y" * (2 << 20)}),
}


@pytest.mark.parametrize("why", ODD)
def test_an_odd_answer_to_a_step_is_no_reward(liar, why, monkeypatch):
    monkeypatch.setattr(openenv_client, "MAX_MESSAGE_BYTES", 1 << 20)
    env = OpenEnvEnv(liar.url, timeout_s=20)
    env.reset(seed=1)
    liar.answers["step"] = liar.answers["reset"] = ODD[why]
    with pytest.raises(InfrastructureError, match=why):
        env.step(call("act", x=1))
    env.close()


def test_what_is_only_odd_is_shown(liar):
    """Messages that are none are JSON, halves of surrogate pairs and ten megabytes pass, a yes in words is one."""
    odd = [{"messages": [{"role": 5, "content": "a"}]}, {"messages": [{"role": "user", "content": None}]}]
    odd += [{"words": "\ud83d"}, {"words": "y" * 10_000_000}]
    env = OpenEnvEnv(liar.url, timeout_s=60)
    for observation in odd:
        liar.answers["step"] = seen(observation=observation, reward="0.25", done="no")
        env.reset(seed=1)
        shown, reward, terminated, *_ = env.step(call("act", x=1))
        assert json.loads(message_text(shown[0])) == observation and (reward, terminated) == (0.25, False)
    env.close()


def test_a_server_that_does_not_keep_what_it_promised(liar):
    liar.answers["branching"] = {"type": "branching", "data": {"version": 1}}
    env = OpenEnvEnv(liar.url, timeout_s=20)
    env.reset(seed=1)
    with pytest.raises(ToolServerError, match="refused snapshot"):
        env.snapshot()
    liar.answers["snapshot"] = {"type": "snapshot", "data": {}}
    with pytest.raises(ToolServerError, match="snapshot_id: Field required"):
        env.snapshot()
    env.close()


def test_odd_words_of_a_client_end_no_session():
    with OpenEnvServer(Dice, port=0) as server, connect(f"ws{server.url[4:]}/ws", proxy=None) as socket:

        def ask(message: Any) -> Any:
            socket.send(message if isinstance(message, bytes) else json.dumps(message))
            return json.loads(socket.recv(60))["data"]

        ask({"type": "reset", "data": {"seed": 1}})
        assert ask(b"\xff\xfe")["code"] == "INVALID_JSON"
        for params in ([1], "text", 7):
            data = {"method": "tools/call", "params": params}
            assert ask({"type": "mcp", "data": data})["code"] == "VALIDATION_ERROR"
        one = {"id": "c", "function": {"name": "roll", "arguments": '{"sides": 2}'}}
        twice = ask({"type": "step", "data": {"content": None, "tool_calls": [one, one | {"id": 7}]}})
        assert [message["tool_call_id"] for message in twice["observation"]["messages"]] == ["c", "7"]
        broken = {"name": "roll", "arguments": '{"sides": '}
        half = ask({"type": "step", "data": {"content": "\ud83d", "tool_calls": [one | {"function": broken}]}})
        assert "it ends before it is complete" in half["metadata"]["mistakes"][0]
        assert ask({"type": "state"})["step_count"] == 2
