"""SR-PPO on a bundled environment: what its protections, lambda and k are worth, from one and the same start.

    python benchmarks/sr_ppo.py                          # 20 steps of each, about 4 minutes on one quiet core
    python benchmarks/sr_ppo.py --only default --steps 40 --json sr_ppo.json
    python benchmarks/sr_ppo.py --small                  # a check that it runs

Every run starts from the demo's warm start and trains with 64 episodes per step; `closed loop` spends the same number
as 8 trees of 4 full episodes and 4 continuations.
"""

import argparse
import copy
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from agentenv.envs.math_verifier import MathVerifier
from agentenv.trainers import SRPPOConfig, SRPPOTrainer
from agentenv.trainers.demo import DEMO_ENV_OPTIONS, DemoSettings, demo_tasks, warm_start
from agentenv.trainers.run_folder import read_metrics

BARE: dict[str, Any] = {"decay": 0.0, "k": 1.0, "critic_guard": False, "critic_warmup": 0}

RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "k = 1": {"k": 1.0},
    "k adaptive, at most 64": {"k": 64.0},
    "k = 4, constant": {"k": 4.0, "k_schedule": "constant"},
    "warmed up": {"critic_warmup": 256},
    "no guard, warmed up": {"critic_guard": False, "critic_warmup": 256},
    "lambda 0, guarded": {"decay": 0.0},
    "lambda 0, unprotected": BARE,
    "closed loop": {
        "closed_loop": True,
        "num_rollouts": 4,
        "num_continuations": 4,
        "per_device_train_batch_size": 2,
    },
}


def train(start: tuple[Any, Any], folder: Path, held_out: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Trains a copy of the start and returns what came of it."""
    model = copy.deepcopy(start[0])
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 4,
        "per_device_eval_batch_size": len(held_out),
        "max_action_tokens": 24,
        "learning_rate": 5e-4,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "epsilon_high": 0.28,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": max(1, options["max_steps"] // 3),
        "eval_on_start": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
    }
    trainer: Any = SRPPOTrainer(
        model,
        SRPPOConfig(output_dir=str(folder), **settings | options),
        env=partial(MathVerifier, **DEMO_ENV_OPTIONS),
        train_tasks=demo_tasks(4096, seed=200, exclude=held_out),
        eval_tasks=held_out,
        processing_class=start[1],
    )
    trainer.remove_callback(PrinterCallback)
    began = time.process_time()
    trainer.train()
    metrics = read_metrics(folder)
    trained = [entry for entry in metrics if "critic/brier" in entry and "success" in entry]
    return {
        "held_out": [round(entry["eval_success"], 3) for entry in metrics if "eval_success" in entry],
        "entropy": round(trained[-1]["entropy"], 3),
        "brier": round(trained[-1]["critic/brier"], 3),
        "auroc": round(trained[-1].get("critic/auroc", float("nan")), 3),
        "trust": round(sum(entry["critic/trust"] for entry in trained) / len(trained), 2),
        "cpu_seconds": round(time.process_time() - began),
    }


def main() -> None:
    """Runs what is asked for, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of training; the start is the same")
    parser.add_argument("--entropy-coef", type=float, default=0.0, help="weight of an entropy bonus")
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    small = {"demonstrations": 256, "careful_updates": 6, "noisy_updates": 3} if arguments.small else {}
    held_out = demo_tasks(16 if arguments.small else 256, seed=100)
    common = {
        "max_steps": 1 if arguments.small else arguments.steps,
        "seed": arguments.seed,
        "entropy_coef": arguments.entropy_coef,
    }
    start = warm_start(DemoSettings(**small), held_out, progress=False)
    results: dict[str, Any] = {"load": os.getloadavg()[0], "torch": torch.__version__, **common, "runs": {}}
    print(f"{'run':<24} held-out success                entropy  Brier  AUROC  trust  CPU s")
    for name in arguments.only:
        options = common | RUNS[name] | ({"max_action_tokens": 6} if arguments.small else {})
        with tempfile.TemporaryDirectory() as folder:
            result = train(start, Path(folder), held_out, options)
        results["runs"][name] = result
        said = " ".join(f"{value:.3f}" for value in result["held_out"])
        rest = "  ".join(f"{result[key]:>5}" for key in ("entropy", "brier", "auroc", "trust", "cpu_seconds"))
        print(f"{name:<24} {said:<32} {rest}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
