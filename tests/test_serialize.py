"""Trees files: lossless, appendable, and every way in which a file can be broken."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from envs_for_tests import Dice, GuessingAgent, signature
from episode_trees import episode_trees
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import TreeError, TreeFileError
from agentenv.rollout import Rollout, rollout_trees
from agentenv.serialize import FORMAT, VERSION, TreeWriter, iter_trees, read_trees, write_trees
from agentenv.tree import Anchor, EpisodeTree, Node, Prompt
from agentenv.types import Action, ToolCall, Usage


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


def test_words_of_every_kind_come_back_and_an_image_is_written_once(tmp_path):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
    said: Any = {"role": "user", "content": [{"type": "text", "text": "Look:"}, image]}
    call = ToolCall("look", {"at": "<think>x</think>\u2028"}, "call_0")
    action = Action("so", (call,), (1, 2), (-1.0, -0.5), None, "stop", "hm\n\\boxed{4}", Usage(9, 3, 2), 7)
    tree = EpisodeTree((said,))
    for _ in range(3):
        tree.add(0, action, (said,), reward=0.0)
    path = tmp_path / "trees.jsonl"
    write_trees(path, [tree])
    (again,) = read_trees(path)
    assert [node.action for node in again.nodes] == [None, action, action, action]
    assert [node.observation for node in again.nodes] == [(said,)] * 4
    assert path.read_text().count("A" * 4000) == 1


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


def test_the_file_starts_with_its_format_and_has_a_node_a_line(tmp_path):
    trees = grown(2)
    write_trees(tmp_path / "trees.jsonl", trees)
    header, *lines = map(json.loads, (tmp_path / "trees.jsonl").read_text().splitlines())
    assert header == {"format": "agentenv.trees", "version": 2} == {"format": FORMAT, "version": VERSION}
    assert [line["task"]["goal"] for line in lines if "task" in line] == [0, 1]
    keys = [(line["tree"], line["rollout"], line["step"]) for line in lines if "rollout" in line]
    assert len(set(keys)) == len(keys) == sum(len(tree) - 1 for tree in trees)
    assert {tuple(line["from"]) for line in lines if "from" in line} == {(0, 0, 0)}


def test_the_order_of_lines_changes_nothing(tmp_path):
    path = tmp_path / "trees.jsonl"
    trees = grown(2)
    write_trees(path, trees)
    header, *lines = path.read_text().splitlines()
    begins = [line for line in lines if '"task_id"' in line]
    chains: dict[tuple[int, int], list[str]] = {}
    for line in lines:
        if line not in begins:
            event = json.loads(line)
            chains.setdefault((event["tree"], event["rollout"]), []).append(line)
    mixed = [line for key in sorted(chains, reverse=True) for line in chains[key]]
    path.write_text("\n".join([header, *begins, *mixed]) + "\n")
    assert [signature(tree) for tree in read_trees(path)] == [signature(tree) for tree in trees]


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
    tree = EpisodeTree(())
    leaf = tree.add(0, Action("a", (), (2,), (-1.0,), (1,)), reward=0.0)
    tree.add(tree.add(leaf, Action("b"), reward=0.0), Action("c"), reward=1.0, terminated=True)
    tree.add(0, Action("d"), reward=1.0)
    write_trees(path, [tree, tree])
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


def drop(lines, number, field):
    record = json.loads(lines[number])
    del record[field]
    return [*lines[:number], json.dumps(record).encode(), *lines[number + 1 :]]


CASES = {
    "broken json": (lambda lines: [lines[0], b'{"task_id": nope}'], ", line 2: is no JSON (Expecting value"),
    "cut line": (lambda lines: [*lines[:2], lines[2][:100]], ", line 3: "),
    "blank line": (lambda lines: [lines[0], b"", lines[1]], ", line 2: is no JSON (Expecting value"),
    "not utf-8": (lambda lines: [lines[0], b"\xff\xfe"], ", line 2: is no JSON ('utf-8' codec can't decode"),
    "deep": (lambda lines: [lines[0], b"[" * 100_000], ", line 2: "),
    "no header": (lambda lines: lines[1:], ", line 1: expected a header {'format': 'agentenv.trees', 'version': 2}"),
    "a list": (lambda lines: [b"[]"], ", line 1: expected a header"),
    "wrong version": (
        lambda lines: edit(lines, 0, version=3),
        ", line 1: version must be 1 to 2, got 3; read it with the release that wrote it",
    ),
    "version of text": (lambda lines: edit(lines, 0, version="2"), ", line 1: version must be 1 to 2, got '2'"),
    "two headers": (lambda lines: [lines[0], *lines], ", line 2: missing 'tree'"),
    "a number": (lambda lines: [lines[0], b"7"], ", line 2: expected an object, got 7"),
    "missing task": (lambda lines: drop(lines, 1, "task"), ", line 2: missing 'task'"),
    "no tree": (lambda lines: [lines[0], *lines[2:]], ", line 2: tree 0 has not begun"),
    "parent missing": (
        lambda lines: edit(lines, 4, **{"from": [9, 0, 9]}, step=10),
        ", line 5: there is no node with rollout, attempt and step [9, 0, 9] before it",
    ),
    "parent elsewhere": (
        lambda lines: edit(lines, 2, **{"from": [0, 0, 9]}),
        ", line 3: step 1 of rollout 0 does not follow 'from', which is [0, 0, 9]",
    ),
    "parent of text": (lambda lines: edit(lines, 2, **{"from": "zero"}), ", line 3: "),
    "a step left out": (lambda lines: [*lines[:2], *lines[3:]], ", line 3: step 2 of rollout 0 does not follow"),
    "a step twice": (lambda lines: [*lines[:4], *lines[3:]], ", line 5: step 2 of rollout 0 does not follow"),
    "step of text": (lambda lines: edit(lines, 2, step="1"), ", line 3: rollout, attempt and step must be integers"),
    "reward of text": (lambda lines: edit(lines, 2, reward="1"), ", line 3: reward must be a number or null, got '1'"),
    "reward of truth": (
        lambda lines: edit(lines, 2, reward=True),
        ", line 3: reward must be a number or null, got True",
    ),
    "info of text": (lambda lines: edit(lines, 2, info="x"), ", line 3: info must be an object, got 'x'"),
    "state of null": (lambda lines: edit(lines, 2, state=None), ", line 3: state must be a text, got None"),
    "root's state": (lambda lines: edit(lines, 1, state=3), ", line 2: state must be a text, got 3"),
    "metadata": (lambda lines: edit(lines, 1, metadata=[1]), ", line 2: metadata must be an object, got [1]"),
    "infinite reward": (
        lambda lines: edit(lines, 2, reward=math.inf),
        ", line 3: reward must be a finite number, or None where infrastructure failed; got inf",
    ),
    "env_id": (lambda lines: edit(lines, 1, env_id=None), ", line 2: env_id must be a text, got None"),
    "an end in words": (
        lambda lines: edit(lines, 2, terminated="no"),
        ", line 3: terminated must be true or false, got 'no'",
    ),
    "content": (
        lambda lines: edit(lines, 2, action={"content": 5}),
        ", line 3: action.content must be a text, got 5",
    ),
    "call": (
        lambda lines: edit(lines, 2, action={"tool_calls": [{"name": 5}]}),
        ", line 3: action.tool_calls[0].name must be a text, got 5",
    ),
    "action missing": (lambda lines: edit(lines, 2, action=None), ", line 3: action must be an object, got None"),
    "action field": (
        lambda lines: edit(lines, 2, action={"tool_calls": [{"nom": "f"}]}),
        ", line 3: ToolCall.__init__() got an unexpected keyword argument 'nom'",
    ),
    "logprobs": (
        lambda lines: edit(lines, 2, action={"token_ids": [1], "logprobs": [-1.0, -2.0]}),
        ", line 3: Action.logprobs must have one entry per token: got 2 for 1 token_ids",
    ),
    "prompt": (
        lambda lines: edit(lines, 2, prompt={"kept": 4, "token_ids": []}),
        ", line 3: prompt.kept must be in [0, 0] at node 0, got 4",
    ),
    "observation": (
        lambda lines: edit(lines, 2, observation=[{"role": "user"}]),
        ", line 3: an observation's message needs 'role' and 'content'",
    ),
    "after the end": (lambda lines: edit(lines, 2, terminated=True), ", line 4: node 1 has ended"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_file_is_named_with_line_and_reason(tmp_path, name):
    change, words = CASES[name]
    message = broken(tmp_path / "trees.jsonl", change)
    assert message.startswith(words), message
    assert len(message) > len(", line 3: "), message


@pytest.mark.parametrize(
    ("number", "line", "remedy"),
    [
        (1, b"# notes of mine", "): name a file of trees, as rollout, train or play writes them"),
        (1, b"\x1f\x8b\x08", "): name a file of trees"),
        (2, b"", "): remove the line, and what the next message"),
        (3, b"<<<<<<< HEAD", "): remove the line, and what the next message"),
    ],
)
def test_a_line_that_is_no_json_says_so_and_what_to_do(tmp_path, number, line, remedy):
    message = broken(tmp_path / "trees.jsonl", lambda lines: [*lines[: number - 1], line, *lines[number - 1 :]])
    assert message.startswith(f", line {number}: is no JSON (") and remedy in message, message


def test_a_line_that_was_cut_is_an_error(tmp_path):
    path = tmp_path / "trees.jsonl"
    write_trees(path, grown(2))
    count = len(path.read_bytes().splitlines())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TreeFileError, match=rf"line {count}: the last line was cut"):
        read_trees(path)


def test_a_journal_whose_last_line_is_cut_is_read_with_a_warning_unless_it_may_be_being_written(tmp_path):
    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, GuessingAgent(), record=path) as rollout:
        rollout.grow([{"goal": 30}], 4)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])
    count = len(path.read_bytes().splitlines())
    with pytest.warns(UserWarning, match=rf"trees.jsonl, line {count}: the last line is cut off; what had ended befo"):
        left = read_trees(path)
    assert [list(tree.nodes) for tree in read_trees(path, live=True)] == [list(tree.nodes) for tree in left]
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0] + b"\n")
    assert [list(tree.nodes) for tree in read_trees(path)] == [list(tree.nodes) for tree in left]


def test_who_does_what_the_messages_say_about_a_broken_line_gets_a_file_that_is_read(tmp_path):
    path = tmp_path / "trees.jsonl"
    with Rollout(Dice, GuessingAgent(), record=path) as rollout:
        trees = rollout.grow([{"goal": 30}, {"goal": 12}], 3)
        rollout.extend(trees, [Anchor(i, max(tree.snapshots), 2) for i, tree in enumerate(trees)])
    whole = path.read_bytes().splitlines()
    for number in range(1, len(whole)):
        lines = [*whole[:number], b"nope", *whole[number + 1 :]]
        for _ in range(12):
            path.write_bytes(b"".join(line + b"\n" for line in lines))
            try:
                trees = read_trees(path)
            except TreeFileError as error:
                message = str(error)
            else:
                assert sum(map(len, trees)) > 0
                break
            if "remove the line" in message:
                lines = [line for line in lines if line != b"nope"]
                continue
            said = re.search(r'remove all lines with "tree":(\d+)(?: and "rollout":(\d+))?, or take the file', message)
            assert said, message
            gone = {"tree": int(said[1])} | ({"rollout": int(said[2])} if said[2] else {})
            kept = [line for line in lines if not gone.items() <= json.loads(line).items()]
            assert len(kept) < len(lines)
            lines = kept
        else:
            pytest.fail(f"line {number + 1} was not mended")


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "trees.jsonl"
    (tree,) = grown(1)
    write_trees(path, [tree])
    before = path.read_bytes()
    tree.metadata["handle"] = object()
    for append in (False, True):
        with pytest.raises(TypeError):
            write_trees(path, [tree], append=append)
        assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["trees.jsonl"]


# ---------------------------------------------------------------------- what actions saw


def stepped(rollout, *prompts):
    """A rollout's nodes, each with what its action saw."""
    action = Action("a", (), (1,), (-1.0,))
    return [[(Node(-1, action, (), 0.0, rollout=rollout), prompt) for prompt in prompts]]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ((Prompt(0, (7, 8)),), (Prompt(0, (7, 9)),), r"tree 0 with .* \[0, 0, 0\] saw different prompts \(2 and 2"),
        ((Prompt(0, (7, 8)),), (Prompt(0, ()),), r"tree 0 with .* \[0, 0, 0\] saw different prompts \(2 and 0"),
        ((Prompt(0, (7,)), Prompt(2, (8,))), (None, Prompt(2, (9,))), None),
    ],
)
def test_a_writer_refuses_another_prompt_at_a_node(tmp_path, first, second, words):
    path = tmp_path / "trees.jsonl"
    with TreeWriter(path, journal=True) as writer:
        writer.begin_tree(EpisodeTree(()))
        writer.add_rollout(0, (0, 0, 0), stepped(0, *first))
        before = path.read_bytes()
        if words:
            with pytest.raises(TreeError, match=words):
                writer.add_rollout(0, (0, 0, 0), stepped(1, *second))
            assert path.read_bytes() == before
        else:  # at nodes of their own they may differ
            writer.add_rollout(0, (0, 0, 0), stepped(1, *second))
        writer.add_rollout(0, (0, 0, 0), stepped(2, *first))
    (tree,) = read_trees(path)
    assert tree.prompt(0) == first[0]


