"""The resolved plan of `agentenv train`, and what `--dry-run` says of it: what would run where, tokens, memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer
from transformers import PreTrainedModel

from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages
from agentenv.trainers import SRPPOConfig, TreeConfig
from agentenv.trainers.trl_vllm import server_url

from .command_line import blame, refuse
from .env_choice import EnvChoice, constructor_options
from .samplers import Sampler
from .sandbox_options import opens_sandboxes
from .train_config import read_settings

__all__ = ["Plan", "describe"]

_MOMENTS = 8  # bytes per parameter: two of AdamW, in float32


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
        sampler: what samples in the model's place, if anything.
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
    sampler: Sampler | None = None

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

    def config(self, *, resume: bool, **instead: Any) -> TreeConfig:
        """The trainer's settings, with this command's defaults.

        Args:
            resume: whether the run goes on.
            instead: settings that are others than those of the plan.

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
            config = self.config_class(**(defaults | dict(self.settings) | instead))
        if self.sampler is not None and self.sampler.own is None and config.staleness:
            both = f"got {self.sampler.name!r} and staleness={config.staleness}"
            refuse("--agent", f"must be left out with staleness, which samples with two models at once: {both}")
        if self.sampler is not None and config.use_vllm:
            refuse("--agent", f"must be left out with use_vllm, TRL's vLLM samples: got {self.sampler.name!r}")
        return config


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


def describe(
    plan: Plan, config: TreeConfig, model: PreTrainedModel, *, num_tasks: int, num_held_out: int
) -> dict[str, str]:
    """Returns the resolved plan of a run, line by line.

    Tokens and memory are upper bounds, of episodes that fill their limit, but for activations, which depend on the
    model's attention.

    Args:
        plan: the run.
        config: its settings.
        model: what it trains.
        num_tasks: different tasks to train on.
        num_held_out: held-out tasks.
    """
    episodes = plan.tasks_per_step * (config.num_rollouts + config.num_continuations)
    window = getattr(model.config, "max_position_embeddings", None)
    length = min(filter(None, (config.max_episode_tokens, window)), default=None)
    rows = -(-episodes // config.gradient_accumulation_steps)
    fields = {
        "environment": f"{plan.choice.name}, {num_tasks} tasks to train on, {num_held_out} held out",
        "sandboxes": _sandboxes(plan),
        "model": f"{_count(model.num_parameters())} parameters in {str(model.dtype).removeprefix('torch.')}, "
        f"window {length or 'unknown'}",
        "method": _method(plan, config),
        "a step": f"{plan.tasks_per_step} trees of {config.num_rollouts} full episodes and "
        f"{config.num_continuations} continuations: {episodes} episodes",
        "rows": f"{rows} in a backward pass, {config.gradient_accumulation_steps} passes",
        "tokens": f"at most {_count(config.max_action_tokens)} in an action"
        + (f", {_count(length)} in an episode, {_count(length * episodes)} in a step" if length else ""),
        "run": f"{config.max_steps} steps, {_count(config.max_steps * episodes)} episodes; measured and saved every "
        f"{plan.every} steps; learning rate {config.learning_rate:g}, loss {config.loss_type}",
        "where": _places(plan, config),
        "memory": _memory(model, config, rows, length),
        "run folder": str(plan.folder),
    }
    return {name: value for name, value in fields.items() if value}


def _method(plan: Plan, config: TreeConfig) -> str:
    if plan.method == "closed_loop":
        return "closed_loop: continuations where the critic is undecided; rtmc_advantages gives the credit"
    if plan.method != "tree":
        return f"{plan.method}: k = {getattr(config, 'k', None)}, decay = {getattr(config, 'decay', None)}"
    name = getattr(plan.estimator, "__name__", None) or getattr(getattr(plan.estimator, "func", None), "__name__", "")
    return f"{name}, steps weighed by {config.step_weights}; continuations by {plan.allocator}"


def _sandboxes(plan: Plan) -> str:
    if not any(opens_sandboxes(option.annotation) for option in constructor_options(plan.choice.cls).values()):
        return ""
    given = plan.choice.options.get("sandbox")
    if given is not None:
        return str(getattr(given, "keywords", given))
    from agentenv.sandboxes import open_sandbox

    with open_sandbox() as sandbox:
        return f"{type(sandbox).__name__}, one per open environment"


def _places(plan: Plan, config: TreeConfig) -> str:
    device = "the CPU" if config.use_cpu else torch.cuda.get_device_name()
    work = "sampling and updates"
    if config.use_vllm:
        where = "in this process" if config.vllm_mode == "colocate" else f"at {server_url(config)}"
        work = f"sampling by TRL's vLLM {where}; updates"
    elif plan.sampler is not None:
        name = plan.sampler.name
        work = f"sampling by {name if plan.sampler.own else f'vLLM ({name})'}; updates"
    return f"{work} on {device}, in this process; environments in threads of this process"


def _memory(model: PreTrainedModel, config: TreeConfig, rows: int, length: int | None) -> str:
    trained = sum(p.numel() * (p.element_size() + _MOMENTS) for p in model.parameters() if p.requires_grad)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    parts = [f"{_bytes(held)} weights", f"{_bytes(trained)} gradients and AdamW"]
    vocabulary = getattr(model.config, "vocab_size", None)
    if length and vocabulary:
        width = 2 if config.bf16 else 4
        parts.append(f"up to {_bytes(rows * length * vocabulary * width)} logits of a pass (lower --rows)")
    return ", ".join(parts)


def _count(number: Any) -> str:
    return f"{number:,}"


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
