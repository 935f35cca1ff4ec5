"""Trees files: lossless, appendable, and every way in which a file can be broken."""

import json
import math
from typing import Any

import numpy as np
import pytest
from envs_for_tests import Dice, GuessingAgent, signature
from episode_trees import episode_trees
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import TreeError, TreeFileError
from agentenv.rollout import rollout_trees
from agentenv.serialize import FORMAT, VERSION, iter_trees, read_trees, tree_from_dict, tree_to_dict, write_trees
from agentenv.tree import EpisodeTree
from agentenv.types import Action, ToolCall


def grown(count=2):
    return rollout_trees(Dice, GuessingAgent(), [{"goal": goal} for goal in range(count)], 3)


@given(st.lists(episode_trees(), max_size=2))
def test_trees_come_back_as_they_were(tmp_path_factory, drawn):
    trees = [tree for tree, *_ in drawn]
    path = tmp_path_factory.mktemp("trees") / "trees.jsonl"
    write_trees(path, trees)
    again = read_trees(path)
    assert [signature(tree) for tree in again] == [signature(tree) for tree in trees]
    for tree, (_, _, prompts) in zip(again, drawn, strict=True):
        assert [tree.prompt_token_ids(i) for i in range(len(tree))] == prompts


def test_trees_that_were_grown_come_back_token_for_token(tmp_path):
    trees = grown()
    path = tmp_path / "new" / "folder" / "trees.jsonl"
    write_trees(path, trees)
    again = read_trees(path)
    assert [signature(tree) for tree in again] == [signature(tree) for tree in trees]
    for tree, other in zip(trees, again, strict=True):
        assert [tree.token_ids(i) for i in range(len(tree))] == [other.token_ids(i) for i in range(len(tree))]
        assert other.snapshots == {}
    write_trees(tmp_path / "again.jsonl", again)
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


@given(st.lists(st.floats(max_value=0), min_size=1), st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_kept_to_the_last_bit(tmp_path_factory, logprobs, reward):
    tree = EpisodeTree(())
    tree.add(0, Action("", (), tuple(range(len(logprobs))), tuple(logprobs)), reward=reward)
    path = tmp_path_factory.mktemp("trees") / "trees.jsonl"
    write_trees(path, [tree])
    (again,) = read_trees(path)
    assert again.nodes[1].action is not None
    assert [x.hex() for x in again.nodes[1].action.logprobs or ()] == [x.hex() for x in logprobs]
    assert again.nodes[1].reward is not None
    assert again.nodes[1].reward.hex() == reward.hex()


def test_what_models_write_and_json_hardly_knows_is_kept(tmp_path):
    tree: Any = EpisodeTree(({"role": "user", "content": "\u2028 \x85 \r\n \ud800 \x00 漢"},))
    call = ToolCall("f", {"x": math.inf, "\udfff": "\ud83d"}, "\ud800")
    tree.add(np.int64(0), Action("\ud800", (call,), (1,), (-math.inf,)), reward=np.float32(1.0))
    write_trees(tmp_path / "trees.jsonl", [tree, tree])
    assert [signature(again) for again in read_trees(tmp_path / "trees.jsonl")] == [signature(tree)] * 2


def test_the_file_starts_with_its_format_and_has_a_tree_a_line(tmp_path):
    write_trees(tmp_path / "trees.jsonl", grown(2))
    header, *lines = (tmp_path / "trees.jsonl").read_text().splitlines()
    assert json.loads(header) == {"format": "agentenv.trees", "version": 1} == {"format": FORMAT, "version": VERSION}
    assert [json.loads(line)["task"]["goal"] for line in lines] == [0, 1]


def test_appending_adds_trees_and_writing_replaces_them(tmp_path):
    path = tmp_path / "trees.jsonl"
    first, second = grown(2)
    write_trees(path, [first], append=True)
    write_trees(path, [second], append=True)
    write_trees(path, [], append=True)
    assert [tree.task_id for tree in iter_trees(path)] == [first.task_id, second.task_id]
    write_trees(path, [second])
    assert len(read_trees(path)) == 1
    path.write_text("")
    write_trees(path, [first], append=True)
    assert len(read_trees(path)) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": "other"}\n', r"line 1: expected a header .*agentenv\.trees"),
        (f'{{"format": "{FORMAT}", "version": {VERSION}}}', "the last line was cut .* delete that line before adding"),
        (f'{{"format": "{FORMAT}", "version": {VERSION}}}\n{{"task_id": ', "the last line was cut"),
    ],
)
def test_nothing_is_added_to_another_file_or_to_a_line_that_was_cut(tmp_path, content, words):
    path = tmp_path / "trees.jsonl"
    path.write_text(content)
    with pytest.raises(TreeFileError, match=words):
        write_trees(path, grown(1), append=True)
    assert path.read_text() == content


# ---------------------------------------------------------------------- broken files


