"""The proxy before the real clients of three protocols: answers, errors in each one's shape, limits, ends."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest
from proxy_clients import CONVERSE, call, converse_chat, http

from agentenv import make
from agentenv.agents import ScriptedAgent
from agentenv.agents.proxy import Proxy, SessionLimits
from agentenv.errors import AgentError
from agentenv.protocols import AsyncAgent
from agentenv.serialize import read_trees

TASK = {"question": "Compute (9 - 2) * 3.", "reference": "21"}
SCRIPT = [
    {**call("calculate", "First the sum.", expression="9 - 2"), "reasoning": "step by step"},
    call("calculate", expression="7 *"),  # a mistake
    call("calculate", expression='7 * 3  # "quoted" and é'),
    call("submit", answer="21"),
]


def math(**options):
    return make("agentenv/MathVerifier-v0", **options)


def opened(proxy, **fields):
    status, session = http("POST", f"{proxy.url}/sessions", proxy.key, {"task": TASK, **fields})
    assert status == 200, session
    return session


def ended(proxy, session, **fields):
    status, found = http("POST", f"{proxy.url}/sessions/{session['id']}/end", proxy.key, fields)
    assert status == 200, found
    return found


def actions(tree):
    taken = [(node.parent, node.action) for node in tree.nodes[1:]]
    return [(p, a.content, [(c.name, c.arguments) for c in a.tool_calls], a.reasoning) for p, a in taken]


@pytest.mark.parametrize("name", CONVERSE)
def test_every_protocol_gives_the_same_episode(name, tmp_path):
    out = tmp_path / "trees.jsonl"
    with Proxy(ScriptedAgent(SCRIPT), math, out=out) as proxy:
        session = opened(proxy, seed=3, tree="one")
        said = CONVERSE[name](session)
        status = ended(proxy, session)
    assert said == ["First the sum.", "", "", "", "The episode has ended."]
    assert (status["reward"], status["calls"], status["env_steps"]) == (1.0, 4, 4)
    (tree,) = read_trees(out)
    assert tree.nodes == proxy.trees["one"].nodes
    assert [node.parent for node in tree.nodes] == [-1, 0, 1, 2, 3]
    assert actions(tree)[0][3] == "step by step"
    assert tree.nodes[2].info["mistakes"]
    assert [tree.nodes[i].observation[0]["content"] for i in (1, 4)] == ["7", "correct"]
    assert tree.episode_return(4) == 1.0
    assert tree.nodes[4].terminated


def test_what_is_recorded_is_what_a_native_rollout_records():
    from agentenv.rollout import rollout_trees

    with Proxy(ScriptedAgent(SCRIPT), math) as proxy:
        session = opened(proxy, tree="one")
        converse_chat(session)
        ended(proxy, session)
        tree = proxy.trees["one"]
    (native,) = rollout_trees(math, ScriptedAgent(SCRIPT), [TASK])
    assert actions(tree) == actions(native)
    for ours, theirs in zip(tree.nodes, native.nodes, strict=True):
        assert (ours.reward, ours.terminated, ours.truncated) == (theirs.reward, theirs.terminated, theirs.truncated)
        assert (ours.state_signature, ours.action_signature) == (theirs.state_signature, theirs.action_signature)
        assert [m["content"] for m in ours.observation] == [m["content"] for m in theirs.observation]


def test_sessions_of_one_tree_are_its_rollouts_and_other_sessions_have_their_own():
    with Proxy(ScriptedAgent(SCRIPT), math) as proxy:
        for tree in ("a", "b", "a"):
            session = opened(proxy, tree=tree)
            converse_chat(session)
            ended(proxy, session)
        assert {name: len(tree.leaves()) for name, tree in proxy.trees.items()} == {"a": 2, "b": 1}
        assert [node.rollout for node in proxy.trees["a"].nodes[1:]] == [0] * 4 + [1] * 4


# ---------------------------------------------------------------------- errors


def test_bad_requests_are_refused_in_the_shape_of_their_protocol_and_named():
    with Proxy(ScriptedAgent(["hello"])) as proxy:
        session = opened(proxy)
        defaults: dict[str, Any] = {"model": "m"}
        chat = [{"role": "user", "content": "hi"}]
        with openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"]) as client:
            wrong: Any
            for wrong, names in (
                ({"n": 2}, "n must be 1"),
                ({"stop": ["Observation:"]}, "stop must be empty"),
                ({"response_format": {"type": "json_object"}}, "response_format must be text"),
                ({"max_tokens": 0}, "max_tokens must be an integer of at least 1"),
                ({"tools": [{"type": "web_search"}]}, r"tools\[0\]\.type must be 'function'"),
                ({"messages": []}, "at least one message"),
                ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\[0\]\.role"),
                ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, r"messages\[0\]\.content"),
                ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "needs a 'name'"),
            ):
                with pytest.raises(openai.BadRequestError, match=names):
                    client.chat.completions.create(**(defaults | {"messages": chat} | wrong))
            for wrong, names in (
                ({"previous_response_id": "resp_none"}, "previous_response_id must name"),
                ({"input": [{"type": "computer_call"}]}, r"input\[0\]\.type"),
                ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format must be text"),
                ({"background": True}, "background must be left out"),
            ):
                with pytest.raises(openai.APIStatusError, match=names):
                    client.responses.create(**(defaults | {"input": "hi"} | wrong))
        with anthropic.Anthropic(base_url=session["anthropic_base_url"], api_key=session["api_key"]) as client:
            for wrong, names in (
                ({"stop_sequences": ["x"]}, "stop_sequences must be empty"),
                ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, r"content\[0\]\.type"),
                ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, r"tools\[0\]\.type"),
            ):
                with pytest.raises(anthropic.BadRequestError, match=names) as caught:
                    client.messages.create(**(defaults | {"max_tokens": 9, "messages": chat} | wrong))
                body: Any = caught.value.body
                assert body["error"]["type"] == "invalid_request_error"
        assert ended(proxy, session)["calls"] == 0


def test_what_is_not_json_and_what_is_nowhere():
    with Proxy(ScriptedAgent(["hello"])) as proxy:
        session = opened(proxy)
        for path in ("chat/completions", "responses", "messages"):
            for body in (b"{", b"[]", b'"text"', b"\xff"):
                status, answer = http("POST", f"{session['base_url']}/{path}", session["api_key"], body)
                assert status == 400, answer
                assert answer["error"]["message"]
        assert http("GET", f"{session['base_url']}/nothing", session["api_key"])[0] == 404
        assert http("POST", f"{proxy.url}/v1/chat/completions", session["api_key"], {})[0] == 404
        assert http("GET", f"{session['base_url']}/models", session["api_key"])[1]["data"][0]["id"] == "agentenv"


def test_a_programs_key_opens_its_own_session_only_and_gives_no_reward():
    with Proxy(ScriptedAgent(["hello"])) as proxy:
        mine, other = opened(proxy), opened(proxy)
        ask: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
        assert http("POST", f"{other['base_url']}/chat/completions", mine["api_key"], ask)[0] == 401
        for method, path, body in (
            ("POST", "/sessions", {}),
            ("POST", f"/sessions/{mine['id']}/reward", {"reward": 1.0}),
            ("POST", f"/sessions/{mine['id']}/end", {"reward": 1.0}),
            ("GET", f"/sessions/{mine['id']}", None),
            ("DELETE", f"/sessions/{mine['id']}", None),
        ):
            assert http(method, proxy.url + path, mine["api_key"], body)[0] == 401, path
        assert http("POST", f"{mine['base_url']}/chat/completions", mine["api_key"], ask)[0] == 200


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"env": "chess"}, "env must be one of ''"),
        ({"env": ["chess"]}, "env must be text"),
        ({"tree": 7}, "tree must be text"),
        ({"seed": -1}, "seed must be an integer"),
        ({"sed": 1}, "a session takes"),
        ({"task": {"question": 3}}, "does not fit MathTask"),
        ({"at": 7}, "node 7 cannot be an anchor"),
        ({"limits": {"max_calls": 0}}, "max_calls must be above 0"),
        ({"limits": {"max_cals": 1}}, "max_cals"),
        ({"limits": {"idle_seconds": "soon"}}, "idle_seconds must be above 0"),
        ({"limits": 3}, "limits must be an object"),
    ],
)
def test_a_session_that_cannot_be_opened_says_why(fields, names):
    with Proxy(ScriptedAgent(SCRIPT), math) as proxy:
        status, answer = http("POST", f"{proxy.url}/sessions", proxy.key, fields)
        assert status == 400
        assert names in answer["error"]["message"]


# ---------------------------------------------------------------------- rewards, limits, ends


def test_without_an_environment_a_call_gives_the_reward():
    with Proxy(ScriptedAgent(["hello", "bye"])) as proxy:
        session = opened(proxy, tree="t")
        address = f"{proxy.url}/sessions/{session['id']}"
        converse_chat({**session, "messages": [{"role": "user", "content": "hi"}]} | {"tools": []})
        for wrong in ("1", None, True, float("nan")):
            assert http("POST", f"{address}/reward", proxy.key, {"reward": wrong})[0] == 400
        assert http("POST", f"{address}/reward", proxy.key, {"reward": 0.25})[0] == 200
        assert ended(proxy, session)["reward"] == 0.25
        assert http("POST", f"{address}/reward", proxy.key, {"reward": 1.0})[0] == 410
        tree = proxy.trees["t"]
        assert (len(tree), tree.episode_return(1), tree.nodes[1].terminated) == (2, 0.25, True)


def test_an_episode_that_nobody_rewards_has_no_reward_and_is_no_zero():
    with Proxy(ScriptedAgent(["hello"])) as proxy:
        session = opened(proxy, tree="t")
        converse_chat({**session, "messages": [{"role": "user", "content": "hi"}]} | {"tools": []})
        assert ended(proxy, session)["reward"] is None
        assert proxy.trees["t"].nodes[1].reward is None
        assert "nobody" in proxy.trees["t"].nodes[1].info["failure"]


def test_the_environment_gives_the_rewards_where_there_is_one():
    with Proxy(ScriptedAgent(SCRIPT), math) as proxy:
        session = opened(proxy)
        status, answer = http("POST", f"{proxy.url}/sessions/{session['id']}/reward", proxy.key, {"reward": 1.0})
        assert (status, answer["error"]["code"]) == (409, "environment_scores")


def test_the_last_words_go_to_an_environment_that_reads_text():
    with Proxy(ScriptedAgent([r"It is \boxed{21}."]), math) as proxy:
        session = opened(proxy, tree="t")
        converse_chat(session)
        assert ended(proxy, session)["reward"] == 1.0
        assert proxy.trees["t"].nodes[1].terminated


def test_limits_truncate_and_later_requests_are_told_so_without_being_tried_again():
    with Proxy(ScriptedAgent(SCRIPT), math, limits=SessionLimits(max_calls=2)) as proxy:
        session = opened(proxy, tree="t")
        with pytest.raises(openai.APIStatusError, match="max_calls=2") as caught:
            converse_chat(session)
        assert caught.value.status_code == 410
        found = ended(proxy, session)
        assert (found["truncated"], found["reward"]) == (True, 0.0)
        tree = proxy.trees["t"]
        assert (len(tree), tree.nodes[2].truncated, tree.nodes[2].terminated) == (3, True, False)


def test_an_idle_session_ends_and_is_recorded():
    with Proxy(ScriptedAgent(SCRIPT), math, limits=SessionLimits(idle_seconds=0.3)) as proxy:
        session = opened(proxy, tree="t")
        deadline = time.monotonic() + 30
        while "t" not in proxy.trees and time.monotonic() < deadline:
            time.sleep(0.02)
        status, answer = http("GET", f"{proxy.url}/sessions/{session['id']}", proxy.key)
        assert (status, answer["truncated"]) == (200, True)
        assert "idle_seconds" in answer["ending"]
        assert len(proxy.trees["t"].leaves()) == 1


def test_a_program_that_asks_on_for_ever_after_the_end_is_stopped():
    with Proxy(ScriptedAgent([call("submit", answer="21")]), math) as proxy:
        session = opened(proxy, tree="t")
        converse_chat(session)
        ask: dict[str, Any] = {"messages": [{"role": "user", "content": "and now?"}]}
        answers = [
            http("POST", f"{session['base_url']}/chat/completions", session["api_key"], ask)[0] for _ in range(4)
        ]
        assert answers == [200, 200, 410, 410]
        assert len(proxy.trees.get("t", ())) in {0, 2}
        assert ended(proxy, session)["reward"] == 1.0


def test_what_has_no_effect_is_counted():
    with Proxy(ScriptedAgent(["hello"])) as proxy:
        session = opened(proxy)
        ask: dict[str, Any] = {
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 0.1,
            "tool_choice": "required",
        }
        http("POST", f"{session['base_url']}/chat/completions", session["api_key"], ask)
        assert ended(proxy, session)["ignored"] == {"temperature": 1, "tool_choice": 1}


def test_many_sessions_at_once_are_asked_in_few_calls_and_do_not_mix():
    sizes = []

    class Counts:
        def act(self, contexts):
            sizes.append(len(contexts))
            time.sleep(0.02)
            return [message["content"] for (*_, message) in (context.messages for context in contexts)]

    def play(proxy, number):
        session = proxy.open()
        told = proxy.describe(session) | {"messages": [{"role": "user", "content": f"say {number}"}], "tools": []}
        heard[number] = converse_chat(told)

    heard = {}
    with Proxy(Counts()) as proxy:
        threads = [threading.Thread(target=play, args=(proxy, number)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard == {number: [f"say {number}"] for number in range(16)}
    assert sum(sizes) == 16
    assert max(sizes) > 1


# ---------------------------------------------------------------------- outages


class Flaky(AsyncAgent):
    """Is away the first times it is asked."""

    def __init__(self, failures, problem: Any = AgentError):
        self.left = failures
        self.problem = problem

    async def respond(self, context, /) -> Any:
        await asyncio.sleep(0)
        if self.left:
            self.left -= 1
            msg = "no answer"
            raise self.problem(msg)
        return "hello"


def hello(session, retries):
    with openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"], max_retries=retries) as client:
        return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def test_an_agent_that_is_away_is_asked_again_by_the_client_and_nothing_is_lost():
    with Proxy(Flaky(1)) as proxy:
        session = opened(proxy, tree="t")
        assert hello(session, 2).choices[0].message.content == "hello"
        found = ended(proxy, session, reward=1.0)
        assert (found["agent_failures"], found["failure"], len(proxy.trees["t"])) == (1, "", 2)


def test_an_episode_whose_agent_stays_away_has_failed_and_has_no_reward():
    with Proxy(Flaky(99, TimeoutError)) as proxy:
        session = opened(proxy, tree="t")
        with pytest.raises(openai.InternalServerError, match="the agent is away"):
            hello(session, 0)
        assert "no answer" in ended(proxy, session, reward=1.0)["failure"]
        assert [proxy.trees["t"].episode_return(leaf) for leaf in proxy.trees["t"].leaves()] == [None]


def test_an_answer_that_was_lost_is_given_again_and_recorded_once():
    counted = SimpleNamespace(calls=0)

    def policy(context):
        counted.calls += 1
        return f"answer {counted.calls}"

    with Proxy(ScriptedAgent(policy)) as proxy:
        session = opened(proxy, tree="t")
        with openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"]) as client:
            ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            first = client.chat.completions.create(**ask)
            lost = client.chat.completions.create(**ask, extra_headers={"x-stainless-retry-count": "1"})
            anew = client.chat.completions.create(**ask)
        assert [one.choices[0].message.content for one in (first, lost, anew)] == ["answer 1", "answer 1", "answer 2"]
        ended(proxy, session, reward=1.0)
        assert len(proxy.trees["t"].leaves()) == 2


def test_wrong_arguments_of_a_proxy_are_named(tmp_path):
    wrong: Any
    (tmp_path / "there.jsonl").write_text("x")
    for wrong, names in (
        ({"agent": object()}, "agent must be"),
        ({"key": "short"}, "key must have"),
        ({"out": tmp_path / "there.jsonl"}, "out must name a new file"),
    ):
        with pytest.raises((TypeError, ValueError), match=names):
            options: dict[str, Any] = {"agent": ScriptedAgent([])} | wrong
            Proxy(**options)
    with Proxy(ScriptedAgent([])) as proxy, pytest.raises(OSError, match="in use"):
        Proxy(ScriptedAgent([]), port=proxy.port).start()
