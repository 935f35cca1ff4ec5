"""Tokens through the proxy are those of a native rollout: ids, log-probabilities, prompts, rows to train on."""

from typing import Any

import numpy as np
import pytest
from proxy_clients import converse_chat, http
from tiny_chat import tiny

from agentenv import make
from agentenv.agents import Proxy, TransformersAgent
from agentenv.agents.proxy.session import SessionLimits
from agentenv.rollout import Rollout, derive_seed
from agentenv.serialize import read_trees
from agentenv.trainers.layout import lay_out
from agentenv.types import Action, ToolCall

TASK = {"question": "Compute 2 + 3.", "reference": "5"}


def parser(text, _):
    """Whatever the random model writes is a call, and sometimes the last one."""
    if len(text) % 7 == 0:
        return Action(tool_calls=(ToolCall("submit", {"answer": "5"}),))
    return Action(tool_calls=(ToolCall("calculate", {"expression": f"{len(text)} + 1"}),))


def agent(**options):
    model, tokenizer = tiny()
    return TransformersAgent(model, tokenizer, max_new_tokens=12, parser=parser, **options)


def math():
    return make("agentenv/MathVerifier-v0", max_steps=4)


def tokens(tree) -> Any:
    nodes = range(1, len(tree))
    return [
        (tree.nodes[i].parent, tree.token_ids(i), tree.nodes[i].action.logprobs, tree.nodes[i].reward) for i in nodes
    ]


@pytest.mark.parametrize("history", ["exact", "template"])
def test_ids_and_logprobs_are_those_of_a_native_rollout(history, tmp_path):
    with Rollout(math, agent(history=history), seed=6) as rollout:
        (native,) = rollout.grow([TASK], 3)
    with Proxy(agent(history=history), math, out=tmp_path / "trees.jsonl") as proxy:
        for _ in range(3):
            seed = derive_seed(6, 0, "task")
            session = proxy.open(task=TASK, seed=seed, tree="t")
            converse_chat(proxy.describe(session), most=9)
            proxy.end(session)
        tree = proxy.trees["t"]
    assert len(tree) > 6
    assert [node[:2] for node in tokens(tree)] == [node[:2] for node in tokens(native)]
    for ours, theirs in zip(tokens(tree), tokens(native), strict=True):
        assert ours[3] == theirs[3]
        np.testing.assert_allclose(ours[2], theirs[2], atol=1e-5)
    (read,) = read_trees(tmp_path / "trees.jsonl")
    assert tokens(read) == tokens(tree)
    assert {node.action.weight_version for node in tree.nodes[1:] if node.action} == {0}
    rows, native_rows = lay_out([tree]), lay_out([native])
    assert rows.trained.sum() == native_rows.trained.sum() > 0


def test_every_conversation_is_trained_once_and_sees_its_own_tokens():
    with Proxy(agent(), math, limits=SessionLimits(max_tokens=200)) as proxy:
        session = proxy.open(task=TASK, tree="t")
        told = proxy.describe(session)
        converse_chat(told, most=2)
        helper = [{"role": "system", "content": "Compute 9."}, {"role": "user", "content": "Compute 8."}]
        converse_chat(told | {"messages": helper, "tools": []}, most=1)
        converse_chat(told | {"messages": [*told["messages"], *helper]}, most=1)
        proxy.end(session)
        tree = proxy.trees["t"]
    assert [node.kept_messages for node in tree.nodes].count(0) == 1
    decode = tiny()[1].decode
    for leaf in tree.leaves():
        text = decode(tree.prompt_token_ids(tree.nodes[leaf].parent))
        for message in tree.messages(tree.nodes[leaf].parent):
            assert message["role"] == "assistant" or message["content"] in text
    rows = lay_out([tree])
    assert rows.trained.sum() == sum(len(node.action.token_ids or ()) for node in tree.nodes[1:] if node.action)


def test_a_branch_goes_on_with_the_exact_tokens_of_the_record():
    with Proxy(agent(), math) as proxy:
        session = proxy.open(task=TASK, tree="t", seed=3)
        converse_chat(proxy.describe(session), most=4)
        proxy.end(session)
        tree = proxy.trees["t"]
        at = next(i for i, node in enumerate(tree.nodes) if i and not node.ended)
        for _ in range(2):
            session = proxy.open(tree="t", at=at)
            converse_chat(proxy.describe(session), most=4)
            assert proxy.end(session)["replay"]["left_early"] is False
    below = tree.children(at)
    assert len(below) == 3
    assert len({tree.token_ids(i) for i in below}) == 3
    prompts = {tree.token_ids(i)[: tree.length(at)] for i in below}
    assert prompts == {tree.token_ids(at)}


def test_programs_can_have_the_tokens_and_count_them():
    with Proxy(agent(), math) as proxy:
        session = proxy.open(task=TASK, tree="t")
        told = proxy.describe(session)
        ask = {"messages": told["messages"], "tools": told["tools"], "logprobs": True, "return_token_ids": True}
        _, answer = http("POST", f"{told['base_url']}/chat/completions", told["api_key"], ask)
        counted = {"messages": [{"role": "user", "content": TASK["question"]}], "max_tokens": 5}
        _, count = http("POST", f"{told['base_url']}/messages/count_tokens", told["api_key"], counted)
        proxy.end(session)
        tree = proxy.trees["t"]
    action = tree.nodes[1].action
    assert action is not None
    choice = answer["choices"][0]
    assert choice["token_ids"] == list(action.token_ids or ())
    assert answer["prompt_token_ids"] == list(tree.prompt_token_ids(0) or ())
    assert [entry["logprob"] for entry in choice["logprobs"]["content"]] == list(action.logprobs or ())
    assert answer["usage"]["completion_tokens"] == len(action.token_ids or ())
    assert count["input_tokens"] == answer["usage"]["prompt_tokens"]  # the tiny template shows no tools


def test_what_the_template_refuses_is_a_bad_request_and_the_episode_goes_on():
    with Proxy(agent(), math) as proxy:
        session = proxy.open(task=TASK)
        told = proxy.describe(session)
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        ask = {"messages": [{"role": "user", "content": [image]}]}
        status, answer = http("POST", f"{told['base_url']}/chat/completions", told["api_key"], ask)
        assert (status, answer["error"]["code"]) == (400, "model_error")
        converse_chat(told, most=1)
        assert proxy.end(session)["failure"] == ""
