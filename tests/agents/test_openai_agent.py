"""OpenAIAgent against a real server on a socket: what it sends, what it reads, and every way that servers fail."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import openai
import pytest
from envs_for_tests import Guess
from openai_server import Reply, Server, completion, guess

from agentenv.agents import OpenAIAgent
from agentenv.agents.pacing import Backoff
from agentenv.errors import AgentError, ModelError
from agentenv.protocols import Context
from agentenv.rollout import Rollout
from agentenv.types import Action, Message

TOOL = {"type": "function", "function": {"name": "guess", "parameters": {"type": "object", "properties": {}}}}
ASK = Context(({"role": "user", "content": "Guess."},), (TOOL,), seed=2**62 + 5)


def quick(server: Server, **options: Any) -> OpenAIAgent:
    agent = OpenAIAgent(server.url, api_key="key", **options)
    agent.backoff = Backoff(0.001, 0.01)
    return agent


def ask(agent: OpenAIAgent, context: Context = ASK) -> Action:
    return agent.act([context])[0]


# ---------------------------------------------------------------------- what is sent


def test_a_request_has_what_the_context_says_and_the_only_model_is_found():
    with Server(lambda *_: completion("hm")) as server:
        agent = quick(server, temperature=0.5, top_p=0.9, max_tokens=70, options={"top_k": 3}, headers={"x-run": "7"})
        ask(agent, Context(ASK.messages, (TOOL,), seed=2**62 + 5, max_tokens=30))
        ask(agent)
    first, second = server.requests
    assert (first["model"], first["temperature"], first["top_p"], first["top_k"]) == ("m", 0.5, 0.9, 3)
    assert (first["max_tokens"], second["max_tokens"]) == (30, 70)
    assert (
        first["seed"] == 5 and first["tools"] == [TOOL] and first["messages"] == [{"role": "user", "content": "Guess."}]
    )
    assert server.headers[0]["authorization"] == "Bearer key" and server.headers[0]["x-run"] == "7"


def test_what_no_request_can_hold_is_replaced():
    with Server(lambda *_: completion("fine")) as server:
        assert ask(quick(server), Context(({"role": "user", "content": "\ud800 é 漢"},))).content == "fine"
    assert server.requests[0]["messages"][0]["content"] == "? é 漢"


@pytest.mark.parametrize("fault", ["429", "500", "garbage", "cut in the body", "cut before a byte", "slow"])
def test_without_aiohttp_it_is_httpx_and_all_the_same(monkeypatch, fault):
    def missing(**_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(openai, "DefaultAioHttpClient", missing)
    with Server(lambda _, number: PASSING[fault] if number < 2 else completion("there")) as server:
        agent = quick(server, timeout=0.4 if fault == "slow" else 30)
        assert ask(agent).content == "there"
        assert [action.content for action in agent.act([ASK] * 5)] == ["there"] * 5
    assert "httpx2" in str(server.headers[0]) or "AsyncOpenAI" in server.headers[0]["user-agent"]


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_headers_of_the_user_go_before_those_of_the_client(name):
    with Server(lambda *_: completion("there")) as server:
        agent = quick(server, headers={name: "Bearer mine", "X-Team": "a", "user-agent": "me"})
        assert ask(agent).content == "there"
        assert ask(quick(server)).content == "there"
    sent = [{key.lower(): value for key, value in headers.items()} for headers in server.headers]
    assert [headers["authorization"] for headers in sent] == ["Bearer mine", "Bearer key"]
    assert (sent[0]["x-team"], sent[0]["user-agent"]) == ("a", "me")
    assert all(headers["content-type"] == "application/json" for headers in sent)


def test_several_models_must_be_named():
    with (
        Server(lambda *_: completion(), models=("a", "b")) as server,
        pytest.raises(ModelError, match=r"model must be named: .* has a, b"),
    ):
        ask(quick(server))


# ---------------------------------------------------------------------- what is read


VLLM = completion(
    "a",
    token_ids=[5, 6],
    prompt_token_ids=[1, 2, 3],
    logprobs={"content": [{"token": "a", "logprob": -0.5}, {"token": "", "logprob": -1}]},
)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, True), ({"temperature": 0.7}, False), ({"top_p": 0.9}, False), ({"options": {"min_p": 0.1}}, False),
     ({"options": {"top_k": 5}}, False), ({"options": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1}}, True),
     ({"temperature": 0.7, "processed_logprobs": True}, True)],
)  # fmt: skip
def test_log_probabilities_are_kept_where_they_are_those_of_what_was_sampled_from(options, kept):
    with Server(lambda *_: VLLM) as server:
        action = ask(quick(server, **options))
    assert server.requests[0]["return_token_ids"] and server.requests[0]["logprobs"]
    assert action.token_ids == (5, 6)
    assert (action.logprobs is not None) is kept


# ---------------------------------------------------------------------- what is tried again


PASSING: dict[str, Reply] = {
    "429": Reply({"error": {"message": "slow down"}}, 429),
    "500": Reply(b"oops", 500),
    "503 while a model loads": Reply({"error": {"message": "Loading model"}}, 503),
    "408": Reply({}, 408),
    "409": Reply({}, 409),
    "garbage": Reply(b"\x00{", 200),
    "a page": Reply(b"<html>", 200, {"content-type": "text/html"}),
    "brackets without end": Reply(b"[" * 100_000),
    "brackets without end, and an error": Reply(b"[" * 100_000, 500),
    "arguments nested deep": Reply(
        b'{"choices": [{"message": {"tool_calls": [{"name": "guess", "arguments": '
        + (b'{"x": ' * 500 + b"1" + b"}" * 500)
        + b"}]}}]}"
    ),
    "no choices": Reply({"error": {"message": "upstream", "code": 502}}),
    "cut in the body": Reply(completion("x" * 500), cut="body"),
    "cut before a byte": Reply(cut="silent"),
    "slow": Reply(completion("late"), delay=3.0),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(fault):
    with Server(lambda _, number: PASSING[fault] if number < 2 else completion("there")) as server:
        assert ask(quick(server, timeout=0.4 if fault == "slow" else 30)).content == "there"
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["500", "garbage", "cut before a byte"])
def test_what_does_not_pass_is_an_agent_error_that_says_what_it_was(fault):
    with (
        Server(lambda *_: PASSING[fault]) as server,
        pytest.raises(AgentError, match=r"failed 4 times, at last with \S"),
    ):
        ask(quick(server, retries=3))
    assert len(server.requests) == 4


def test_nobody_there_is_an_agent_error_and_a_check_says_so_at_once():
    server = Server(lambda *_: completion())
    with server:
        url = server.url
    agent = OpenAIAgent(url, "m", retries=2)
    agent.backoff = Backoff(0.001, 0.01)
    with pytest.raises(AgentError, match="failed 3 times"):
        ask(agent)
    with pytest.raises(ModelError, match=rf"no server answers at {url} .*is it running"):
        asyncio.run(checked(agent))


async def checked(agent: OpenAIAgent) -> Any:
    try:
        return await agent.check()
    finally:
        await agent.leave_loop()


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
def test_retry_after_is_waited_for_by_all(form):
    moment = datetime.now(UTC) + timedelta(seconds=3)
    headers = {"seconds": {"Retry-After": "0.5"}, "milliseconds": {"retry-after-ms": "500"},
               "date": {"Retry-After": format_datetime(moment, usegmt=True)}}[form]  # fmt: skip
    times: list[float] = []

    def answer(_: Any, number: int) -> Any:
        times.append(time.monotonic())
        return Reply({}, 429, headers) if number == 0 else completion("there")

    with Server(answer) as server:
        agent = quick(server, concurrency=1)
        assert [action.content for action in agent.act([ASK, ASK])] == ["there"] * 2
    assert min(times[1:]) - times[0] >= 0.45, "the other request waits, too"


def test_a_wait_beyond_the_deadline_is_not_begun():
    with (
        Server(lambda *_: Reply({}, 429, {"Retry-After": "3600"})) as server,
        pytest.raises(AgentError, match="no action within deadline=5 seconds, at last 429"),
    ):
        ask(quick(server, deadline=5))
    assert len(server.requests) == 1


def test_a_deadline_ends_a_request_that_hangs():
    with Server(lambda *_: Reply(completion(), delay=60)) as server, pytest.raises(AgentError, match=r"deadline=0\.3"):
        ask(quick(server, deadline=0.3))


def test_no_more_requests_at_once_than_asked_for():
    with Server(lambda *_: Reply(completion("x"), delay=0.02)) as server:
        quick(server, concurrency=3).act([ASK] * 12)
    assert len(server.requests) == 12
    assert 2 <= server.most <= 3


def test_rates_of_requests_and_of_tokens_are_kept():
    said = completion("x", usage={"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10})
    with Server(lambda *_: said) as server:
        began = time.monotonic()
        quick(server, requests_per_minute=600).act([ASK] * 15)
        assert time.monotonic() - began >= 0.35, "15 at 10 a second, of which one second's worth goes at once"
        agent = quick(server, tokens_per_minute=60 * 30, max_tokens=10)
        for _ in range(5):
            ask(agent)
        assert agent._tokens is not None
        assert agent._tokens.reserve() <= 1.0, "of the ten tokens guessed and the ten used, the latter count"


# ---------------------------------------------------------------------- whose fault it is


USERS: dict[str, tuple[Reply, str]] = {
    "a wrong key": (Reply({"error": {"message": "bad key"}}, 401), "set OPENAI_API_KEY. It said 401: bad key"),
    "forbidden": (Reply({"error": {"message": "no"}}, 403), "pass another api_key="),
    "no such model": (Reply({"error": {"message": "gone"}}, 404), "there is no model 'm'"),
    "no money": (Reply({"error": {"message": "quota", "code": "insufficient_quota"}}, 429), "the account is empty"),
    "vLLM without tools": (
        Reply({"object": "error", "message": '"auto" tool choice requires --enable-auto-tool-choice'}, 400),
        "it does not take tools: start vLLM with",
    ),
    "llama.cpp without tools": (Reply({"error": {"message": "tools param requires --jinja flag"}}, 500), "--jinja"),
    "Ollama without tools": (Reply({"error": {"message": "m does not support tools"}}, 400), "does not take tools"),
    "something else": (Reply({"error": {"message": "n must be 1"}}, 400), r"refuses the request \(400: n must be 1\)"),
}


@pytest.mark.parametrize("fault", USERS)
def test_what_the_user_must_mend_ends_the_run_at_once(fault):
    reply, words = USERS[fault]
    with (
        Server(lambda *_: reply) as server,
        Rollout(Guess, quick(server, model="m")) as rollout,
        pytest.raises(ModelError, match=words),
    ):
        rollout.grow([None], 4)
    assert len(server.requests) <= 4, "none is asked for twice"
    assert rollout.failures == 0


def test_a_request_that_is_refused_in_mid_run_fails_one_episode():
    def answer(request: Any, number: int) -> Any:
        return Reply({"error": {"message": "odd"}}, 422) if number == 5 else completion("", [guess()])

    with Server(answer) as server, Rollout(Guess, quick(server), keep_snapshots=False) as rollout:
        (tree,) = rollout.grow([None], 4)
    failed = [node for node in tree.nodes if node.reward is None]
    assert len(failed) == 1 and "refuses the request (422: odd)" in failed[0].info["failure"]
    assert len([leaf for leaf in tree.leaves() if tree.nodes[leaf].reward is not None]) == 4


TOO_LONG = {
    "OpenAI": {"error": {"message": "maximum context length is 128 tokens", "code": "context_length_exceeded"}},
    "vLLM": {"message": "This model's maximum context length is 128 tokens. However, you requested 200 tokens (200 in "
             "the messages, 0 in the completion)."},
    "llama.cpp": {"error": {"type": "exceed_context_size_error", "message": "it exceeds the available context size"}},
    "SGLang": {"message": "The input (200 tokens) is longer than the model's context length (128 tokens)."},
    "Anthropic": {"error": {"message": "prompt is too long: 200 tokens"}},
}  # fmt: skip


@pytest.mark.parametrize("kind", TOO_LONG)
def test_a_conversation_that_is_too_long_truncates_the_episode_and_is_no_failure(kind):
    def answer(request: Any, _: int) -> Any:
        return Reply(TOO_LONG[kind], 400) if len(request["messages"]) > 4 else completion("", [guess(3)])

    with Server(answer) as server, Rollout(Guess, quick(server), keep_snapshots=False) as rollout:
        (tree,) = rollout.grow([None], 2)
    ends: list[Any] = [tree.nodes[leaf] for leaf in tree.leaves()]
    assert rollout.failures == 0
    assert all(end.truncated and end.reward == 0.0 and end.action.finish_reason == "context_length" for end in ends)
    assert [len(tree.path(leaf)) - 1 for leaf in tree.leaves()] == [3, 3]


def test_where_there_is_room_for_a_shorter_answer_it_is_asked_for():
    said = (
        "'max_tokens' is too large: 100. This model's maximum context length is 64 tokens and your request has 40 "
        "input tokens"
    )

    def answer(request: Any, _: int) -> Any:
        return Reply({"message": said}, 400) if request["max_tokens"] > 24 else completion("short")

    with Server(answer) as server:
        assert ask(quick(server, max_tokens=100)).content == "short"
    assert [request["max_tokens"] for request in server.requests] == [100, 24]


def test_a_filtered_conversation_is_the_agents_own_doing():
    reply = Reply({"error": {"code": "content_filter", "message": "content management policy"}}, 400)
    with Server(lambda *_: reply) as server:
        assert ask(quick(server)) == Action(finish_reason="content_filter")


def picky(*unknown: str, wording: str = "Unrecognized request argument supplied: {}") -> Any:
    def answer(request: Any, _: int) -> Any:
        sent = {*request, *(name for message in request["messages"] for name in message)}
        wrong = next((name for name in unknown if name in sent), None)
        return completion("fine") if wrong is None else Reply({"error": {"message": wording.format(wrong)}}, 400)

    return answer


def test_parameters_that_a_server_does_not_know_are_left_out_from_then_on():
    thought: Message = {"role": "assistant", "content": "x", "reasoning": "hm"}
    context = Context((*ASK.messages, thought, *ASK.messages))
    with Server(picky("return_token_ids", "logprobs", "seed", "reasoning_content", "reasoning")) as server:
        agent = quick(server)
        with pytest.warns(RuntimeWarning) as warned:
            assert ask(agent, context).content == "fine"
        said = [str(warning.message) for warning in warned]
        assert len(said) == 4 and "does not take 'seed', which is left out from now on" in said[2]
        before = len(server.requests)
        assert ask(agent, context).content == "fine"
    assert len(server.requests) == before + 1


def test_the_other_name_of_the_limit_is_found_by_many_at_once():
    wording = "Unsupported parameter: '{}' is not supported with this model. Use 'max_completion_tokens' instead."
    with Server(picky("max_tokens", wording=wording)) as server:
        agent = quick(server, max_tokens=9)
        assert [action.content for action in agent.act([ASK] * 8)] == ["fine"] * 8
        ask(agent)
    assert server.requests[-1]["max_completion_tokens"] == 9 and "max_tokens" not in server.requests[-1]


def test_tokens_that_must_be_there_are_missed_by_name():
    with (
        Server(lambda *_: completion("x")) as server,
        pytest.raises(ModelError, match="record_tokens=True needs a server"),
    ):
        ask(quick(server, record_tokens=True))
    with Server(picky("return_token_ids")) as server, pytest.raises(ModelError, match="does not take return_token_ids"):
        ask(quick(server, record_tokens=True))
    with Server(picky("return_token_ids", "logprobs")) as server:
        ask(quick(server, record_tokens=False))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"retries": -1}, "retries must be at least 0"), ({"concurrency": 0}, "concurrency must be at least 1"),
     ({"timeout": 0}, "timeout must be above 0"), ({"deadline": -1}, "deadline must be above 0"),
     ({"requests_per_minute": 0}, "requests_per_minute must be above 0"),
     ({"api_key": "key\n"}, "api_key must be printable"), ({"base_url": "host:80"}, "base_url must be like"),
     ({"max_tokens": 0}, "max_tokens must be at least 1")],
)  # fmt: skip
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        OpenAIAgent(**({"base_url": "http://x/v1"} | options))


def test_urls_and_keys(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelError, match="wants a key: pass api_key="):
        OpenAIAgent()
    assert OpenAIAgent("http://x:8000").base_url == "http://x:8000/v1" == OpenAIAgent("http://x:8000/v1/").base_url
    monkeypatch.setenv("OPENAI_BASE_URL", "http://y/api")
    assert OpenAIAgent().base_url == "http://y/api"


# ---------------------------------------------------------------------- a rollout


def test_a_server_that_dies_and_comes_back_loses_only_what_was_in_flight(tmp_path):
    server: Server

    def answer(request: Any, number: int) -> Any:
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if number == 20:
            server._loop.call_soon(lambda: [writer.transport.abort() for writer in server._connections])
        return Reply(completion("", [guess(turn + 1)]), 503 if 20 < number < 40 else 200, delay=0.01)

    with Server(answer) as server, Rollout(Guess, quick(server), keep_snapshots=False) as rollout:
        (tree,) = rollout.grow([None], 12)
    assert rollout.failures == 0, "an action is asked for again before its episode is"
    assert len(tree.leaves()) == 12 and all(tree.nodes[leaf].ended for leaf in tree.leaves())


def test_an_outage_that_lasts_fails_the_attempts_in_flight_and_no_finished_episode():
    down = [False]

    def answer(request: Any, number: int) -> Any:
        down[0] = 20 <= number < 60
        return Reply({}, 500) if down[0] else completion("", [guess(number % 90 + 1)])

    with Server(answer) as server, Rollout(Guess, quick(server, retries=1), retries=20, max_envs=4) as rollout:
        (tree,) = rollout.grow([None], 12)
    good = [leaf for leaf in tree.leaves() if tree.nodes[leaf].reward is not None]
    assert len(good) == 12 and rollout.failures > 0
    assert {"AgentError"} == {node.info["failure"].split(":")[0] for node in tree.nodes if node.reward is None}


def test_the_same_seed_is_sent_for_the_same_action_whatever_the_order():
    def answer(request: Any, _: int) -> Any:
        return Reply(completion("", [guess(request["seed"] % 100 + 1)]), delay=request["seed"] % 3 / 200)

    trees = []
    with Server(answer) as server:
        for concurrency in (1, 8):
            with Rollout(Guess, quick(server, concurrency=concurrency), seed=3, keep_snapshots=False) as rollout:
                trees.append(list(rollout.grow([None], 6)[0].nodes))
    assert trees[0] == trees[1]
