"""What `agentenv train` does once its arguments are read. Needs torch and TRL."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from agentenv.agents import TransformersAgent
from agentenv.errors import ModelError, TaskError
from agentenv.trainers import Play, SRPPOConfig, SRPPOTrainer, TreeConfig, TreeTrainer, warm_start
from agentenv.trainers.checkpoint import ResumeError, last_checkpoint, read_checkpoint
from agentenv.trainers.progress import TrainingBar
from agentenv.trainers.run_folder import FolderTakenError, read_metrics
from agentenv.trainers.trl_vllm import check_model

from .command_line import blame
from .console import open_console, own_command, print_fields, say_line
from .demonstrators import find_demonstrator
from .env_choice import sample_tasks
from .samplers import reach_server
from .training_plan import Plan, describe

__all__ = ["Plan", "check_resumed", "choose_tasks", "load_model", "run_training"]

_IMITATED = 2048


def check_resumed(folder: Path) -> None:
    """Refuses to go on from a checkpoint of which something is missing, before a model is made.

    Raises:
        typer.BadParameter: that, with the checkpoint that is taken without it.
    """
    with blame("--resume", ResumeError):
        read_checkpoint(True, str(folder))


def choose_tasks(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the tasks to train on and the held-out ones, by id.

    Raises:
        typer.BadParameter: the environment has too few.
    """
    seed = plan.settings["seed"]
    with blame("--eval-tasks", TaskError):
        held_out = sample_tasks(plan.choice, plan.eval_tasks, seed=seed + 1)
    with blame("--tasks-per-step", TaskError):
        most = max(plan.tasks, plan.tasks_per_step)
        return sample_tasks(plan.choice, most, seed=seed, exclude=held_out, least=plan.tasks_per_step), held_out


def load_model(
    plan: Plan, model: str, held_out: Iterable[str], *, trained: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a model from a folder or the hub, or makes a tiny one that imitates the environment's demonstrations.

    Args:
        plan: the run.
        model: a folder, a name on the hub, or `"tiny"`.
        held_out: ids of tasks that are not imitated.
        trained: whether the tiny one imitates; it need not where its weights come from a checkpoint, or are not used.

    Raises:
        typer.BadParameter: there is no such model, or nothing to imitate.
    """
    if model == "tiny":
        with blame("--model tiny", ValueError):
            check_model(plan.config(resume=False), None)
        skillful = find_demonstrator(plan.choice, asked="--model")
        sloppy = find_demonstrator(plan.choice, sloppy=True, asked="--model")
        seed = plan.settings["seed"]
        found = list(sample_tasks(plan.choice, _IMITATED, seed=seed + 2, exclude=held_out, least=1).values())
        tasks = (found * -(-_IMITATED // len(found)))[:_IMITATED]  # few tasks are played often
        updates = (160, 120) if trained else (1, 1)
        plays = [Play("skillful play", skillful, updates[0]), Play("sloppy play", sloppy, updates[1])]
        with blame("--model", ValueError):
            return warm_start(plan.choice.make, plays, tasks=tasks, seed=seed)
    with blame("--model", ModelError):
        loaded = TransformersAgent.from_pretrained(model, dtype="float32")
    return loaded.model, loaded.tokenizer


def run_training(
    plan: Plan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: list[Any],
    held_out: list[Any],
    *,
    resume: bool = False,
    dry_run: bool = False,
) -> None:
    """Trains a model, shows how it goes, and says where everything is.

    Args:
        plan: the run.
        model: what to train.
        tokenizer: the model's.
        tasks: to train on.
        held_out: to measure on.
        resume: goes on from the last checkpoint in the plan's folder.
        dry_run: only says what would run.
    """
    console = open_console()
    config = plan.config(resume=resume)
    make = partial(_make, plan, model, tokenizer, tasks, held_out)
    if dry_run:
        with blame("--set", ValueError, ImportError):
            check_model(config, model)
        _rehearse(plan, config, make, resume=resume)
        print_fields(console, describe(plan, config, model, num_tasks=len(tasks), num_held_out=len(held_out)))
        return
    if plan.sampler is not None:
        reach_server(plan.sampler.name)
    trainer = make(config)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar(console, plan.settings["max_steps"]))
    say_line(console, f"run folder {plan.folder}")
    try:
        with blame("--resume", ResumeError), blame("--run-folder", FolderTakenError):
            trainer.train(resume_from_checkpoint=resume or None)
    finally:
        trainer.close()
        if plan.sampler is not None:
            plan.sampler.close()  # before the process groups, of which an engine has some
    trainer.accelerator.end_training()  # under several processes: leaves their group before the interpreter ends
    _report(console, plan)
    if trainer.state.global_step > plan.settings["max_steps"]:
        say_line(console, f"\nthe run had made {trainer.state.global_step} steps already")


def _rehearse(plan: Plan, config: TreeConfig, make: Callable[[TreeConfig], Any], *, resume: bool) -> None:
    """Refuses what the run would refuse before its first step, by making its trainer.

    On the CPU, whatever the run has, in a folder that is thrown away, and without the engine of TRL's vLLM; servers are
    not asked, for they may come up later.
    """
    instead: dict[str, Any] = {"use_cpu": True, "bf16": False, "fp16": False, "tf32": None}
    engine = {field.name: field.default for field in fields(config) if field.name.startswith(("use_vllm", "vllm_"))}
    with TemporaryDirectory() as folder:
        rehearsed = plan.config(resume=resume, **instead, **engine, output_dir=folder)
        trainer = make(rehearsed)
        trainer.close()
        if resume:
            with blame("--resume", ResumeError):
                trainer.run_folder.compare(config, plan.folder)


def _make(
    plan: Plan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: list[Any],
    held_out: list[Any],
    config: TreeConfig,
) -> Any:
    given: dict[str, Any] = {
        "env": partial(plan.choice.cls, **plan.choice.options),
        "train_tasks": tasks,
        "eval_tasks": held_out or None,
        "processing_class": tokenizer,
    }
    if plan.sampler is not None:
        given["agent"] = plan.sampler.maker(config)
    with blame("--set", ValueError, TypeError, ImportError, RuntimeError):
        if isinstance(config, SRPPOConfig):
            return SRPPOTrainer(model, config, **given)
        return TreeTrainer(model, config, estimator=cast("Any", plan.estimator), allocator=plan.allocator, **given)


def _report(console: Console, plan: Plan) -> None:
    metrics = read_metrics(plan.folder)
    fields: dict[str, str] = {}
    for name, key in (("success, held-out tasks", "eval_success"), ("success, training episodes", "success")):
        if values := [entry[key] for entry in metrics if entry.get(key) is not None]:
            fields[name] = f"{values[0]:.3f} at first, {values[-1]:.3f} at last"
    checkpoint, trees = last_checkpoint(plan.folder), _newest(plan.folder / "trees", "*.jsonl")
    fields |= {"curve": str(plan.folder / "curve.png"), "checkpoint": str(checkpoint)}
    print_fields(console, fields)
    say_line(console, "\nGo on:")
    for words in (("rollout", *plan.choice.words, "--agent", checkpoint), ("trees", trees), ("view", plan.folder)):
        say_line(console, f"  {own_command(*words)}")


def _newest(folder: Path, pattern: str) -> Path | None:
    def number(path: Path) -> int:
        digits = "".join(filter(str.isdigit, path.stem.partition("_rank")[0]))
        return int(digits or 0)

    found: Sequence[Path] = sorted(folder.glob(pattern), key=number)
    return found[-1] if found else None
