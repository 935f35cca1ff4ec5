"""What `agentenv train --dry-run` prints: what would run where, how many tokens, how much memory."""

from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from agentenv.trainers import TreeConfig

from .env_choice import constructor_options
from .sandbox_options import opens_sandboxes

if TYPE_CHECKING:
    from .training import Plan

__all__ = ["describe"]

_MOMENTS = 8  # bytes per parameter: two of AdamW, in float32


def describe(
    plan: "Plan", config: TreeConfig, model: PreTrainedModel, *, num_tasks: int, num_held_out: int
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
        "where": _places(config),
        "memory": _memory(model, config, rows, length),
        "run folder": str(plan.folder),
    }
    return {name: value for name, value in fields.items() if value}


def _method(plan: "Plan", config: TreeConfig) -> str:
    if plan.method != "tree":
        return f"{plan.method}: k = {getattr(config, 'k', None)}, decay = {getattr(config, 'decay', None)}"
    name = getattr(plan.estimator, "__name__", None) or getattr(getattr(plan.estimator, "func", None), "__name__", "")
    return f"{name}, steps weighed by {config.step_weights}; continuations by {plan.allocator}"


def _sandboxes(plan: "Plan") -> str:
    if not any(opens_sandboxes(option.annotation) for option in constructor_options(plan.choice.cls).values()):
        return ""
    given = plan.choice.options.get("sandbox")
    if given is not None:
        return str(getattr(given, "keywords", given))
    from agentenv.sandboxes import open_sandbox

    with open_sandbox() as sandbox:
        return f"{type(sandbox).__name__}, one per open environment"


def _places(config: TreeConfig) -> str:
    device = "the CPU" if config.use_cpu else torch.cuda.get_device_name()
    return f"sampling and updates on {device}, in this process; environments in threads of this process"


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
