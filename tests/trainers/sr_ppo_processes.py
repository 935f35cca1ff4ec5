"""Trains SR-PPO on two processes, one of which often has nothing to learn; run by test_sr_ppo_distributed.py."""

import json
import sys
from pathlib import Path

import torch
from tiny_chat import random_model
from torchrun import leave
from trainer_env import TASKS, Flaky

from agentenv.trainers import SRPPOConfig, SRPPOTrainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model, tokenizer = random_model()
    args = SRPPOConfig(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        max_action_tokens=6,
        learning_rate=1e-2,
        critic_warmup=24,
        critic_record=32,
        rollout_retries=0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        ddp_backend="gloo",
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )
    run = SRPPOTrainer(model, args, env=Flaky, train_tasks=TASKS, processing_class=tokenizer)
    run.train()
    policy = run.accelerator.unwrap_model(run.model).parameters()
    logs = [[log.get(name) for name in ("loss", "critic/loss", "critic/decay")] for log in run.state.log_history[:3]]
    report = {
        "policy": sum(float(p.detach().double().sum()) for p in policy),
        "critic": sum(float(p.detach().double().sum()) for p in run.critic.head.parameters()),
        "record": run.record.entries.tolist(),
        "tasks": [tree.task_id for tree in run.last_trees],
        "logs": logs,
        "world": run.accelerator.num_processes,
    }
    (folder / f"rank_{run.accelerator.process_index}.json").write_text(json.dumps(report))
    run.close()
    leave(run.accelerator)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