def broken(path, change):
    """Writes a good file, changes its lines, and returns the message of the error."""
    write_trees(path, grown(2))
    lines = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"\n".join(change(lines)) + b"\n")
    with pytest.raises(TreeFileError) as caught:
        read_trees(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def edit(lines, number, **changes):
    record = json.loads(lines[number])
    record.update(changes)
    return [*lines[:number], json.dumps(record).encode(), *lines[number + 1 :]]


def edit_node(lines, node, **changes):
    record = json.loads(lines[2])
    record["nodes"][node].update(changes)
    return [*lines[:2], json.dumps(record).encode()]


def drop(lines, field):
    record = json.loads(lines[2])
    del record[field]
    return [*lines[:2], json.dumps(record).encode()]


CASES = {
    "broken json": (lambda lines: [lines[0], b'{"task_id": nope}'], ", line 2: Expecting value"),
    "cut line": (lambda lines: [*lines[:2], lines[2][:100]], ", line 3: "),
    "blank line": (lambda lines: [lines[0], b"", lines[1]], ", line 2: Expecting value"),
    "not utf-8": (lambda lines: [lines[0], b"\xff\xfe"], ", line 2: 'utf-8' codec can't decode"),
    "deep": (lambda lines: [lines[0], b"[" * 100_000], ", line 2: "),
    "no header": (lambda lines: lines[1:], ", line 1: expected a header {'format': 'agentenv.trees', 'version': 1}"),
    "a list": (lambda lines: [b"[]"], ", line 1: expected a header"),
    "wrong version": (
        lambda lines: edit(lines, 0, version=2),
        ", line 1: version must be 1, got 2; read it with the release that wrote it",
    ),
    "two headers": (lambda lines: [*lines, lines[0]], ", line 4: missing 'nodes'"),
    "a number": (lambda lines: [lines[0], b"7"], ", line 2: expected an object with 'nodes', got 7"),
    "missing task": (lambda lines: drop(lines, "task"), ", line 3: missing 'task'"),
    "no nodes": (lambda lines: edit(lines, 2, nodes=[]), ", line 3: 'nodes' must be a list that starts with the root"),
    "root with parent": (lambda lines: edit_node(lines, 0, parent=0), ", line 3: node 0 must be the root"),
    "parent missing": (
        lambda lines: edit_node(lines, 1, parent=99),
        ", line 3: node 1: parent must be a node index in [0, 1), got 99",
    ),
    "parent of text": (lambda lines: edit_node(lines, 1, parent="zero"), ", line 3: node 1: "),
    "reward of text": (lambda lines: edit_node(lines, 1, reward="high"), ", line 3: node 1: "),
    "infinite reward": (
        lambda lines: edit_node(lines, 1, reward=math.inf),
        ", line 3: node 1: reward must be finite, or None where infrastructure failed; got inf",
    ),
    "action missing": (lambda lines: edit_node(lines, 1, action=None), ", line 3: node 1: "),
    "action field": (
        lambda lines: edit_node(lines, 1, action={"tool_calls": [{"nom": "f"}]}),
        ", line 3: node 1: ToolCall.__init__() got an unexpected keyword argument 'nom'",
    ),
    "logprobs": (
        lambda lines: edit_node(lines, 1, action={"token_ids": [1], "logprobs": [-1.0, -2.0]}),
        ", line 3: node 1: Action.logprobs must have one entry per token: got 2 for 1 token_ids",
    ),
    "prompt": (
        lambda lines: edit_node(lines, 0, prompt={"kept": 4, "token_ids": []}),
        ", line 3: prompt.kept must be in [0, 0] at node 0, got 4",
    ),
    "observation": (
        lambda lines: edit_node(lines, 1, observation=[{"role": "user"}]),
        ", line 3: node 1: an observation's message needs 'role' and 'content'",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_file_is_named_with_line_and_reason(tmp_path, name):
    change, words = CASES[name]
    message = broken(tmp_path / "trees.jsonl", change)
    assert message.startswith(words), message
    assert len(message) > len(", line 3: "), message


def test_a_node_after_the_end_is_named():
    tree = EpisodeTree(())
    tree.add(0, Action("a"), reward=1.0)
    tree.add(1, Action("b"), reward=1.0)
    record = tree_to_dict(tree)
    tree_from_dict(record)
    record["nodes"][1]["terminated"] = True
    with pytest.raises(TreeError, match="node 2: node 1 has ended"):
        tree_from_dict(record)


def test_trees_before_the_broken_line_are_read(tmp_path):
    path = tmp_path / "trees.jsonl"
    write_trees(path, grown(2))
    path.write_bytes(path.read_bytes()[:-20])
    trees = iter_trees(path)
    assert next(trees).task["goal"] == 0
    with pytest.raises(TreeFileError, match="line 3: "):
        next(trees)


def test_an_empty_file_and_a_missing_one(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(TreeFileError, match="line 1: the file is empty; expected a header"):
        read_trees(tmp_path / "empty.jsonl")
    with pytest.raises(FileNotFoundError):
        read_trees(tmp_path / "none.jsonl")