@pytest.mark.parametrize("ended", [True, False])
def test_of_two_sessions_that_saw_something_else_a_reader_names_the_line_unless_the_first_never_ended(tmp_path, ended):
    path = tmp_path / "trees.jsonl"
    with TreeWriter(path, journal=True) as writer:
        writer.begin_tree(EpisodeTree(()))
        writer.add_rollout(0, (0, 0, 0), stepped(0, Prompt(0, (7,)), None))
    if not ended:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with TreeWriter(path, append=True, journal=True) as writer:
        writer.add_rollout(0, (0, 0, 0), stepped(1, Prompt(0, (8,))))
    if ended:
        with pytest.raises(TreeFileError, match=r"line 5: two actions from node 0 .* saw different prompts"):
            read_trees(path)
    else:
        assert read_trees(path)[0].prompt(0) == Prompt(0, (8,))


@pytest.mark.parametrize("token", [5, 6])
def test_a_prompt_that_keeps_more_of_a_path_that_became_known_is_compared_by_the_reader(tmp_path, token):
    path = tmp_path / "trees.jsonl"
    with TreeWriter(path, journal=True) as writer:
        writer.begin_tree(EpisodeTree(()))
        writer.add_rollout(0, (0, 0, 0), stepped(0, None, Prompt(0, (7, 1, 5))))
        writer.add_rollout(0, (0, 0, 0), stepped(1, Prompt(0, (7,))))
        writer.add_rollout(0, (0, 0, 1), stepped(2, Prompt(2, (token,))))
    if token == 5:
        assert read_trees(path)[0].prompt_token_ids(1) == (7, 1, 5)
    else:
        with pytest.raises(TreeFileError, match="line 6: two actions from node 1 of"):
            read_trees(path)


