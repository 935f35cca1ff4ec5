"""`agentenv export`: every format is written, and those that can be read again are the same trees."""

import csv
import io
import json
import re

import pytest
from cli_runs import one_line_error, run
from exported_trees import odd_tree, told

from agentenv import Action, EpisodeTree
from agentenv.credit import grpo_advantages
from agentenv.serialize import read_trees, write_trees


@pytest.fixture
def file(tmp_path):
    write_trees(tmp_path / "t.jsonl", [odd_tree(), odd_tree()])
    return tmp_path / "t.jsonl"


@pytest.mark.parametrize(
    ("to", "name", "wrote"),
    [
        ("hf", "rows.parquet", "6 nodes"),
        ("hf", "rows.jsonl", "6 nodes"),
        ("hf", "rows", "6 nodes"),
        ("atif", "documents.jsonl", "4 trajectories"),
        ("atif", "new/documents", "4 trajectories"),
    ],
)
def test_trees_come_back_from_files_and_folders(to, name, wrote, file, tmp_path):
    out = tmp_path / name
    result = run("export", file, "--to", to, "-o", out, "--credit", "grpo")
    assert result.stdout == f"Wrote {wrote} to {out}\n", result.stderr
    assert "2 trees" in run("export", out, "--to", "trees", "-o", tmp_path / "again.jsonl").stdout
    assert [told(t) for t in read_trees(tmp_path / "again.jsonl")] == [told(odd_tree())] * 2


def test_the_table_has_the_credit_of_several_estimators(file, tmp_path):
    words = ("--credit", "grpo", "--credit", "tree-grpo")
    run("export", file, "--to", "csv", "-o", tmp_path / "nodes.csv", *words)
    run("export", file, "--to", "csv", "-o", tmp_path / "nodes.jsonl", *words)
    text = (tmp_path / "nodes.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    lines = [json.loads(line) for line in (tmp_path / "nodes.jsonl").read_text().splitlines()]
    expected = grpo_advantages(odd_tree().arrays()).advantages.tolist()
    assert [float(row["grpo_advantage"]) for row in rows][:3] == expected
    assert [line["grpo_advantage"] for line in lines][:3] == expected
    assert "tree_grpo_value" in rows[0]
    assert rows[1]["action"] == "so \\ud800"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "xml", "-o", "x"), "'--to': must be one of csv, hf, atif"),
        (("--to", "csv", "-o", "t.jsonl"), "'--out': must not exist yet"),
        (("--to", "csv", "-o", "x", "--credit", "grop"), "no estimator 'grop'. Did you mean 'grpo'?"),
        (
            ("--to", "csv", "-o", "x", "--credit", "rtmc", "--credit-option", "discount=5"),
            "'--credit-option': discount must be in .0, 1., got 5.0",
        ),
        (("--to", "csv", "-o", "x", "--credit-option", "k=1"), "'--credit-option': needs one --credit, got 0"),
        (("--to", "trees", "-o", "x"), "'FILE': t.jsonl is a trees file already"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, said, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    line = one_line_error(run("export", "t.jsonl", *words))
    assert re.search(said, line), line
    assert "there is no 'y'" in one_line_error(run("export", "y", "--to", "csv", "-o", "x"))


def with_tokens():
    tree = EpisodeTree(({"role": "user", "content": "q"},), env_id="E-v0")
    for number, reward in enumerate([1.0, 0.0]):
        action = Action("x", token_ids=(5, number), logprobs=(-1.0, -2.0), prompt_token_ids=(1, 2))
        tree.add(0, action, reward=reward, terminated=True)
    return tree


@pytest.mark.model
@pytest.mark.parametrize("to", ["verl", "skyrl", "prime-rl"])
def test_a_batch_is_written_with_the_advantages_of_one_estimator(to, tmp_path):
    write_trees(tmp_path / "t.jsonl", [with_tokens()])
    words = ("export", tmp_path / "t.jsonl", "--to", to, "-o", tmp_path / "batch", "--step-weights", "counts")
    assert "'--credit': must be given once" in one_line_error(run(*words))
    assert "2 rows with 4 trained tokens" in run(*words, "--credit", "rloo").stdout
    if to == "prime-rl":
        assert (tmp_path / "batch" / "rollouts" / "step_0" / "rank_0.bin").stat().st_size
        return
    import torch

    batch = torch.load(tmp_path / "batch", weights_only=False)
    tensors = batch["tensors" if to == "verl" else "fields"]
    assert tensors["advantages"].tolist() == [[1, 1], [-1, -1]]
    assert "weights must be" in one_line_error(run(*words[:-1], "none", "--credit", "rloo", "-o", tmp_path / "other"))


def test_the_bundled_repair_tasks_become_harbor_folders(tmp_path):
    words = ("export", "agentenv/CodeRepair-v0", "--to", "harbor", "-o")
    assert run(*words, tmp_path / "tasks").stdout == f"Wrote 59 tasks to {tmp_path / 'tasks'}\n"
    assert len(list((tmp_path / "tasks").glob("*/task.toml"))) == 59
    other = ("export", "agentenv/MathVerifier-v0", *words[2:], tmp_path / "other")
    assert "'FILE': must be agentenv/CodeRepair-v0 for --to harbor" in one_line_error(run(*other))


def test_an_environment_becomes_a_server_of_nemo_gym(tmp_path):
    words = ("export", "agentenv/MathVerifier-v0", "--to", "nemo-gym", "--option", "max_steps=3", "-o")
    assert "a resources server with 5 tasks" in run(*words, tmp_path / "math").stdout
    assert "max_steps=3" in (tmp_path / "math" / "app.py").read_text()
    assert "'--out': the folder's name" in one_line_error(run(*words, tmp_path / "No Name"))
