"""Agents that a user writes: whatever form an action has, and whatever a client library raises."""

import random
import urllib.error
from email.message import Message
from typing import Any

import httpx
import pytest
from envs_for_tests import Guess

import agentenv as ae
from agentenv.protocols import AsyncAgent
from agentenv.rollout import Rollout
from agentenv.rollout.outages import failure_of

GUESS = {"type": "function", "function": {"name": "guess", "arguments": '{"number": 50}'}}
FORMS: dict[str, Any] = {
    "an action": ae.Action("", (ae.ToolCall("guess", {"number": 50}),)),
    "a message": {"role": "assistant", "content": None, "tool_calls": [GUESS]},
    "a message with parts": {"role": "assistant", "content": [{"type": "text", "text": "so"}], "tool_calls": [GUESS]},
    "a message that reasons": {"content": "", "reasoning_content": "hm", "tool_calls": [GUESS]},
    "text": 'So: <tool_call>{"name": "guess", "arguments": {"number": 50}}</tool_call>',
    "text that reasons": '<think>hm</think><tool_call>{"name": "guess", "arguments": {"number": 50}}</tool_call>',
}


class Says:
    """An agent that always returns the same."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def act(self, contexts):
        return [self.value for _ in contexts]


class SaysLater(AsyncAgent):
    def __init__(self, value: Any) -> None:
        self.value = value

    async def respond(self, context):
        return self.value


def grown(agent: Any, **options: Any) -> Any:
    with Rollout(Guess, agent, keep_snapshots=False, **options) as rollout:
        return rollout.grow([None], 3)[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [Says, SaysLater])
def test_an_action_may_have_any_form(kind, form):
    tree = grown(kind(FORMS[form]))
    actions = [node.action for node in tree.nodes[1:]]
    assert {(call.name, call.arguments["number"]) for action in actions for call in action.tool_calls} == {
        ("guess", 50)
    }
    assert {action.reasoning for action in actions} == {"hm" if "reasons" in form else ""}


@pytest.mark.parametrize(
    "value", [7, {"role": "user", "content": "x"}, {"content": [{"type": "sound"}]}, [GUESS], b"x"]
)
@pytest.mark.parametrize("kind", [Says, SaysLater])
def test_what_is_no_action_is_named_with_the_agent(kind, value):
    with pytest.raises(
        ValueError, match=rf"{kind.__name__} must return actions \(Action, text or an assistant message\): "
    ):
        grown(kind(value))


class Drops(Says):
    """A client whose every second call meets an outage."""

    calls = 0

    def __init__(self, error: Exception) -> None:
        super().__init__(FORMS["a message"])
        self.error = error

    def act(self, contexts):
        self.calls += 1
        if self.calls % 2 == 0:
            raise self.error
        return super().act(contexts)


class DropsLater(AsyncAgent):
    calls = 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def respond(self, context):
        self.calls += 1
        if self.calls in {2, 5, 9}:
            raise self.error
        return FORMS["a message"]


OUTAGES = [httpx.ReadTimeout("slow"), httpx.ConnectError("away"), ConnectionResetError("gone"), TimeoutError("slow")]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
@pytest.mark.parametrize("kind", [Drops, DropsLater])
def test_an_outage_of_a_client_is_a_failure_and_loses_nothing(kind, error):
    tree = grown(kind(error), retries=30)
    failed = [node for node in tree.nodes if "failure" in node.info]
    ended = [node for node in tree.nodes if node.ended and node.reward is not None]
    assert failed
    assert all(type(error).__name__ in node.info["failure"] and node.reward is None for node in failed)
    if kind is DropsLater:
        assert len(ended) == 3


class MyClientError(Exception):
    """What a client library of the author's own raises."""


@pytest.mark.parametrize("declared", [MyClientError, (KeyError, MyClientError)])
@pytest.mark.parametrize("kind", [Drops, DropsLater])
def test_an_author_declares_what_is_tried_again(kind, declared):
    agent = kind(MyClientError("the line is dead"))
    agent.retryable = declared
    tree = grown(agent, retries=30)
    failed = [node.info["failure"] for node in tree.nodes if "failure" in node.info]
    assert failed and set(failed) == {"AgentError: MyClientError: the line is dead"}
    agent = kind(MyClientError("the line is dead"))
    agent.retryable = ("MyClientError",)
    with pytest.raises(TypeError, match=rf"{kind.__name__}.retryable must be a tuple of exception classes"):
        grown(agent, retries=30)


def test_one_episode_of_sixteen_meets_an_outage_and_the_others_go_on():
    class Once(SaysLater):
        calls = 0

        async def respond(self, context):
            self.calls += 1
            if self.calls == 20:
                raise OUTAGES[0]
            return await super().respond(context)

    with Rollout(Guess, Once(FORMS["a message"]), keep_snapshots=False) as rollout:
        (tree,) = rollout.grow([None], 16)
    assert rollout.failures == 1
    assert len([leaf for leaf in tree.leaves() if tree.nodes[leaf].reward is not None]) == 16


def test_some_requests_of_a_plain_agent_meet_an_outage_and_no_episode_is_lost():
    class Asks:
        outages = 0
        dice = random.Random(0)

        def act(self, contexts):
            return [self.ask() for _ in contexts]

        def ask(self):
            if self.dice.random() < 0.03:
                self.outages += 1
                raise OUTAGES[0]
            return FORMS["a message"]

    agent = Asks()
    with Rollout(Guess, agent, keep_snapshots=False) as rollout:
        (tree,) = rollout.grow([None], 16)
    assert agent.outages > rollout.failures, "most batches met one, and few episodes had to begin again"
    assert len([leaf for leaf in tree.leaves() if tree.nodes[leaf].reward is not None]) == 16


def answered(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://x")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 529])
def test_a_server_that_is_busy_or_broken_is_an_outage(status):
    refused = urllib.error.HTTPError("http://x", status, "no", Message(), None)
    assert failure_of(answered(status)) and failure_of(refused)
    refused.close()


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_request_that_is_refused_is_none(status):
    assert failure_of(answered(status)) is None


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError("x"), httpx.InvalidURL("x"), ValueError("x")])
def test_bugs_are_no_outages(error):
    assert failure_of(error) is None
    with pytest.raises(type(error)):
        grown(Drops(error))
