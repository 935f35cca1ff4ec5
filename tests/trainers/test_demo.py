"""The demo in miniature: the same code path with small amounts; its real amounts are what `make demo` runs."""

import re
from collections import Counter

import pytest
from rich.console import Console

from agentenv.agents import TransformersAgent
from agentenv.envs.math_verifier import MathVerifier
from agentenv.serialize import read_trees
from agentenv.stats import episodes
from agentenv.trainers import evaluate_agent
from agentenv.trainers.demo import DEMO_ENV_OPTIONS, DemoSettings, demo_tasks, run_demo
from agentenv.trainers.run_folder import read_metrics


@pytest.mark.model
def test_whole_demo_in_miniature(tmp_path):
    settings = DemoSettings(
        careful_updates=6,
        noisy_updates=3,
        steps=2,
        tasks_per_step=4,
        num_rollouts=2,
        num_continuations=1,
        eval_tasks=8,
        eval_every=1,
        demonstrations=300,
        branched=2,
        branches=3,
    )
    console = Console(record=True, width=200)
    after = run_demo(tmp_path, settings, console=console)
    assert 0 <= after <= 1
    printed = console.export_text()
    held_out = [m["eval_success"] for m in read_metrics(tmp_path) if "eval_success" in m]
    assert len(held_out) == 3
    assert f"{held_out[0]:.2f} before, {held_out[-1]:.2f} after" in printed
    assert "8 held-out tasks" in printed
    assert "Compute" in printed
    assert printed.count("agentenv play") == 1
    for name in ("run.json", "metrics.jsonl", "curve.png", "trees/step_2.jsonl"):
        assert (tmp_path / name).stat().st_size
    trees = read_trees(tmp_path / "trees" / "step_2.jsonl")
    assert trees[0].env_id == "agentenv/MathVerifier-v0"
    (branched,) = read_trees(tmp_path / "branched.jsonl")
    first, *continued = episodes(branched)
    states = [node for node in branched.path(first.leaf) if not branched.nodes[node].ended]
    assert Counter(one.anchor for one in continued) == dict.fromkeys(states, 3)
    shares = re.findall(r"^   ([01]\.\d\d) ", printed, re.MULTILINE)
    assert len(shares) == len(states) + 1  # and the end, whose outcome is known
    assert shares[-1] == "0.00"
    agent = TransformersAgent.from_pretrained(tmp_path / "checkpoint-2", max_new_tokens=8)
    tasks = demo_tasks(2, seed=5)
    assert evaluate_agent(lambda: MathVerifier(**DEMO_ENV_OPTIONS), agent, tasks).num_episodes == 2


def test_tasks_are_distinct_and_held_out():
    held_out = demo_tasks(64, seed=1)
    train = demo_tasks(512, seed=2, exclude=held_out)
    questions = {task.question for task in train}
    assert len(questions) == 512
    assert not questions & {task.question for task in held_out}
    assert demo_tasks(64, seed=1) == held_out
