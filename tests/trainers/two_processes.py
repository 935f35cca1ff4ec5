"""Trains on two processes whose trees have different numbers of rows; run by test_distributed.py through torchrun."""

import json
import sys
from pathlib import Path

import torch
from tiny_chat import random_model
from trainer_env import Flaky, trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, folder, env=Flaky, ddp_backend="gloo", rollout_retries=0, num_continuations=1)
    rows = []
    collate = run._collate

    def remember(given, mode):
        rows.append(len(given))
        return collate(given, mode)

    run._collate = remember
    run.train()
    weights = sum(float(p.detach().double().sum()) for p in run.accelerator.unwrap_model(run.model).parameters())
    losses = [log["loss"] for log in run.state.log_history if "loss" in log]
    rank = run.accelerator.process_index
    report = {"weights": weights, "rows": rows, "losses": losses, "world": run.accelerator.num_processes}
    (folder / f"rank_{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
