"""Warm start for any environment with demonstrations: a tiny model is made on the spot and imitates them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agentenv.env import Env
from agentenv.signatures import digest
from agentenv.types import Action, Message, ToolCall

from .imitation import BATCH_SIZE, MATRIX_LR, OTHER_LR, Phase, imitate, play_script, progress_bar
from .tiny import make_tiny_model

__all__ = ["Play", "warm_start"]

Demonstrate = Callable[[Any, np.random.Generator], Sequence[Any]]
"""Returns what to do in an episode of a task, step by step: calls of tools, texts, messages or actions."""

_READ_BY_TOKENIZER = 300
_PLAYED_IN_SANDBOXES = 512
"""Episodes per play at most where each opens a sandbox, which takes a tenth of a second or more with its commands."""


@dataclass(frozen=True, slots=True)
class Play:
    """A way to play that is imitated.

    Attributes:
        name: for the progress bar.
        demonstrate: plays a task; what it draws, it draws from the generator. A model that is to learn by reinforcement
            needs play that fails now and then: what never varies has nothing to be compared with.
        updates: how often to update the model on it.
    """

    name: str
    demonstrate: Demonstrate
    updates: int = 160


def warm_start(
    env: Callable[[], Env],
    plays: Demonstrate | Sequence[Play],
    *,
    tasks: Sequence[Any] | int = 1024,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str | torch.device | None = None,
    matrix_lr: float = MATRIX_LR,
    other_lr: float = OTHER_LR,
    seed: int = 0,
    progress: bool = True,
    **sizes: Any,
) -> tuple[Any, Any]:
    """Makes a tiny model, and has it imitate play in an environment, so that reinforcement learning can begin.

    Args:
        env: makes an environment.
        plays: what to imitate, one after the other: skillful play first, then such as errs. A function alone is one.
        tasks: to play, the same in every play; or how many to let the environment draw. Where a play has fewer updates
            than it takes to imitate all of them, it is played on some, drawn at random. Where the environment has a
            sandbox, it is played on 512 at most, and the same steps on the same task once, whatever the seed.
        model: a model of one's own, changed in place; with `tokenizer`.
        tokenizer: of that model.
        device: where the model that is made learns and stays; the CPU by default. A model of one's own stays where it
            is.
        matrix_lr: learning rate of the matrices inside the layers; wider models than the tiny one want less.
        other_lr: that of embeddings and norms.
        seed: of tasks, demonstrations, weights and the order of conversations.
        progress: shows progress bars.
        sizes: of the tiny model, see `make_tiny_model`: `hidden_size`, `num_layers`, `vocab_size`, ...

    Returns:
        The model and its tokenizer, for `TreeTrainer` or `TransformersAgent`.

    Raises:
        ValueError: no task or play, a model without tokenizer, or a demonstration that does nothing or goes on after
            its episode has ended; the message names play and task.
        ModelError: a size does not fit.
    """
    ways = [Play("play", plays)] if callable(plays) else list(plays)
    if not ways:
        msg = "plays must hold at least one Play, got none"
        raise ValueError(msg)
    if (model is None) != (tokenizer is None):
        msg = "model and tokenizer must be given together, or neither"
        raise ValueError(msg)
    player, rng = env(), np.random.default_rng(seed)
    try:
        given = _draw(player, tasks, seed) if isinstance(tasks, int) else list(tasks)
        if not given:
            msg = f"tasks must hold at least one task, got {tasks!r}"
            raise ValueError(msg)
        phases = _play_all(player, ways, given, rng, seed, progress=progress)
        tools = player.tools
    finally:
        player.close()
    if model is None or tokenizer is None:
        examples = [one for phase in phases for one in phase.conversations[:_READ_BY_TOKENIZER]]
        model, tokenizer = make_tiny_model(examples, seed=seed, **sizes)
        torch.nn.Module.to(model, device)
    rates: dict[str, Any] = {"matrix_lr": matrix_lr, "other_lr": other_lr}
    imitate(model, tokenizer, phases, tools=tools, seed=seed, progress=progress, **rates)
    return model, tokenizer


def _play_all(
    env: Env, ways: Sequence[Play], tasks: Sequence[Any], rng: np.random.Generator, seed: int, *, progress: bool
) -> list[Phase]:
    """Plays what will be imitated, and shows how far that is: with sandboxes it takes as long as the imitation."""
    phases: list[Phase] = []
    costly = getattr(type(env), "make_sandbox", Env.make_sandbox) is not Env.make_sandbox
    known: dict[str, list[Message]] | None = {} if costly else None
    with progress_bar(shown=progress) as bar:
        for way in ways:
            most = min(way.updates * BATCH_SIZE, _PLAYED_IN_SANDBOXES if costly else len(tasks))
            numbers = _needed(len(tasks), most, rng)
            line = bar.add_task(f"playing {way.name}", total=len(numbers))
            played: list[list[Message]] = []
            for number in numbers:
                played.append(_played(env, way, tasks[number], rng, seed + number, known))
                bar.advance(line)
            phases.append(Phase(way.name, played, way.updates))
    return phases


def _needed(tasks: int, most: int, rng: np.random.Generator) -> list[int]:
    """Numbers of the tasks that will be imitated: all, or `most` drawn at random."""
    return list(range(tasks)) if tasks <= most else sorted(rng.choice(tasks, most, replace=False).tolist())


def _draw(env: Env, count: int, seed: int) -> list[Any]:
    """The tasks that the environment draws for `count` seeds."""
    tasks: list[Any] = []
    for number in range(count):
        env.reset(seed=seed + number)
        tasks.append(env.task)
    return tasks


def _played(
    env: Env, way: Play, task: Any, rng: np.random.Generator, seed: int, known: dict[str, list[Message]] | None
) -> list[Message]:
    """Returns the conversation of a play; where `known` is given, from there if the same was played before."""
    steps = [_action(step) for step in way.demonstrate(task, rng)]
    known = None if task is None else known  # its episodes differ by their seeds
    same = "" if known is None else digest([task, [step.to_message() for step in steps]])
    if known and same in known:
        return known[same]
    try:
        conversation = play_script(env, steps, task=task, seed=seed)
    except ValueError as error:
        msg = f"{way.name!r} cannot be imitated on the task {task!r:.200}: {error}"
        raise ValueError(msg) from error
    if known is not None:
        known[same] = conversation
    return conversation


def _action(step: Any) -> Action:
    return Action(tool_calls=(step,)) if isinstance(step, ToolCall) else Action.parse(step)
