"""What the page is given: every number is the tree's or the estimator's, and nothing is lost on the way."""

import json
import math
import shlex

import numpy as np
import pytest
from cli_runs import run
from viewer_trees import HOSTILE, long_tree, message, rich_tree, view_of, wide_tree, write

from agentenv import Action, EpisodeTree
from agentenv.cli.estimators import choose_estimator
from agentenv.cli.view import choose
from agentenv.credit.calibration import calibration_of
from agentenv.errors import TreeFileError
from agentenv.serialize import read_trees
from agentenv.viewer import View
from agentenv.viewer.data import chunks_of, details_of, encode
from agentenv.viewer.predictions import calibration_bins
from agentenv.viewer.sources import Run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("view") / "it's.jsonl", rich_tree(), rich_tree("second", wins=False), wide_tree(60)
    )


@pytest.fixture(scope="module")
def view(file):
    return view_of(file, ("rtmc", "grpo"))


def test_the_list_counts_episodes_as_statistics_do(view):
    first, second, _ = view.overview()["trees"]
    assert (first["episodes"], first["successes"], first["broken"], first["steps"], first["forks"]) == (2, 1, 1, 3, 1)
    assert (second["episodes"], second["successes"], second["mean"]) == (2, 0, 0.25)
    assert (first["task"], first["begins"], first["nodes"], first["step"]) == ("first", "Where to?", 6, None)


def test_credit_is_that_of_the_estimator_on_all_trees_of_the_file(view, file):
    from agentenv import TreeArrays

    trees = read_trees(file)
    for name in ("rtmc", "grpo"):
        steps = choose_estimator(name)(TreeArrays.from_trees(trees))
        shown = np.concatenate([np.array(view.tree(f"it's.jsonl#{i}")["credit"][name]["A"]) for i in range(3)])
        np.testing.assert_allclose(shown, steps.advantages, rtol=1e-4)
    other = view.credit_by("it's.jsonl#0", "rtmc", ["discount=0.5"])
    assert other["Q"][1] != view.tree("it's.jsonl#0")["credit"]["rtmc"]["Q"][1]


def test_a_tree_without_a_step_takes_credit_from_no_other(tmp_path):
    bare, paid = EpisodeTree(message("q", "user")), rich_tree()
    mixed = view_of(write(tmp_path / "mixed.jsonl", bare, paid, bare))
    alone = view_of(write(tmp_path / "alone.jsonl", paid)).tree("alone.jsonl#0")["credit"]["rtmc"]
    assert mixed.tree("mixed.jsonl#1")["credit"]["rtmc"] == alone
    assert mixed.tree("mixed.jsonl#2")["credit"]["rtmc"]["A"] == [None]
    nothing = view_of(write(tmp_path / "nothing.jsonl", bare)).tree("nothing.jsonl#0")["credit"]["rtmc"]
    assert nothing == {"A": [None], "Q": [None], "V": [None], "N": [None]}
    for name in ("mixed", "nothing"):
        assert run("trees", tmp_path / f"{name}.jsonl", "--credit", "rtmc").exit_code == 0


def test_a_wrong_estimator_option_tree_or_part_is_told(view):
    with pytest.raises(ValueError, match="no estimator 'rtm'"):
        view.credit_by("it's.jsonl#0", "rtm")
    with pytest.raises(ValueError, match="discont"):
        view.credit_by("it's.jsonl#0", "rtmc", ["discont=1"])
    for missing in ("it's.jsonl#3", "it's.jsonl#-1", "other.jsonl#0", "it's.jsonl", "../it's.jsonl#0"):
        with pytest.raises(KeyError):
            view.tree(missing)
    with pytest.raises(KeyError):
        view.details("it's.jsonl#0", 3)


def test_columns_hold_outcomes_predictions_and_who_forked(view):
    columns = view.tree("it's.jsonl#0")
    assert columns["parents"] == [-1, 0, 1, 1, 3, 0]
    assert columns["ends"] == [0, 0, 1, 0, 2, 3]
    assert columns["success"] == [None, None, True, None, False, None]
    assert columns["shares"][:5] == [0.5, 0.5, 1.0, 0.0, 0.0]
    fork = {"node": 1, "child": 3, "rollout": 1, "by": "hand", "why": "agentenv replay --at 1", "predicted": 0.625}
    assert columns["forks"] == [fork]
    assert columns["predicted"][1] == 0.625  # what was recorded goes before what is predicted anew
    assert columns["rewards"][5] is None
    assert columns["tokens"] == [0, 3, 0, 0, 0, 0]


def test_details_keep_every_word_and_integers_exactly(view):
    part = view.details("it's.jsonl#0", 0)
    step = part["nodes"][1]
    assert step["observation"][0]["text"] == HOSTILE
    assert json.loads(step["calls"][0]["arguments"]) == {"at": 12345678901234567890}
    assert "12345678901234567890" in step["calls"][0]["arguments"]  # as text: a browser's numbers would round it
    assert (step["reasoning"], step["rewards"], step["mistakes"]) == ("Maybe left.", {"shaping": 0.25}, ["slow"])
    assert (step["tokens"], step["logprobs"]) == ([5, 6, 7], [-0.1, -2.5, -0.01])
    assert step["cost"] == {"tokens_sampled": 3, "agent_seconds": 0.5}
    assert part["nodes"][5]["failure"] == "SandboxError: gone"


def test_commands_restore_the_node_with_the_file_quoted(view, file):
    commands = view.tree("it's.jsonl#1")["commands"]
    assert shlex.split(commands["play"]) == ["agentenv", "play", str(file), "--tree", "1", "--at"]
    assert shlex.split(commands["replay"])[:3] == ["agentenv", "replay", str(file)]


