"""The main job in small, on a CPU, in a minute: make a tiny agent, warm it up by imitation, train it with RTMC, branch.

1. A Qwen3 model of about 0.7 million parameters is made on the spot, with a small tokenizer: nothing is downloaded.
2. It imitates scripted play of arithmetic tasks: first careful play, then sloppy play that often reads from left to
   right, so that it knows the tools and is right about a quarter of the time.
3. `TreeTrainer` improves it by reinforcement learning, with RTMC's credit per step. The reward is the verifier's
   verdict, nothing else. Success is measured on fixed held-out tasks before, during and after, at temperature 1.
4. An episode that failed is branched at every step: what share of continuations succeeds from there says where it was
   lost. Learning does without such forks here, as the study says (`docs/which_method.md`).
"""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from agentenv.agents import TransformersAgent
from agentenv.checkpoints import whole_checkpoints
from agentenv.envs.math_verifier import MathTask, MathVerifier
from agentenv.envs.math_verifier.demonstrations import careful_calls, noisy_calls
from agentenv.envs.math_verifier.problems import arithmetic
from agentenv.rollout import Rollout
from agentenv.serialize import write_trees
from agentenv.stats import episodes
from agentenv.tree import Anchor, EpisodeTree
from agentenv.types import Message, message_text

from .config import TreeConfig
from .demonstrations import Play
from .demonstrations import warm_start as warm_start_on
from .progress import TrainingBar
from .run_folder import read_metrics
from .tree_trainer import TreeTrainer

__all__ = ["DEMO_ENV_OPTIONS", "DemoSettings", "demo_tasks", "run_demo", "warm_start"]

DEMO_ENV_OPTIONS: dict[str, Any] = {"operations_per_call": 1, "max_steps": 6}
"""How the demo makes `MathVerifier`: a calculator that does one operation at a time, and six steps."""

