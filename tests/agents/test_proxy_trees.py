"""Several conversations of one episode are branches of its tree, and black boxes branch by replay."""

import json
from typing import Any

import pytest
from proxy_clients import call

from agentenv import make
from agentenv.agents import ScriptedAgent
from agentenv.agents.proxy import Proxy
from agentenv.agents.proxy.requests import Request, RequestError
from agentenv.agents.proxy.session import Pending
from agentenv.errors import TreeError
from agentenv.serialize import read_trees, write_trees
from agentenv.types import Action

SYSTEM = {"role": "system", "content": "You are careful."}
TASK = {"role": "user", "content": "Find the number."}


def ask(session, *messages, say: Any = "ok", tools=()) -> Any:
    """One request and its answer, given by hand; returns the assistant's message as a program writes it down."""
    pending = session.prepare(Request(tuple(messages), tools))
    live = isinstance(pending, Pending)
    answer = session.complete(pending, Action.parse(say), 0.0) if live else pending
    return answer.action.to_message()


def proxy_without_server(*, envs=None):
    return Proxy(ScriptedAgent([]), envs)


def tree_of(proxy, session, reward=1.0) -> Any:
    if session.env is None:
        session.give_reward(reward)
    proxy.end(session)
    return proxy.trees[session.tree_name]


def shape(tree):
    return [(node.parent, node.kept_messages) for node in tree.nodes]


def test_messages_that_go_on_continue_the_path_however_they_are_written_down():
    with proxy_without_server() as proxy:
        session = proxy.open()
        first = ask(session, SYSTEM, TASK, say={**call("look", path="a", depth=1), "reasoning": "hm"})
        rewritten = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "x", "function": {"name": "look", "arguments": '{"depth": 1,  "path": "a"}'}}],
        }
        answer = {"role": "tool", "content": "7", "tool_call_id": "x"}
        assert first["reasoning"] == "hm"
        ask(session, SYSTEM, TASK, rewritten, answer, say=" it is 7 ")
        ask(session, SYSTEM, TASK, first, answer, {"role": "assistant", "content": "it is 7"}, TASK)
        tree = tree_of(proxy, session)
        assert shape(tree) == [(-1, None), (0, None), (1, None), (2, None)]
        assert tree.messages(3)[2]["reasoning"] == "hm"
        assert tree.nodes[1].observation == (answer,)


def test_a_sub_agent_begins_at_the_root_and_earns_what_its_episode_earns():
    with proxy_without_server() as proxy:
        session = proxy.open()
        first = ask(session, SYSTEM, TASK, say=call("delegate"))
        helper = {"role": "user", "content": "Help."}
        ask(session, helper, {"role": "user", "content": "Please."}, say="helped")
        ask(session, SYSTEM, TASK, first, {"role": "tool", "content": "helped"}, say="done")
        tree = tree_of(proxy, session, 0.75)
        assert shape(tree) == [(-1, None), (0, None), (0, 0), (2, None), (1, None)]
        assert [tree.episode_return(leaf) for leaf in tree.leaves()] == [0.75, 0.75]
        assert tree.messages(2) == [helper, {"role": "user", "content": "Please."}]
        assert len({tree.nodes[leaf].rollout for leaf in tree.leaves()}) == 2


def test_a_compacted_history_branches_at_the_longest_shared_prefix():
    with proxy_without_server() as proxy:
        session = proxy.open()
        first = ask(session, SYSTEM, TASK, say=call("look"))
        seen = {"role": "tool", "content": "much"}
        second = ask(session, SYSTEM, TASK, first, seen, say="I see")
        more = {"role": "user", "content": "go on"}
        summary = {"role": "user", "content": "Summary: nothing yet."}
        ask(session, SYSTEM, TASK, first, summary, say="right")  # shares the first answer
        ask(session, SYSTEM, summary, say="left")  # shares the system prompt
        ask(session, SYSTEM, TASK, first, seen, second, more, say="on")
        tree = tree_of(proxy, session)
        assert shape(tree) == [(-1, None), (0, None), (1, None), (1, 3), (3, None), (0, 1), (5, None), (2, None)]
        assert tree.messages(4)[:4] == [SYSTEM, TASK, first, summary]
        assert tree.messages(6)[:2] == [SYSTEM, summary]
        assert tree.messages(7)[-1]["content"] == "on"
        assert [tree.episode_return(leaf) for leaf in tree.leaves()] == [1.0, 1.0, 1.0]


