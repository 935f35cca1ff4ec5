"""The table: a row per node, its numbers the tree's and the estimators' own."""

import csv
import io
import json
import math

import numpy as np
import pytest
from episode_trees import episode_trees
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv import Action, EpisodeTree, ToolCall, TreeArrays
from agentenv.credit import grpo_advantages, rtmc_advantages
from agentenv.exports import node_rows, to_dataframe, write_csv
from agentenv.serialize import write_trees
from agentenv.tree import Cost, Node


def maze():
    """Root - a - (b: 1.5 | c: cut), root - d: failed."""
    tree = EpisodeTree(({"role": "user", "content": "Where?"},), env_id="Maze-v0", task_id="t")
    go = Action("on", (ToolCall("go", {"to": "ä"}), ToolCall("look")), (1, 2), (-0.5, -1.0), (9,), reasoning="hm")
    tree.append(
        Node(0, go, ({"role": "tool", "content": "at a"}, {"role": "user", "content": "next"}), 0.5,
             state_signature="a", action_signature="go", info={"rewards": {"way": 0.5}}, cost=Cost(2, 1, 0, 0.25))
    )  # fmt: skip
    tree.add(1, Action("b"), reward=1.0, terminated=True, info={"rewards": {"way": 0.25, "goal": 0.75}})
    tree.add(1, Action("c"), reward=0.0, truncated=True)
    tree.add(0, Action("d"), reward=None, info={"failure": "SandboxError: gone"})
    return tree


def test_every_column_by_hand():
    rows = node_rows([maze(), maze()])
    assert [(row["tree"], row["node"], row["parent"], row["step"]) for row in rows] == [
        (tree, *numbers) for tree in (0, 1) for numbers in ((0, -1, 0), (1, 0, 1), (2, 1, 2), (3, 1, 2), (4, 0, 1))
    ]
    assert rows[1] == {
        "tree": 0, "node": 1, "parent": 0, "step": 1, "env_id": "Maze-v0", "task_id": "t", "rollout": 0, "attempt": 0,
        "action": "on", "tools": "go, look", "arguments": '[{"to": "ä"}, {}]', "reasoning": "hm",
        "observation": "at a\nnext", "reward": 0.5, "return": 0.5, "reward_goal": None, "reward_way": 0.5,
        "terminated": False, "truncated": False, "failed": False, "leaf": False, "succeeded": None, "trajectories": 2,
        "state_signature": "a", "action_signature": "go", "num_tokens": 2, "logprob": -1.5, "tokens_sampled": 2,
        "tokens_read": 1, "tokens_cached": 0, "agent_seconds": 0.25, "env_seconds": 0.0, "snapshot_seconds": 0.0,
        "snapshot_bytes": 0,
    }  # fmt: skip
    assert [row["succeeded"] for row in rows[:5]] == [None, None, True, False, None]
    assert [row["return"] for row in rows[:5]] == [0.0, 0.5, 1.5, 0.5, None]
    assert [row["failed"] for row in rows[:5]] == [False] * 4 + [True]
    assert (rows[0]["action"], rows[0]["observation"], rows[2]["reward_goal"]) == (None, "Where?", 0.75)


def test_credit_is_computed_on_all_trees_together_from_functions_results_and_numbers(tmp_path):
    trees = [maze(), maze()]
    write_trees(tmp_path / "t.jsonl", trees)
    arrays = TreeArrays.from_trees(trees)
    own = np.arange(10) / 4
    for given_trees in (trees, tmp_path / "t.jsonl", str(tmp_path / "t.jsonl")):
        table = to_dataframe(given_trees, rtmc=rtmc_advantages, grpo=grpo_advantages(arrays), own=own, flag=own > 1)
        rtmc, grpo = rtmc_advantages(arrays), grpo_advantages(arrays)
        for name, credit in (("rtmc", rtmc), ("grpo", grpo)):
            for column, field in (
                ("advantage", "advantages"),
                ("value", "values"),
                ("action_value", "action_values"),
                ("count", "counts"),
            ):
                expected = getattr(credit, field).astype(float)
                assert np.array_equal(
                    table[f"{name}_{column}"], np.where(np.isfinite(expected), expected, np.nan), equal_nan=True
                )
        assert table["own"].tolist() == own.tolist()
        assert table["flag"].tolist() == (own > 1).tolist()


def test_types_of_the_columns_are_the_same_for_any_trees():
    tables = [to_dataframe(trees, rtmc=rtmc_advantages) for trees in (maze(), [maze()] * 2)]
    assert tables[0].dtypes.equals(tables[1].dtypes)
    assert tables[0]["reward"].isna().tolist() == [False] * 4 + [True]
    assert tables[0]["succeeded"].dtype == "boolean"
    assert tables[0]["num_tokens"].dtype == "Int64"
    none = to_dataframe([], rtmc=rtmc_advantages, own=[])
    assert len(none) == 0
    assert set(none.columns) == (set(tables[0].columns) - {"reward_goal", "reward_way"}) | {"own"}
    assert tables[0].groupby("rollout").size().tolist() == [3, 1, 1]


@settings(max_examples=25)
@given(st.lists(episode_trees().map(lambda drawn: drawn[0]), min_size=1, max_size=3))
def test_any_trees_make_a_table_and_a_csv_file_that_reads_back(trees):
    rows = node_rows(trees, own=range(sum(map(len, trees))))
    assert len(rows) == sum(map(len, trees)) == len(to_dataframe(trees))
    assert len({tuple(row) for row in rows}) == 1
    file = io.StringIO(newline="")
    write_csv(rows, file)
    again = list(csv.DictReader(io.StringIO(file.getvalue(), newline=""), strict=True))
    assert [[row["observation"], row["action"]] for row in again] == [
        [row["observation"], row["action"] or ""] for row in rows
    ]
    for row, read in zip(rows, again, strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == read
    assert json.dumps(json.loads(json.dumps(rows))) == json.dumps(rows)  # as text: NaN is not NaN


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"own": [1.0]}, r"credit 'own' must be .* shape \[N\] = \[5\], .* own is float64 \[1\]"),
        ({"own": ["a"] * 5}, "credit 'own' must be StepAdvantages or numbers"),
        ({"own": lambda arrays: np.zeros((len(arrays), 2))}, r"own is float64 \[5, 2\]"),
        ({"reward": [0.0] * 5}, "credit must not be named 'reward'"),
    ],
)
def test_credit_of_the_wrong_kind_is_named(given, words):
    with pytest.raises(ValueError, match=words):
        node_rows(maze(), **given)


def test_what_is_no_tree_is_named():
    with pytest.raises(TypeError, match="a trees file, an EpisodeTree or several, got dict"):
        node_rows([{}])  # pyright: ignore[reportArgumentType]


def test_what_is_not_finite_is_empty():
    (root, step, *_) = node_rows(maze(), own=[math.inf, math.nan, 0, 0, 0])
    assert (root["own"], step["own"]) == (None, None)
    assert to_dataframe(maze(), own=[math.inf, 1, 0, 0, 0])["own"].isna().tolist() == [True] + [False] * 4
