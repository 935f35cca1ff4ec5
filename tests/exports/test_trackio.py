"""Traces: a tree's spans are its nodes and calls, branches below the node that they leave."""

import json

from episode_trees import episode_trees
from hypothesis import given, settings

from agentenv import Action, EpisodeTree, ToolCall
from agentenv.credit import rtmc_advantages
from agentenv.exports import trackio_traces
from agentenv.types import Observation


def fork():
    tree = EpisodeTree(({"role": "user", "content": "Where?"},), task_id="t", env_id="E-v0")
    answer: Observation = ({"role": "tool", "content": "at a", "tool_call_id": "c1"},)
    tree.add(0, Action("on", (ToolCall("go", {"to": "a"}, "c1"),)), answer, reward=0.5)
    tree.add(1, Action("c"), reward=0.0, truncated=True)
    tree.add(1, Action("b"), reward=1.0, terminated=True)
    tree.add(0, Action("d"), reward=None, info={"failure": "SandboxError: gone"})
    return tree


def test_a_tree_by_hand():
    (trace,) = trackio_traces(fork(), rtmc=rtmc_advantages)
    assert [message["content"] for message in trace["messages"]] == ["Where?", "on", "at a", "b"]
    assert trace["metadata"] == {
        "environment": "E-v0", "task_id": "t", "tree": 0, "trajectories": 3, "failed": 1, "success": 0.5,
        "mean_return": 1.0, "shown_leaf": 3,
    }  # fmt: skip
    spans = {span["id"]: span for span in trace["spans"]}
    assert {name: span.get("parent_id") for name, span in spans.items()} == {
        "0": None, "1": "0", "1.0": "1", "2": "1", "3": "1", "4": "0",
    }  # fmt: skip
    assert [spans[name]["kind"] for name in ("0", "1", "1.0")] == ["span", "generation", "tool"]
    assert (spans["1.0"]["input"], spans["1.0"]["output"]) == ({"to": "a"}, "at a")
    assert (spans["4"]["status"], spans["4"]["error"]) == ("error", "SandboxError: gone")
    assert spans["3"]["metadata"]["terminated"] and spans["2"]["metadata"]["truncated"]
    credit = rtmc_advantages(fork().arrays()).advantages.tolist()
    found = [spans[str(i)]["metadata"]["credit"]["rtmc_advantage"] for i in range(5)]
    assert found == credit


@settings(max_examples=20)
@given(episode_trees())
def test_any_tree_is_a_trace_of_json(drawn):
    (trace,) = trackio_traces(drawn[0])
    assert json.loads(json.dumps(trace)) == json.loads(json.dumps(trace))
    ids = [span["id"] for span in trace["spans"]]
    assert len(set(ids)) == len(ids)
    assert [span["parent_id"] in ids[:i] for i, span in enumerate(trace["spans"]) if i] == [True] * (len(ids) - 1)
    assert len([name for name in ids if "." not in name]) == len(drawn[0])