# ---------------------------------------------------------------------- version 1


OLD = (
    '{"format": "agentenv.trees", "version": 1}\n'
    '{"task_id": "t", "env_id": "e-v0", "task": {"goal": 3}, "metadata": {"seed": 5}, "nodes": ['
    '{"parent": -1, "observation": [{"role": "user", "content": "go"}], "reward": 0.0, "state": "s0",'
    ' "prompt": {"kept": 0, "token_ids": [1, 2]}},'
    '{"parent": 0, "observation": [], "reward": 0.5, "state": "s1", "action": {"content": "a", "tool_calls": [],'
    ' "token_ids": [3], "logprobs": [-0.5]}, "action_signature": "a", "prompt": {"kept": 3, "token_ids": [4]}},'
    '{"parent": 0, "observation": [], "reward": null, "state": "", "action": {"content": "", "tool_calls": []},'
    ' "action_signature": "", "info": {"failure": "x"}},'
    '{"parent": 1, "observation": [], "reward": 1.0, "state": "s2", "action": {"content": "b", "tool_calls": [],'
    ' "token_ids": [5, 6], "logprobs": [-1.0, -2.0]}, "action_signature": "b", "terminated": true}]}\n'
)


def test_the_version_before_is_read(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text(OLD)
    (tree,) = read_trees(path)
    assert (tree.task_id, tree.env_id, tree.task, tree.metadata) == ("t", "e-v0", {"goal": 3}, {"seed": 5})
    assert [node.parent for node in tree.nodes] == [-1, 0, 0, 1]
    assert [node.reward for node in tree.nodes] == [0.0, 0.5, None, 1.0]
    assert tree.token_ids(3) == (1, 2, 3, 4, 5, 6)
    write_trees(tmp_path / "new.jsonl", [tree])
    (again,) = read_trees(tmp_path / "new.jsonl")
    assert signature(again) == signature(tree)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"parent": -1', '"parent": 0', "line 2: node 0 must be the root"),
        ('"parent": 1', '"parent": 7', r"line 2: node 3: parent must be a node index in \[0, 3\), got 7"),
        ('"nodes": [', '"nodes": 7, "rest": [', "line 2: 'nodes' must be a list"),
        ('"env_id": "e-v0", ', "", "line 2: missing 'env_id'"),
    ],
)
def test_what_is_broken_in_the_version_before_is_named(tmp_path, old, new, words):
    path = tmp_path / "old.jsonl"
    path.write_text(OLD.replace(old, new))
    with pytest.raises(TreeFileError, match=words):
        read_trees(path)


def test_nothing_is_added_to_the_version_before(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text(OLD)
    with pytest.raises(TreeFileError, match="nothing can be added to a file of version 1"):
        write_trees(path, grown(1), append=True)
    assert path.read_text() == OLD


def test_an_empty_file_and_a_missing_one(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(TreeFileError, match="line 1: the file is empty; expected a header"):
        read_trees(tmp_path / "empty.jsonl")
    with pytest.raises(FileNotFoundError):
        read_trees(tmp_path / "none.jsonl")