def test_parallel_answers_to_one_request_are_siblings_and_conversations_of_other_rollouts_are_shared():
    with proxy_without_server() as proxy:
        tree: Any = None
        for text in "ab":
            session = proxy.open(tree="t")
            ask(session, SYSTEM, TASK, say=f"{text}1")
            ask(session, SYSTEM, TASK, say=f"{text}2")
            ask(session, {"role": "user", "content": "other"}, say=f"{text}3")
            tree = tree_of(proxy, session)
        assert shape(tree) == [(-1, None), (0, None), (0, None), (0, 0), (3, None), (0, None), (0, None), (3, None)]
        assert sorted(node.rollout for node in tree.nodes[1:] if node.kept_messages is None) == list(range(6))


def test_files_keep_every_conversation(tmp_path):
    with Proxy(ScriptedAgent([]), out=tmp_path / "live.jsonl") as proxy:
        session = proxy.open(tree="t")
        first = ask(session, SYSTEM, TASK, say="one")
        ask(session, {"role": "user", "content": "other"}, say="two")
        ask(session, SYSTEM, TASK, first, TASK, say="three")
        tree = tree_of(proxy, session)
    write_trees(tmp_path / "whole.jsonl", [tree])
    for name in ("live", "whole"):
        (read,) = read_trees(tmp_path / f"{name}.jsonl")
        assert sorted(map(str, (read.messages(leaf) for leaf in read.leaves()))) == sorted(
            map(str, (tree.messages(leaf) for leaf in tree.leaves()))
        )
        assert [read.episode_return(leaf) for leaf in read.leaves()] == [1.0, 1.0]


def test_an_answer_that_nobody_took_is_left_out():
    with proxy_without_server() as proxy:
        session = proxy.open()
        ask(session, SYSTEM, TASK, say="lost")
        session.calls[-1].delivered = False
        ask(session, SYSTEM, TASK, say="taken")
        assert [node.action.content for node in tree_of(proxy, session).nodes[1:]] == ["taken"]


# ---------------------------------------------------------------------- branching


def math():
    return make("agentenv/MathVerifier-v0", max_steps=12)


QUESTION = {"question": "Compute (9 - 2) * 3.", "reference": "21"}


def play(session, script, *, twist=None, upto=99):
    """A program: asks, calls the tool, asks again. `twist` maps a number of a step to what it says otherwise."""
    messages = list(session.first)
    for step, say in enumerate(script[:upto]):
        if twist is not None and step in twist:
            messages[-1] = {**messages[-1], "content": twist[step]}
        message = ask(session, *messages, say=say)
        messages.append(message)
        for made in message.get("tool_calls", ()):
            function = made["function"]
            answer = session.execute(function["name"], json.loads(function["arguments"]))
            messages.append({"role": "tool", "content": answer.answer, "tool_call_id": made["id"]})


SCRIPT = [call("calculate", expression="9 - 2"), call("calculate", expression="7 * 3"), call("submit", answer="21")]
OTHER = [call("nothing"), call("nothing"), call("submit", answer="20")]


def recorded(proxy):
    session = proxy.open(task=QUESTION, tree="t", seed=1)
    play(session, SCRIPT)
    tree = tree_of(proxy, session)
    assert shape(tree) == [(-1, None), (0, None), (1, None), (2, None)]
    return tree


