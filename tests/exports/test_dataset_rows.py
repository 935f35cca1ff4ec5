"""Rows of data sets: the whole tree there and back, whatever is done to the order of the rows."""

import json

import pytest
from datasets import Dataset
from episode_trees import episode_trees
from exported_trees import odd_tree, told
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import random_trees

from agentenv import EpisodeTree
from agentenv.credit import rtmc_advantages
from agentenv.errors import TreeError
from agentenv.exports import from_dataset_rows, to_dataset, to_dataset_rows


@settings(max_examples=25)
@given(st.lists(episode_trees().map(lambda drawn: drawn[0]) | random_trees(), min_size=1, max_size=3), st.randoms())
def test_trees_come_back_from_rows_in_any_order(trees, shuffled):
    rows = to_dataset_rows(trees)
    shuffled.shuffle(rows)
    assert [told(tree) for tree in from_dataset_rows(rows)] == [told(tree) for tree in trees]


@settings(max_examples=8)
@given(st.lists(episode_trees().map(lambda drawn: drawn[0]) | random_trees(), min_size=1, max_size=2))
def test_trees_come_back_from_an_arrow_table(trees):
    assert [told(tree) for tree in from_dataset_rows(to_dataset(trees))] == [told(tree) for tree in trees]


def test_what_is_rare_comes_back_from_parquet_shuffled_and_with_more_columns(tmp_path):
    trees = [odd_tree(), odd_tree()]
    data = to_dataset(trees, rtmc=rtmc_advantages).add_column("mine", list(range(6)))
    data.select([4, 1, 3, 0, 5, 2]).to_parquet(str(tmp_path / "rows.parquet"))
    assert [told(tree) for tree in from_dataset_rows(tmp_path / "rows.parquet")] == [told(tree) for tree in trees]
    assert data["observation"][0][0]["content"] == "Look \ufffd"
    assert data["tool_calls"][1][0] == {"name": "see", "arguments": '{"x": [1, {"y": "\\ud800"}]}', "id": "c1"}
    credit = rtmc_advantages(odd_tree().arrays())
    assert data["rtmc_advantage"][:3] == list(credit.advantages)
    assert str(data.features["rtmc_count"].dtype) == "int64"


def test_trees_without_nodes_and_no_trees():
    assert to_dataset([]).num_rows == 0
    assert from_dataset_rows([]) == []
    (root,) = from_dataset_rows(to_dataset(EpisodeTree((), task_id="t")))
    assert (len(root), root.task_id) == (1, "t")


def test_a_column_has_the_same_type_whatever_the_trees():
    few, many = to_dataset(EpisodeTree(())), to_dataset(odd_tree())
    assert few.features == many.features
    assert Dataset.from_list(to_dataset_rows(odd_tree())).column_names == many.column_names


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.pop(1), "tree 0, node 1: its row is missing, but there is one of node 2"),
        (lambda rows: rows.pop(0), "tree 0, node 0: its row is missing"),
        (lambda rows: rows.append(rows[1]), "row 3: tree 0 has two nodes 1"),
        (lambda rows: rows[1].update(parent=None), "row 1: parent is missing or empty"),
        (lambda rows: rows[1].update(reward="much"), "row 1: reward: .* got 'much'"),
        (lambda rows: rows[2].update(parent=5), r"tree 0, node 2: parent must be a node index in \[0, 2\), got 5"),
        (lambda rows: rows[2].update(info="{"), "tree 0, node 2: Expecting"),
        (lambda rows: rows[0].update(root=json.dumps({})), "tree 0, node 0: missing 'task_id'"),
        (lambda rows: rows[0].update(root=None), "tree 0, node 0: must be the root"),
    ],
)
def test_what_is_wrong_with_rows_is_named(change, words):
    rows = to_dataset_rows(odd_tree())
    change(rows)
    with pytest.raises(TreeError, match=words):
        from_dataset_rows(rows)


def test_credit_takes_no_name_of_a_column():
    with pytest.raises(ValueError, match="must not be named 'reward'"):
        to_dataset_rows(odd_tree(), reward=[0.0, 1.0, 2.0])
