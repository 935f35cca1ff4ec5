"""What a run tells: trackers, tables of completions, pass@k of held-out tasks, and stopping by them."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_chat import random_model
from trainer_env import TASKS, Flaky, trainer
from transformers import EarlyStoppingCallback

from agentenv.credit import pass_at_k, sr_ppo_advantages
from agentenv.stats import EpisodeStats, Tally
from agentenv.trainers.layout import CONTEXT
from agentenv.trainers.metrics import pass_metrics
from agentenv.trainers.run_folder import read_metrics

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def evaluating(**options):
    settings = {"eval_tasks": TASKS[:4], "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    return settings | options


def test_tensorboard_is_told_what_the_run_folder_is_told(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    model, tokenizer = random_model()
    trainer(model, tokenizer, tmp_path, report_to=["tensorboard"], **evaluating()).train()
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    logs = [log for log in read_metrics(tmp_path) if "loss" in log]
    for name in ("success", "reward", "tree/leaves", "credit/std", "entropy", "grad_norm"):
        told = [(event.step, event.value) for event in board.Scalars(f"train/{name}")]
        assert told == [(log["step"], pytest.approx(log[name], rel=1e-5)) for log in logs]
    held_out = [log for log in read_metrics(tmp_path) if "eval_success" in log]
    assert [event.value for event in board.Scalars("eval/success")] == pytest.approx(
        [log["eval_success"] for log in held_out]
    )


# ---------------------------------------------------------------------- tables of completions


def half(rows):
    sampled = rows.nodes != CONTEXT
    return sr_ppo_advantages(np.where(sampled, 0.5, 0.0), rows.arrays.succeeded[rows.ends], sampled, k=1.0)


@pytest.mark.parametrize("options", [{}, {"token_estimator": half}, {"env": Flaky, "rollout_retries": 0}])
def test_a_table_has_a_row_per_episode(tmp_path, options, capsys):
    """More episodes than TRL's own table would keep, with what the model read and said to the token."""
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, log_completions=True, num_completions_to_print=1, **options)
    run.train()
    tables = sorted((tmp_path / "completions").glob("*.parquet"))
    assert [path.name for path in tables] == ["completions_00001.parquet", "completions_00002.parquet"]
    table: Any = pd.read_parquet(tables[-1])
    assert "Step 2" in capsys.readouterr().out
    leaves = [(tree, leaf) for tree in run.last_trees for leaf in tree.leaves()]
    assert len(table) == len(leaves) > run.args.generation_batch_size
    for (tree, leaf), (_, row) in zip(leaves, table.iterrows(), strict=True):
        ids, begun = tree.token_ids(leaf), len(tree.prompt_token_ids(0) or ())
        assert row["task"] == tree.task_id and row["steps"] == len(tree.path(leaf)) - 1
        if ids:
            assert (row["prompt"], row["completion"]) == (tokenizer.decode(ids[:begun]), tokenizer.decode(ids[begun:]))
        value = tree.episode_return(leaf)
        assert math.isnan(row["return"]) if value is None else row["return"] == value
        assert row["success"] == tree.succeeded(leaf)
        assert 0 <= row["shared_steps"] < max(1, row["steps"])
    assert (table["shared_steps"] > 0).sum() == sum(
        1 for tree in run.last_trees for leaf in tree.leaves() if tree.nodes[leaf].rollout >= 3 and _is_late(tree, leaf)
    )
    assert np.isfinite(table["advantage"]).all() and table["advantage"].any()


def _is_late(tree, leaf):
    """Whether the rollout that ends at a leaf began at a node after the root."""
    node = leaf
    while node and tree.nodes[node].rollout == tree.nodes[leaf].rollout:
        node = tree.nodes[node].parent
    return node > 0


# ---------------------------------------------------------------------- held-out tasks


def test_pass_at_k_of_held_out_tasks(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, eval_tasks=TASKS[:6], eval_rollouts=6, per_device_eval_batch_size=3)
    counts, grow = [], run._grow

    def counted(numbers, mode):
        trees = grow(numbers, mode)
        counts.extend([len(tree.leaves()), sum(tree.succeeded(leaf) for leaf in tree.leaves())] for tree in trees)
        return trees

    run._grow = counted
    losses = []
    run.compute_loss = lambda *_, **__: losses.append(1)
    told = run.evaluate()
    n, c = np.array(counts).T
    assert n.tolist() == [6] * 6 and 0 < c.sum() < 36
    assert {name for name in told if "pass@" in name} == {f"eval_pass@{k}" for k in (1, 2, 4, 6)}
    for k in (1, 2, 4, 6):
        assert told[f"eval_pass@{k}"] == pytest.approx(np.mean(pass_at_k(n, c, k)))
    assert told["eval_pass@1"] == pytest.approx(told["eval_success"])
    assert losses == [] and "eval_loss" not in told  # nobody has credit


def test_pass_at_k_counts_tasks_that_have_k_episodes():
    def task(episodes, successes, later=0):
        return EpisodeStats(roots=Tally(episodes, successes=successes), continuations=Tally(9, successes=later))

    assert pass_metrics([task(1, 1)], 1) == {}
    found = pass_metrics([task(4, 1), task(2, 2, later=9), task(0, 0)], 4)
    assert found == {"pass@1": (0.25 + 1) / 2, "pass@2": (0.5 + 1) / 2, "pass@4": 1.0}
    assert pass_metrics([task(0, 0)], 3) == {}


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_early_where_success_does_not_rise(tmp_path, patience):
    model, tokenizer = random_model()
    run = trainer(
        model,
        tokenizer,
        tmp_path,
        **evaluating(
            max_steps=6,
            learning_rate=0.0,
            save_strategy="steps",
            save_steps=1,
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_success",
        ),
    )
    run.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
    run.train()
    assert run.state.global_step == 1 + patience
    assert run.state.best_global_step == 1
    assert run.state.best_metric == next(log["eval_success"] for log in read_metrics(tmp_path) if "eval_success" in log)