@pytest.mark.parametrize("kept", [True, False])
def test_a_program_is_replayed_to_a_node_and_goes_on_live(kept):
    with proxy_without_server(envs=math) as proxy:
        tree = recorded(proxy)
        if not kept:
            del tree.snapshots[2]  # the tools are called again instead
        session = proxy.open(tree="t", at=2)
        play(session, OTHER)
        status = proxy.end(session)
        assert status["replay"] == {"wanted": 2, "answered": 2, "live": True, "left_early": False, "why": ""}
        assert shape(tree)[4:] == [(2, None)]
        assert [tree.episode_return(leaf) for leaf in tree.leaves()] == [1.0, 0.0]
        assert tree.nodes[4].action.tool_calls[0].arguments == {"answer": "20"}
        assert tree.nodes[4].info["replayed"] == [["0", 0], ["0", 1]]
        assert tree.nodes[4].observation[0]["content"] == tree.nodes[4].info["executed"][0]["answer"]


def test_a_branch_of_a_branch_replays_both():
    with proxy_without_server(envs=math) as proxy:
        tree = recorded(proxy)
        session = proxy.open(tree="t", at=1)
        play(session, [SCRIPT[0], call("calculate", expression="7 + 3"), call("submit", answer="10")])
        proxy.end(session)
        assert shape(tree)[4:] == [(1, None), (4, None)]
        session = proxy.open(tree="t", at=4)
        play(session, SCRIPT)
        status = proxy.end(session)
        assert status["replay"]["answered"] == 2
        assert shape(tree)[6:] == [(4, None)]
        assert tree.nodes[6].info["replayed"] == [["0", 0], ["1", 1]]
        assert tree.episode_return(6) == 1.0


def test_a_program_that_is_not_deterministic_leaves_the_record_early_and_that_is_counted_and_said():
    with proxy_without_server(envs=math) as proxy:
        tree = recorded(proxy)
        session = proxy.open(tree="t", at=2)
        play(session, SCRIPT, twist={1: "seven, at 16:40"})
        replay = proxy.end(session)["replay"]
        assert (replay["answered"], replay["wanted"], replay["left_early"]) == (1, 2, True)
        assert "request 1 differs in message 2" in replay["why"]
        assert "seven, at 16:40" in replay["why"]
        assert shape(tree)[4:] == [(1, 2), (4, None), (5, None)]
        assert tree.nodes[5].info["replay"]["left_early"]
        assert tree.episode_return(6) == 1.0


def test_a_tool_that_was_not_called_so_leaves_the_record_too():
    with proxy_without_server(envs=math) as proxy:
        recorded(proxy)
        session = proxy.open(tree="t", at=2)
        ask(session, *session.first, say="not asked")
        assert session.execute("calculate", {"expression": "9 - 2"}).answer == "7"
        assert session.execute("calculate", {"expression": "1 + 1"}).answer == "2"
        replay = session.status()["replay"]
        assert replay["left_early"]
        assert "calculate was called with" in replay["why"]


def test_going_back_to_an_environment_that_does_not_repeat_itself_is_a_failure():
    with proxy_without_server(envs=math) as proxy:
        tree = recorded(proxy)
        del tree.snapshots[2]
        tree.nodes[1].info["executed"][0]["answer"] = "8"
        session = proxy.open(tree="t", at=2)
        message = ask(session, *session.first)
        assert session.execute("calculate", {"expression": "9 - 2"}).answer == "8"
        ask(session, *session.first, message, {"role": "tool", "content": "7"})
        with pytest.raises(RequestError, match="did not repeat itself"):
            session.execute("calculate", {"expression": "7 * 3"})
            ask(session, *session.first, say="live")
        assert "did not repeat itself" in proxy.end(session)["failure"]


def test_what_is_no_answer_of_a_model_cannot_be_branched_at():
    with proxy_without_server(envs=math) as proxy:
        recorded(proxy)
        for at, names in ((3, "it has ended"), (9, "no such node")):
            with pytest.raises(TreeError, match=names):
                proxy.open(tree="t", at=at)