def test_commands_name_an_environment_that_is_not_registered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_env").mkdir()
    (tmp_path / "my_env" / "__init__.py").write_text("raise SystemExit('nobody imports this')")
    trees = [rich_tree(), rich_tree(), rich_tree(), rich_tree()]
    for tree, name in zip(trees, ("my_env/MyEnv", "nowhere/There", "agentenv/MathVerifier", "no"), strict=True):
        tree.env_id = f"{name}-v0"
    file = write(tmp_path / "t.jsonl", *trees)

    def environment(view, index):
        words = shlex.split(view.tree(f"t.jsonl#{index}")["commands"]["play"])
        return words[words.index(str(index)) + 1 : -1]

    assert [environment(view_of(file), i) for i in range(4)] == [["--env", "my_env:MyEnv"], [], [], []]
    given = View(file, choose=choose, estimators=("rtmc",), env="a:B", options=["x=1 2"])
    assert environment(given, 1) == ["--env", "a:B", "--option", "x=1 2"]
    (tmp_path / "run.json").write_text(json.dumps({"env": "my_env.env.MyEnv(x=1)"}))
    assert environment(view_of(tmp_path), 1) == ["--env", "my_env.env:MyEnv"]


def test_parts_cover_a_long_tree_once(tmp_path):
    tree = long_tree(12, 9000)
    chunks = chunks_of(tree)
    assert [i for chunk in chunks for i in chunk] == list(range(13))
    assert len(chunks) > 3
    texts = details_of(tree, chunks[1], lambda token: f"<{token}>")["texts"]
    assert texts["17"] == "<17>"


def test_what_is_not_finite_becomes_text_and_not_broken_json():
    values = {"a": [math.nan, math.inf, 1.5], "b": (1, "x"), "c": "\ud800"}
    assert json.loads(encode(values)) == {"a": ["nan", "inf", 1.5], "b": [1, "x"], "c": "\ud800"}


def test_calibration_is_that_of_the_credit_package():
    p, t, w = np.array([0.05, 0.15, 0.95, 1.0]), np.array([0.0, 0.5, 1.0, 0.5]), np.array([1.0, 2.0, 3.0, 4.0])
    found = calibration_bins(p, t, w)
    assert found is not None
    assert found["brier"] == calibration_of(p, t, w).brier
    assert [entry["count"] for entry in found["bins"]] == [1, 2, 7]
    assert found["bins"][2]["realized"] == pytest.approx((3 * 1 + 4 * 0.5) / 7)
    assert calibration_bins(np.zeros(0), np.zeros(0), np.zeros(0)) is None


def test_a_tree_is_predicted_from_those_before_it_alone(tmp_path):
    trees = [rich_tree(str(i)) for i in range(4)]
    alone = view_of(write(tmp_path / "a.jsonl", *trees[:2])).tree("a.jsonl#1")["predicted"]
    longer = view_of(write(tmp_path / "b.jsonl", *trees)).tree("b.jsonl#1")["predicted"]
    assert alone == longer
    assert view_of(tmp_path / "a.jsonl").tree("a.jsonl#0")["predicted"][0] == 0.5  # before it has learned anything


def test_a_run_folder_is_read_as_it_grows(tmp_path):
    (tmp_path / "trees").mkdir()
    write(tmp_path / "trees" / "step_10.jsonl", rich_tree("late"))
    write(tmp_path / "trees" / "step_2.jsonl", rich_tree("early"))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "success": 0.5}\n{"step": 2, "succ')
    (tmp_path / "run.json").write_text('{"env": "Maze-v0", "settings": {"num_rollouts": 4, "noise": 1}}')
    view = view_of(tmp_path)
    found = view.overview()
    assert [(row["task"], row["step"]) for row in found["trees"]] == [("early", 2), ("late", 10)]
    assert found["metrics"] == [{"step": 1, "success": 0.5}]
    assert found["config"] == {"env": "Maze-v0", "num_rollouts": 4}
    assert not view.run.look()
    write(tmp_path / "trees" / "step_11.jsonl", rich_tree("new"))
    assert view.run.look()
    assert [row["task"] for row in view.overview()["trees"]] == ["early", "late", "new"]


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_shown(tmp_path):
    write(tmp_path / "good.jsonl", rich_tree())
    broken = write(tmp_path / "bad.jsonl", rich_tree())
    broken.write_text(broken.read_text().replace('"reward"', '"rewad"'))
    found = view_of(tmp_path).overview()
    assert [row["file"] for row in found["trees"]] == ["good.jsonl"]
    assert len(found["problems"]) == 1
    assert "bad.jsonl, line" in found["problems"][0]


def test_nothing_to_look_at_is_an_error_that_says_what_would_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        Run(tmp_path / "none")
    with pytest.raises(TreeFileError, match=r"no trees .* and no metrics.*agentenv rollout"):
        Run(tmp_path)
    (tmp_path / "notes.md").write_text("# Notes")
    with pytest.raises(TreeFileError, match=r"no file of trees: .*notes.md, line 1"):
        Run(tmp_path / "notes.md")
    (tmp_path / "runs" / "first" / "trees").mkdir(parents=True)
    write(tmp_path / "runs" / "first" / "trees" / "step_1.jsonl", rich_tree())
    with pytest.raises(TreeFileError, match=r"there are some in .*runs/first$"):
        Run(tmp_path / "runs")


def test_a_tree_of_a_root_alone_and_one_without_messages_are_shown(tmp_path):
    bare = EpisodeTree(())
    silent = EpisodeTree(message("q", "user"))
    silent.add(0, Action(""), reward=0.0)
    view = view_of(write(tmp_path / "t.jsonl", bare, silent))
    assert [row["nodes"] for row in view.overview()["trees"]] == [1, 2]
    assert view.tree("t.jsonl#1")["labels"] == ["start", "(nothing)"]
