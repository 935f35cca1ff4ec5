"""A tiny text environment that a random model sometimes succeeds in, and a small trainer for it."""

from pathlib import Path
from typing import Any

import torch
from tiny_chat import random_model

import agentenv as ae
from agentenv.errors import VerifierError
from agentenv.trainers import TreeConfig, TreeTrainer
from agentenv.trainers.run_folder import read_metrics

TASKS = [{"id": f"t{i}", "question": f"Compute {i % 9 + 1} + {i % 7 + 1} * 2."} for i in range(32)]


class Digits(ae.Env):
    """Reward 0.5 for each step whose text holds a 1, 2 or 3; ends on the second such step, or after three."""

    max_steps = 3

    class State(ae.State):
        found: int = 0

    class Task(ae.Task):
        question: str

    def start(self, task):
        return task.question

    def respond(self, action):
        if set(action.content) & set("123"):
            self.state.found += 1
            self.add_reward(0.5)
        if self.state.found == 2:
            return self.finish("enough")
        return f"{self.state.found} so far " * (1 + self.state.found)


class Flaky(Digits):
    """The same on infrastructure that breaks for every third task, always."""

    def respond(self, action):
        if int(self.task.id[1:]) % 3 == 0:
            msg = "the verifier is down"
            raise VerifierError(msg)
        return super().respond(action)


def config(folder: Path, **options: Any) -> TreeConfig:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_rollouts": 3,
        "num_continuations": 2,
        "max_action_tokens": 6,
        "learning_rate": 1e-2,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return TreeConfig(**settings | options)


def trainer(model: Any, tokenizer: Any, folder: Path, *, env: Any = Digits, tasks: Any = None, **options: Any) -> Any:
    extra = {
        k: options.pop(k)
        for k in ("agent", "allocator", "estimator", "state_ids", "token_estimator", "eval_tasks", "peft_config")
        if k in options
    }
    args = config(folder, **options)
    return TreeTrainer(
        model, args, env=env, train_tasks=TASKS if tasks is None else tasks, processing_class=tokenizer, **extra
    )


def run_to(folder: Path, steps: int, *, resume: bool | str | None = None, **options: Any) -> Any:
    """Trains until so many steps in all, with a checkpoint at each."""
    model, tokenizer = random_model()
    settings = {"lr_scheduler_type": "constant", "save_strategy": "steps", "save_steps": 1, **options}
    run = trainer(model, tokenizer, folder, max_steps=steps, **settings)
    run.train(resume_from_checkpoint=resume)
    return run


def steps_of(folder: Path) -> list[float]:
    return [m["step"] for m in read_metrics(folder) if "loss" in m]


def weights_of(run: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])
