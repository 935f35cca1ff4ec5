"""What `agentenv train` does once its arguments are read. Needs torch and TRL."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import typer
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from agentenv.agents import TransformersAgent
from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages
from agentenv.errors import ModelError, TaskError
from agentenv.trainers import Play, SRPPOConfig, SRPPOTrainer, TreeConfig, TreeTrainer, warm_start
from agentenv.trainers.progress import TrainingBar
from agentenv.trainers.run_folder import read_metrics

from .actors import find_demonstrator, quiet_transformers
from .command_line import blame, refuse
from .console import open_console, print_fields, say_line
from .env_choice import EnvChoice, sample_tasks
from .train_config import read_settings
from .training_plan import describe

__all__ = ["Plan", "load_model", "run_training"]

_IMITATED = 2048


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        choice: the environment.
        method: `"tree"`, `"sr_ppo"` or `"closed_loop"`.
        estimator: turns trees into step advantages; `None` but for `"tree"`.
        allocator: where continuations start, by name.
        folder: of the run.
        settings: of `TreeConfig` or `SRPPOConfig`.
        tasks_per_step: trees per optimizer step.
        tasks: different tasks to train on, at most.
        eval_tasks: held-out tasks.
        every: steps between measurements, checkpoints and kept trees.
        rows: episodes per backward pass, if possible.
    """

    choice: EnvChoice
    method: str
    estimator: Callable[[TreeArrays], StepAdvantages] | None
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

    def with_settings(self, ctx: typer.Context, words: Sequence[str]) -> "Plan":
        """Adds what a file or `--set KEY=VALUE` says of the trainer.

        Raises:
            typer.BadParameter: a field that there is not, or that has an option of its own.
        """
        taken = {name: _OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in (*self.settings, *_OPTIONS)}
        extra = read_settings(ctx, words, self.config_class, taken)
        return replace(self, settings={**self.settings, **extra})

    @property
    def config_class(self) -> type[TreeConfig]:
        """Of the trainer's settings."""
        return TreeConfig if self.method == "tree" else SRPPOConfig

    def config(self, *, resume: bool) -> TreeConfig:
        """The trainer's settings, with this command's defaults.

        Raises:
            typer.BadParameter: settings that do not go together.
        """
        cuda, steps = torch.cuda.is_available(), self.settings["max_steps"]
        defaults: dict[str, Any] = {
            "output_dir": str(self.folder),
            "per_device_train_batch_size": self.tasks_per_step // self.micro_batches,
            "gradient_accumulation_steps": self.micro_batches,
            "per_device_eval_batch_size": max(1, min(self.eval_tasks, 256)),
            "lr_scheduler_type": "constant",
            "bf16": cuda and torch.cuda.is_bf16_supported(),
            "use_cpu": not cuda,
            "gradient_checkpointing": cuda,
            "logging_steps": 1,
            "eval_strategy": "steps" if self.eval_tasks else "no",
            "eval_steps": self.every,
            "eval_on_start": self.eval_tasks > 0 and not resume,
            "save_strategy": "steps",
            "save_steps": min(self.every, steps),
            "save_trees_steps": min(self.every, steps),
            "disable_tqdm": True,
            "report_to": [],
        }
        if self.method == "closed_loop":
            defaults["closed_loop"] = True
        with blame("--set", ValueError, TypeError):
            return self.config_class(**(defaults | dict(self.settings)))


_OPTIONS = {
    "max_steps": "--steps",
    "num_rollouts": "--rollouts",
    "num_continuations": "--continuations",
    "allow_changes": "--override",
    "output_dir": "--run-folder",
    "per_device_train_batch_size": "--tasks-per-step and --rows",
    "gradient_accumulation_steps": "--tasks-per-step and --rows",
}
"""Fields whose option has another name."""


def load_model(plan: Plan, model: str, *, dry_run: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a model from a folder or the hub, or makes a tiny one that imitates the environment's demonstrations.

    Raises:
        typer.BadParameter: there is no such model, or nothing to imitate.
    """
    quiet_transformers("--model")
    if model == "tiny":
        skillful, sloppy = find_demonstrator(plan.choice), find_demonstrator(plan.choice, sloppy=True)
        seed = plan.settings["seed"]
        held_out = sample_tasks(plan.choice, plan.eval_tasks, seed=seed + 1)
        tasks = list(sample_tasks(plan.choice, _IMITATED, seed=seed + 2, exclude=held_out).values())
        updates = (1, 1) if dry_run else (160, 120)
        plays = [Play("skillful play", skillful, updates[0]), Play("sloppy play", sloppy, updates[1])]
        with blame("--model", ValueError):
            return warm_start(plan.choice.make, plays, tasks=tasks, seed=seed)
    if not Path(model).exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        refuse("--model", f"must be the folder of a model, NAME/NAME on the hub, or tiny, got {model!r}")
    with blame("--model", ModelError):
        loaded = TransformersAgent.from_pretrained(model, dtype="float32")
    return loaded.model, loaded.tokenizer


def run_training(
    plan: Plan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    resume: bool = False,
    dry_run: bool = False,
) -> None:
    """Trains a model, shows how it goes, and says where everything is.

    Args:
        plan: the run.
        model: what to train.
        tokenizer: the model's.
        resume: goes on from the last checkpoint in the plan's folder.
        dry_run: only says what would run.
    """
    console = open_console()
    config = plan.config(resume=resume)
    with blame("--tasks-per-step", TaskError):
        seed = plan.settings["seed"]
        held_out = sample_tasks(plan.choice, plan.eval_tasks, seed=seed + 1)
        most = max(plan.tasks, plan.tasks_per_step)
        tasks = sample_tasks(plan.choice, most, seed=seed, exclude=held_out, least=plan.tasks_per_step)
    if dry_run:
        print_fields(console, describe(plan, config, model, num_tasks=len(tasks), num_held_out=len(held_out)))
        return
    trainer = _make(plan, config, model, tokenizer, list(tasks.values()), list(held_out.values()))
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


def _make(
    plan: Plan,
    config: TreeConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: list[Any],
    held_out: list[Any],
) -> Any:
    given: dict[str, Any] = {
        "env": partial(plan.choice.cls, **plan.choice.options),
        "train_tasks": tasks,
        "eval_tasks": held_out or None,
        "processing_class": tokenizer,
    }
    if isinstance(config, SRPPOConfig):
        return SRPPOTrainer(model, config, **given)
    return TreeTrainer(model, config, estimator=cast("Any", plan.estimator), allocator=plan.allocator, **given)


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
