"""ATIF documents: by its rules, one per leaf, shared steps once; and the whole tree back.

Harbor's own validator reads what this writes in tests/interop (`.ci/peers harbor`).
"""

import json

import pytest
from envs_for_tests import signature
from episode_trees import episode_trees
from exported_trees import odd_tree, told
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import random_trees

from agentenv import Action, EpisodeTree, ToolCall
from agentenv.credit import rtmc_advantages
from agentenv.errors import TreeError
from agentenv.exports import from_atif, to_atif
from agentenv.types import Observation

ANY_TREE = episode_trees().map(lambda drawn: drawn[0]) | random_trees()


def fork():
    """Root - a - (b: 1 | c: 0)."""
    tree = EpisodeTree(({"role": "system", "content": "Rules."}, {"role": "user", "content": "Where?"}), task_id="t")
    call = ToolCall("go", {"to": "a"}, "c1")
    a = Action("on", (call,), (3, 4), (-0.5, -1.0), (1, 2), reasoning="hm")
    answer: Observation = ({"role": "tool", "content": "at a", "tool_call_id": "c1"},)
    tree.add(0, a, answer, reward=0.5)
    tree.add(
        1, Action("b", token_ids=(6,), logprobs=(-2.0,), prompt_token_ids=(1, 2, 3, 4, 5)), reward=1.0, terminated=True
    )
    tree.add(1, Action("c"), reward=0.0, truncated=True)
    return tree


def check(document):
    """The rules of ATIF that its text states, of a document of ours."""
    assert document["schema_version"] == "ATIF-v1.8"
    assert [step["step_id"] for step in document["steps"]] == list(range(1, len(document["steps"]) + 1))
    assert document["steps"]
    assert document["final_metrics"]["total_steps"] == len(document["steps"])
    for step in document["steps"]:
        agent_only = {"reasoning_content", "tool_calls", "metrics", "model_name"}
        assert step["source"] == "agent" or not agent_only & step.keys()
        assert step.get("llm_call_count") != 0 or not {"metrics", "reasoning_content"} & step.keys()
        assert not (step.get("is_copied_context") and "metrics" in step)
        ids = {call["tool_call_id"] for call in step.get("tool_calls", ())}
        results = step.get("observation", {"results": ()})["results"]
        assert {result["source_call_id"] for result in results if "source_call_id" in result} <= ids
        assert all(isinstance(call["arguments"], dict) for call in step.get("tool_calls", ()))


@settings(max_examples=25)
@given(st.lists(ANY_TREE, min_size=1, max_size=2), st.randoms())
def test_trees_come_back_from_documents_by_the_rules_in_any_order(trees, shuffled):
    documents = json.loads(json.dumps(to_atif(trees)))
    assert len(documents) == sum(len(tree.leaves()) for tree in trees)
    for document in documents:
        check(document)
    own = [step for d in documents for step in d["steps"] if not step.get("is_copied_context")]
    nodes = [step["extra"]["agentenv"]["node"] for step in own]
    assert len([node for node in nodes if node]) == sum(len(tree) - 1 for tree in trees)
    order = {f"tree-{i}": i for i in range(len(trees))}
    shuffled.shuffle(documents)
    documents.sort(key=lambda document: order[document["session_id"]])
    assert [told(tree) for tree in from_atif(documents)] == [told(tree) for tree in trees]


def test_a_fork_by_hand():
    first, second = to_atif(fork(), rtmc=rtmc_advantages)
    assert [s["source"] for s in first["steps"]] == ["system", "user", "agent", "agent"]
    step = first["steps"][2]
    assert step["message"] == "on"
    assert step["reasoning_content"] == "hm"
    assert step["tool_calls"] == [{"tool_call_id": "c1", "function_name": "go", "arguments": {"to": "a"}}]
    assert step["observation"] == {"results": [{"content": "at a", "source_call_id": "c1"}]}
    assert step["metrics"] == {
        "prompt_tokens": 2, "completion_tokens": 2, "prompt_token_ids": [1, 2], "completion_token_ids": [3, 4],
        "logprobs": [-0.5, -1.0],
    }  # fmt: skip
    assert first["steps"][3]["metrics"]["prompt_token_ids"] == [1, 2, 3, 4, 5]
    assert [bool(s.get("is_copied_context")) for s in second["steps"]] == [True, True, True, False]
    assert second["extra"]["agentenv"]["branch"] == {"trajectory_id": "tree-0/2", "step_id": 3}
    assert "branch" not in first["extra"]["agentenv"]
    assert (first["session_id"], second["trajectory_id"]) == (second["session_id"], "tree-0/3")
    assert [d["extra"]["agentenv"]["return"] for d in (first, second)] == [1.5, 0.5]
    assert [d["extra"]["agentenv"]["succeeded"] for d in (first, second)] == [True, False]
    credit = rtmc_advantages(fork().arrays()).advantages
    for document, nodes in ((first, (1, 2)), (second, (1, 3))):
        about = [s["extra"]["agentenv"] for s in document["steps"][2:]]
        assert [a["credit"]["rtmc_advantage"] for a in about] == [credit[i] for i in nodes]


def test_what_is_rare_comes_back_and_images_are_parts():
    trees = [odd_tree(), fork(), odd_tree()]
    documents = to_atif(trees)
    for document in documents:
        check(document)
    text = documents[0]["steps"][0]["message"]
    assert text[1] == {"type": "image", "source": {"media_type": "image/png", "path": "data:image/png;base64,AAAA"}}
    again = from_atif(json.loads(json.dumps(documents)))
    assert [told(tree) for tree in again] == [told(tree) for tree in trees]


def test_a_conversation_that_begins_anew_is_nobodys_action():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    tree.add(0, Action("", ()), ({"role": "user", "content": "sub"},), reward=0.0, info={"kept_messages": 0})
    tree.add(1, Action("x"), reward=1.0, terminated=True)
    (document,) = to_atif(tree)
    check(document)
    assert [step.get("llm_call_count") for step in document["steps"]] == [None, 0, None]
    assert signature(from_atif([document])[0]) == signature(tree)


def test_a_root_alone_and_no_trees():
    (document,) = to_atif(EpisodeTree((), task_id="t"))
    check(document)
    (tree,) = from_atif([document])
    assert (len(tree), tree.task_id, tree.nodes[0].observation) == (1, "t", ())
    assert to_atif([]) == from_atif([]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d[0].update(schema_version="1"), "document 0: schema_version must be ATIF's, got '1'"),
        (
            lambda d: d[1].pop("extra"),
            r"document 1: extra.agentenv.version must be 1, got None: only documents of to_a",
        ),
        (lambda d: d.pop(0), "session tree-0: the document that says which task it is .* is missing"),
        (lambda d: d[0]["steps"].pop(2), "session tree-0: there is node 3, but none of the documents owns node 1"),
        (lambda d: d[0]["steps"][2]["extra"]["agentenv"].pop("reward"), "session tree-0: missing 'reward'"),
    ],
)
def test_what_is_wrong_with_documents_is_named(change, words):
    documents = to_atif(fork())
    change(documents)
    with pytest.raises(TreeError, match=words):
        from_atif(documents)