_ACTION_TOKENS = 24
_SEARCHED = 128
"""Held-out tasks among whose episodes some are sought that failed."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """The amounts of the demo.

    Attributes:
        demonstrations: tasks that are played by the script, carefully and sloppily.
        careful_updates: updates of imitation on careful play.
        noisy_updates: updates of imitation on sloppy play.
        left_to_right: share of the sloppy play that ignores precedence.
        steps: optimizer steps of reinforcement learning.
        tasks_per_step: trees per optimizer step.
        num_rollouts: full episodes per tree.
        num_continuations: further episodes per tree, from snapshots in mid-episode.
        eval_tasks: held-out tasks.
        eval_every: optimizer steps between measurements.
        branched: episodes that failed and are branched; the clearest is shown.
        branches: continuations from every step of these.
        learning_rate: of reinforcement learning.
        seed: of everything.
    """

    demonstrations: int = 4096
    careful_updates: int = 160
    noisy_updates: int = 120
    left_to_right: float = 0.35
    steps: int = 30
    tasks_per_step: int = 16
    num_rollouts: int = 8
    num_continuations: int = 0
    eval_tasks: int = 256
    eval_every: int = 10
    branched: int = 10
    branches: int = 16
    learning_rate: float = 5e-4
    seed: int = 0


def demo_tasks(count: int, *, seed: int, difficulty: int = 2, exclude: Sequence[MathTask] = ()) -> list[MathTask]:
    """Returns distinct arithmetic tasks from the bundled generator.

    Args:
        count: how many.
        seed: of the generator.
        difficulty: its dial.
        exclude: tasks whose questions must not come up.
    """
    rng = np.random.default_rng(seed)
    seen = {task.question for task in exclude}
    tasks: list[MathTask] = []
    while len(tasks) < count:
        task = arithmetic(rng, difficulty)
        if task.question not in seen:
            seen.add(task.question)
            tasks.append(task)
    return tasks


def warm_start(settings: DemoSettings, held_out: Sequence[MathTask], *, progress: bool = True) -> tuple[Any, Any]:
    """Makes a tiny model and its tokenizer, and has the model imitate scripted play.

    Args:
        settings: the amounts.
        held_out: tasks that must not be imitated.
        progress: shows a progress bar.

    Returns:
        The model and the tokenizer.
    """
    tasks = demo_tasks(settings.demonstrations, seed=settings.seed + 1, exclude=held_out)
    sloppy = partial(noisy_calls, left_to_right=settings.left_to_right)
    return warm_start_on(
        partial(MathVerifier, **DEMO_ENV_OPTIONS),
        [
            Play("careful play", lambda task, _: careful_calls(task), settings.careful_updates),
            Play("sloppy play", sloppy, settings.noisy_updates),
        ],
        tasks=tasks,
        seed=settings.seed,
        progress=progress,
    )


def run_demo(
    folder: str | Path,
    settings: DemoSettings | None = None,
    *,
    console: Console | None = None,
    command: str = "agentenv",
) -> float:
    """Runs the whole demo and prints what it did.

    Args:
        folder: of the run; made if need be.
        settings: the amounts.
        console: where to print.
        command: how `agentenv` is called, in what is proposed at the end.

    Returns:
        Success on the held-out tasks after training, in [0, 1].
    """
    settings = settings or DemoSettings()
    console = console or Console()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    began = time.perf_counter()
    held_out = demo_tasks(settings.eval_tasks, seed=settings.seed + 100)
    console.print(f"[bold]1.[/] a tiny agent, warmed up on scripted play of tasks such as {held_out[0].question!r}")
    model, tokenizer = warm_start(settings, held_out)
    console.print(f"   {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")

    console.print(
        f"[bold]2.[/] reinforcement learning: {settings.steps} steps of {settings.tasks_per_step} tasks with "
        f"{settings.num_rollouts} episodes each"
        + (f" and {settings.num_continuations} continued from mid-episode" if settings.num_continuations else "")
    )
    trainer = _trainer(model, tokenizer, settings, held_out, Path(folder))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar(console, settings.steps, "training with RTMC"))
    trainer.train()

    _report(console, Path(folder), len(held_out), time.perf_counter() - began)
    agent = TransformersAgent(model, tokenizer, max_new_tokens=_ACTION_TOKENS)
    tree = _branch(agent, held_out[:_SEARCHED], settings)
    write_trees(Path(folder) / "branched.jsonl", [tree])
    _show_branched(console, tree, settings.branches)
    _show_next(console, Path(folder), command)
    return _held_out(folder)[-1]


def _trainer(
    model: Any, tokenizer: Any, settings: DemoSettings, held_out: Sequence[MathTask], folder: Path
) -> TreeTrainer:
    train_tasks = demo_tasks(4096, seed=settings.seed + 200, exclude=held_out)
    args = TreeConfig(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.tasks_per_step // 2,
        gradient_accumulation_steps=2,
        per_device_eval_batch_size=settings.eval_tasks,
        num_rollouts=settings.num_rollouts,
        num_continuations=settings.num_continuations,
        max_action_tokens=_ACTION_TOKENS,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.0,
        epsilon_high=0.28,
        entropy_coef=0.003,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=settings.eval_every,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=settings.steps,
        save_trees_steps=settings.eval_every,
        disable_tqdm=True,
        report_to=[],
        seed=settings.seed,
    )
    make_env = partial(MathVerifier, **DEMO_ENV_OPTIONS)
    return TreeTrainer(
        model, args, env=make_env, train_tasks=train_tasks, eval_tasks=held_out, processing_class=tokenizer
    )


def _held_out(folder: str | Path) -> list[float]:
    return [m["eval_success"] for m in read_metrics(folder) if "eval_success" in m]


def _report(console: Console, folder: Path, count: int, seconds: float) -> None:
    before, *_, after = _held_out(folder)
    error = (after * (1 - after) / count) ** 0.5
    console.print(
        f"[bold]3.[/] success on {count} held-out tasks, one episode each at temperature 1: "
        f"[bold]{before:.2f}[/] before, [bold green]{after:.2f}[/] after (standard error {error:.2f}), {seconds:.0f} s"
    )


def _branch(agent: TransformersAgent, tasks: Sequence[MathTask], settings: DemoSettings) -> EpisodeTree:
    """Continues episodes that failed from each of their steps; returns that with the largest loss."""
    with Rollout(partial(MathVerifier, **DEMO_ENV_OPTIONS), agent, seed=settings.seed) as rollout:
        trees = rollout.grow(tasks)
        failed = [i for i, tree in enumerate(trees) if tree.succeeded(tree.leaves()[0]) is False]
        shown = failed[: settings.branched] or [0]
        rollout.extend(trees, [Anchor(i, n, settings.branches) for i in shown for n in sorted(trees[i].snapshots)])
    return min((trees[i] for i in shown), key=lambda tree: min(_changes(_shares(tree)).values()))


def _shares(tree: EpisodeTree) -> dict[int, float]:
    """Returns the share of continuations that succeed from every state of the first episode; of its end the outcome."""
    first, *continued = episodes(tree)
    outcomes: dict[int, list[bool]] = {first.leaf: [first.succeeded]}
    for one in continued:
        if one.value is not None:  # infrastructure failures say nothing of the agent
            outcomes.setdefault(one.anchor, []).append(one.succeeded)
    return {node: float(np.mean(outcomes[node])) for node in tree.path(first.leaf) if node in outcomes}


def _changes(shares: dict[int, float]) -> dict[int, float]:
    """Returns by how much every step changed the share."""
    return {node: share - shares[before] for (before, _), (node, share) in pairwise(shares.items())} or {0: 0.0}


def _show_branched(console: Console, tree: EpisodeTree, count: int) -> None:
    """Prints the first episode of a tree, and beside every step the share of continuations after it that succeed."""
    shares = _shares(tree)
    changes, leaf = _changes(shares), next(reversed(shares))
    worst = min(changes, key=lambda node: changes[node])
    verdict = "succeeded" if shares[leaf] else "failed"
    console.print(
        f"[bold]4.[/] branching: an episode that {verdict}, continued {count} times by the trained agent from a "
        f"snapshot before and after every step.\n   On the left, the share that succeeds (standard error at most "
        f"{0.5 / count**0.5:.2f}):"
    )
    table = Table.grid(padding=(0, 2))
    for node in tree.path(leaf):
        action, share = tree.nodes[node].action, f"{shares[node]:.2f}" if node in shares else ""
        lost = "  [bold red]<- lost here[/]" if node == worst and changes[node] < 0 else ""
        messages = [action.to_message(), *tree.nodes[node].observation] if action else tree.nodes[node].observation
        for number, message in enumerate(messages):
            left, right = (f"   {share}", lost) if number == 0 else ("", "")
            table.add_row(left, f"[dim]{message['role']:>9}[/]", escape(_said(message)) + right)
    console.print(table, highlight=False)
    if not any(shares.values()):
        console.print("   No continuation succeeds: this agent has learned too little.")


def _said(message: Message) -> str:
    """Returns what a message says and calls, in characters that a terminal can show."""
    calls = [f"{c['function']['name']}({c['function']['arguments']})" for c in message.get("tool_calls", [])]
    text = " ".join([message_text(message), *calls]).strip()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _show_next(console: Console, folder: Path, command: str) -> None:
    checkpoint = whole_checkpoints(folder)[0]
    console.print(
        f"\n   Run folder: {folder} (run.json, metrics.jsonl, trees/, branched.jsonl, curve.png, {checkpoint.name}/)"
    )
    env = ["agentenv/MathVerifier-v0"]
    for name, value in DEMO_ENV_OPTIONS.items():
        env += ["--option", f"{name}={value}"]
    console.print("\n   Try next:")
    for words in (
        ["view", folder / "branched.jsonl", "--out", folder / "branched.html"],
        ["rollout", *env, "--agent", checkpoint, "--tasks", 64, "--out", folder / "rollouts.jsonl"],
        ["play", *env],
    ):
        console.print(f"     {command} {shlex.join(map(str, words))}", soft_wrap=True, markup=False)
