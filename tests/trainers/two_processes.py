"""Trains on two processes whose trees have different numbers of rows; run by test_distributed.py through torchrun."""

import json
import sys
from pathlib import Path

import torch
from tiny_chat import random_model
from torchrun import leave
from trainer_env import TASKS, Flaky, trainer

from agentenv.stats import EpisodeStats


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model, tokenizer = random_model()
    options = {"rollout_retries": 0, "num_continuations": 1, "per_device_eval_batch_size": 2}
    options |= {"allocator": "trace"}
    run = trainer(model, tokenizer, folder, env=Flaky, ddp_backend="gloo", eval_tasks=TASKS[:5], **options)
    rows = []
    collate = run._collate

    def remember(given, credit):
        rows.append(len(given))
        return collate(given, credit)

    run._collate = remember
    run.train()
    measured = run.evaluate()
    evaluated = sum(run._stats["eval"].values(), EpisodeStats()).roots
    weights = sum(float(p.detach().double().sum()) for p in run.accelerator.unwrap_model(run.model).parameters())
    losses = [log["loss"] for log in run.state.log_history if "loss" in log]
    rank = run.accelerator.process_index
    report = {"weights": weights, "rows": rows, "losses": losses, "world": run.accelerator.num_processes}
    report |= {"evaluated": evaluated.episodes + evaluated.failed, "success": measured["eval_success"]}
    predictor = run._sampling._allocator.predictor.state_dict()
    report |= {"predictor": {name: float(abs(value).sum()) for name, value in predictor.items()}}
    (folder / f"rank_{rank}.json").write_text(json.dumps(report))
    run.close()
    leave(run.accelerator)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
