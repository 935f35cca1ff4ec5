"""What `agentenv train` does once its arguments are read. Needs torch and TRL."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages
from agentenv.errors import TaskError
from agentenv.trainers import TreeConfig, TreeTrainer
from agentenv.trainers.progress import TrainingBar
from agentenv.trainers.run_folder import read_metrics

from .command_line import blame
from .console import open_console, print_fields, say_line
from .env_choice import EnvChoice, sample_tasks

__all__ = ["Plan", "run_training"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        choice: the environment.
        estimator: turns trees into step advantages.
        allocator: where continuations start, by name.
        folder: of the run.
        settings: of `TreeConfig`.
        tasks_per_step: trees per optimizer step.
        tasks: different tasks to train on, at most.
        eval_tasks: held-out tasks.
        every: steps between measurements, checkpoints and kept trees.
        rows: episodes per backward pass, if possible.
    """

    choice: EnvChoice
    estimator: Callable[[TreeArrays], StepAdvantages]
    allocator: str
    folder: Path
    settings: Mapping[str, Any]
    tasks_per_step: int
    tasks: int
    eval_tasks: int
    every: int
    rows: int

    @property
    def micro_batches(self) -> int:
        """The least divisor of `tasks_per_step` that keeps a backward pass within `rows`, or else itself."""
        leaves = self.tasks_per_step * (self.settings["num_rollouts"] + self.settings["num_continuations"])
        divisors = [n for n in range(1, self.tasks_per_step + 1) if self.tasks_per_step % n == 0]
        return next((n for n in divisors if leaves / n <= self.rows), self.tasks_per_step)


def run_training(
    plan: Plan, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, resume: bool = False
) -> None:
    """Trains a model, shows how it goes, and says where everything is.

    Args:
        plan: the run.
        model: what to train.
        tokenizer: the model's.
        resume: goes on from the last checkpoint in the plan's folder.
    """
    console = open_console()
    with blame("--tasks-per-step", TaskError):
        seed = plan.settings["seed"]
        held_out = sample_tasks(plan.choice, plan.eval_tasks, seed=seed + 1)
        most = max(plan.tasks, plan.tasks_per_step)
        tasks = sample_tasks(plan.choice, most, seed=seed, exclude=held_out, least=plan.tasks_per_step)
    trainer: Any = TreeTrainer(
        model,
        _config(plan, eval_on_start=plan.eval_tasks > 0 and not resume),
        env=partial(plan.choice.cls, **plan.choice.options),
        train_tasks=list(tasks.values()),
        eval_tasks=list(held_out.values()) or None,
        estimator=plan.estimator,
        allocator=plan.allocator,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar(console, plan.settings["max_steps"]))
    say_line(console, f"run folder {plan.folder}")
    try:
        trainer.train(resume_from_checkpoint=resume or None)
    except KeyboardInterrupt:
        if list(plan.folder.glob("checkpoint-*")):
            say_line(open_console(stderr=True), "\nstopped; the same command with --resume goes on")
        raise
    finally:
        trainer.close()
    trainer.accelerator.end_training()  # under several processes: leaves their group before the interpreter ends
    _report(console, plan)
    if trainer.state.global_step > plan.settings["max_steps"]:
        say_line(console, f"\nthe run had made {trainer.state.global_step} steps already")


def _config(plan: Plan, *, eval_on_start: bool) -> TreeConfig:
    cuda, steps = torch.cuda.is_available(), plan.settings["max_steps"]
    return TreeConfig(
        **plan.settings,
        output_dir=str(plan.folder),
        per_device_train_batch_size=plan.tasks_per_step // plan.micro_batches,
        gradient_accumulation_steps=plan.micro_batches,
        per_device_eval_batch_size=max(1, min(plan.eval_tasks, 256)),
        lr_scheduler_type="constant",
        bf16=cuda and torch.cuda.is_bf16_supported(),
        use_cpu=not cuda,
        gradient_checkpointing=cuda,
        logging_steps=1,
        eval_strategy="steps" if plan.eval_tasks else "no",
        eval_steps=plan.every,
        eval_on_start=eval_on_start,
        save_strategy="steps",
        save_steps=min(plan.every, steps),
        save_trees_steps=min(plan.every, steps),
        disable_tqdm=True,
        report_to=[],
    )


def _report(console: Console, plan: Plan) -> None:
    metrics = read_metrics(plan.folder)
    fields: dict[str, str] = {}
    for name, key in (("success, held-out tasks", "eval_success"), ("success, training episodes", "success")):
        if values := [entry[key] for entry in metrics if entry.get(key) is not None]:
            fields[name] = f"{values[0]:.3f} at first, {values[-1]:.3f} at last"
    checkpoint, trees = _newest(plan.folder, "checkpoint-*"), _newest(plan.folder / "trees", "*.jsonl")
    fields |= {"curve": str(plan.folder / "curve.png"), "checkpoint": str(checkpoint)}
    print_fields(console, fields)
    say_line(console, "\nGo on:")
    for command in (
        f"agentenv rollout {shlex.join(plan.choice.words)} --agent {checkpoint}",
        f"agentenv trees {trees}",
    ):
        say_line(console, f"  {command}")


def _newest(folder: Path, pattern: str) -> Path | None:
    def number(path: Path) -> int:
        digits = "".join(filter(str.isdigit, path.stem.partition("_rank")[0]))
        return int(digits or 0)

    found: Sequence[Path] = sorted(folder.glob(pattern), key=number)
    return found[-1] if found else None
