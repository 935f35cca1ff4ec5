"""SR-PPO learns on a bundled environment, and collapses there as soon as what protects it is switched off."""

import copy
import json
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentenv.envs.math_verifier import MathVerifier
from agentenv.trainers import SRPPOConfig, SRPPOTrainer
from agentenv.trainers.demo import DEMO_ENV_OPTIONS, DemoSettings, demo_tasks, warm_start

pytestmark = [pytest.mark.model, pytest.mark.slow]

HELD_OUT = demo_tasks(128, seed=100)


@pytest.fixture(scope="module")
def warm():
    """A tiny agent that knows the tools and is right about once in four times."""
    torch.set_num_threads(1)
    settings = DemoSettings(demonstrations=1536, careful_updates=150, noisy_updates=60)
    return warm_start(settings, HELD_OUT, progress=False)


def learn(warm, folder, steps, **options) -> tuple[list[float], Any]:
    """Trains a copy and returns success on held-out tasks before and after, and the trainer."""
    model, tokenizer = copy.deepcopy(warm[0]), warm[1]
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 4,
        "per_device_eval_batch_size": 128,
        "max_action_tokens": 16,
        "learning_rate": 5e-4,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "epsilon_high": 0.28,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": steps,
        "eval_on_start": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
    }
    run = SRPPOTrainer(
        model,
        SRPPOConfig(output_dir=str(folder), max_steps=steps, **settings | options),
        env=partial(MathVerifier, **DEMO_ENV_OPTIONS),
        train_tasks=demo_tasks(1024, seed=200, exclude=HELD_OUT),
        eval_tasks=HELD_OUT,
        processing_class=tokenizer,
    )
    run.train()
    return [log["eval_success"] for log in run.state.log_history if "eval_success" in log], run


def logged(run, name):
    return [log[name] for log in run.state.log_history if "loss" in log and name in log]


def test_success_rises_far_above_its_start(warm, tmp_path):
    (before, after), run = learn(warm, tmp_path, 5)
    assert before < 0.4
    assert after > before + 0.25, (before, after)
    assert len(logged(run, "critic/brier")) == 5


def test_without_protection_it_collapses(warm, tmp_path):
    """Lambda 0, a critic that knows nothing, the same rate: noise moves the policy, and it forgets what it could."""
    bare = {"decay": 0.0, "critic_warmup": 0, "k_schedule": "constant", "k": 1.0}
    (before, after), run = learn(warm, tmp_path / "bare", 5, critic_guard=False, **bare)
    assert after < before / 2, (before, after)
    assert logged(run, "critic/decay") == [0.0] * 5
    # The guard alone makes the same settings harmless: what is not confirmed yet leaves lambda near 1 in effect.
    (_, guarded), run = learn(warm, tmp_path / "guarded", 5, **bare)
    assert guarded > max(after + 0.1, before - 0.1), (before, after, guarded)
    assert logged(run, "critic/decay")[0] > 0.5


def test_the_closed_loop_learns(warm, tmp_path):
    loop = {"closed_loop": True, "num_rollouts": 4, "num_continuations": 4, "per_device_train_batch_size": 2}
    (before, after), run = learn(warm, tmp_path, 5, **loop)
    assert after > before + 0.1, (before, after)
    assert np.isfinite(logged(run, "predictor/brier")).all()
    assert max(logged(run, "effective_ratio")) > 0


def test_the_benchmark_runs_in_small(tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    script, out = Path(__file__).parents[2] / "benchmarks" / "sr_ppo.py", tmp_path / "out.json"
    words = ["--small", "--only", "default", "closed loop", "--json", str(out)]
    monkeypatch.setattr("sys.argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    runs = json.loads(out.read_text())["runs"]
    assert set(runs) == {"default", "closed loop"}
    assert all(0 <= value <= 1 for run in runs.values() for value in run["held_out"])
    assert "closed loop" in capsys.readouterr().out
