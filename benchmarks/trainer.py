"""What a training step costs: packed against padded rows, ours against TRL's own trainer, and where the seconds go.

    python benchmarks/trainer.py                        # tiny model, one CPU core, about 5 minutes
    python benchmarks/trainer.py --small                # little work, for tests: the numbers mean nothing
    python benchmarks/trainer.py --json trainer.json
    python benchmarks/trainer.py --only packed --device cuda --bf16 --hidden 1024 --layers 8   # another model

1. *packed*: loss and gradient of the same trees padded, packed with every tree whole (`whole`: every unique token is
   computed once), and packed by default (`packed`: trees are cut where attention costs more than a trunk that is
   repeated). Trees are random tokens in the shape of an agent's episodes. `47 leaves` has 8 full episodes and 39
   continuations of short steps (3 tokens, answered by 3), `longer steps` the same with 6 and 8, `long prompts` those
   below 200 tokens of prompt, `many tasks` 8 trees of 8 leaves, `flat` no continuations.
2. *flat*: a whole optimizer step on the same rollouts, everything but sampling, against stock `GRPOTrainer` with a
   `rollout_func`: no continuations, so that both can train them.
3. *phases*: seconds of each part of a step of the demo's size, a quarter of its episodes forks, sampling included, in
   both layouts.

Seconds are of the processor for a CPU (one thread) and of the wall clock for a GPU; the best of the repeats, which
alternate between what is compared. Ratios are of one run.
"""

import argparse
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from agentenv.credit import dr_grpo_advantages, rtmc_advantages
from agentenv.envs.math_verifier import MathVerifier
from agentenv.trainers import TreeConfig, TreeTrainer
from agentenv.trainers import tree_trainer as tree_trainer_module
from agentenv.trainers.batches import computed_tokens, micro_batches
from agentenv.trainers.demo import DEMO_ENV_OPTIONS, DemoSettings, demo_tasks, warm_start
from agentenv.trainers.layout import lay_out
from agentenv.trainers.tiny import make_tiny_model
from agentenv.tree import EpisodeTree
from agentenv.types import Action, Message

VOCABULARY = 256


@dataclass(frozen=True)
class Shape:
    """How many trees, and what they look like."""

    trees: int
    rollouts: int
    continuations: int
    steps: int
    prompt: int
    action: int = 6
    answer: int = 8


SHAPES = {
    "47 leaves": Shape(1, 8, 39, 6, 24, action=3, answer=3),
    "longer steps": Shape(1, 8, 39, 6, 24),
    "long prompts": Shape(1, 8, 39, 6, 200),
    "many tasks": Shape(8, 4, 4, 5, 40),
    "flat": Shape(8, 8, 0, 5, 40),
}
SMALL = {"47 leaves": Shape(1, 2, 3, 2, 6), "flat": Shape(2, 2, 0, 2, 6)}


def random_tree(shape: Shape, rng: np.random.Generator) -> EpisodeTree:
    """Grows full episodes from the root, then continuations from random nodes in mid-episode; returns 0 or 1."""
    tree = EpisodeTree(({"role": "user", "content": "q"},))

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(10, VOCABULARY, count).tolist())

    def go_on(node: int, steps: int) -> None:
        for left in reversed(range(steps)):
            seen = tree.prompt_token_ids(node)
            if seen is None:
                seen = tree.token_ids(node) + words(shape.answer if node else shape.prompt)
            action = Action("", token_ids=words(shape.action), logprobs=(-1.0,) * shape.action, prompt_token_ids=seen)
            reward = float(rng.random() < 0.5) if not left else 0.0
            node = tree.add(node, action, reward=reward, terminated=not left)

    for _ in range(shape.rollouts):
        go_on(0, shape.steps)
    for _ in range(shape.continuations):
        depths = {i: len(tree.path(i)) - 1 for i, node in enumerate(tree.nodes) if i and not node.ended}
        node = int(rng.choice(list(depths)))
        go_on(node, shape.steps - depths[node])
    return tree


def model_and_tokenizer(*, hidden: int = 128, layers: int = 3) -> tuple[Any, Any]:
    """A model with random weights and its tokenizer."""
    talk: list[list[Message]] = [
        [{"role": "user", "content": f"Compute {i} + {i % 7}."}, {"role": "assistant", "content": str(i)}]
        for i in range(99)
    ]
    heads = max(4, hidden // 64)
    return make_tiny_model(talk, hidden_size=hidden, num_layers=layers, num_heads=heads, context_length=4096)


def settings(folder: Path, device: str, **options: Any) -> dict[str, Any]:
    """What both trainers are given."""
    return {
        "output_dir": str(folder),
        "learning_rate": 1e-5,
        "bf16": False,
        "use_cpu": device == "cpu",
        "gradient_checkpointing": False,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "shuffle_dataset": False,
    } | options


def ours(model: Any, tokenizer: Any, trees: Sequence[EpisodeTree], folder: Path, device: str, **options: Any) -> Any:
    """A `TreeTrainer` that is given its trees."""
    options = {"gradient_accumulation_steps": 1, "estimator": dr_grpo_advantages, **options}
    estimator, parts = options.pop("estimator"), options["gradient_accumulation_steps"]
    tasks = max(2, len(trees)) // parts
    args = TreeConfig(**settings(folder, device, per_device_train_batch_size=tasks, **options))
    many = [{"question": "q", "answer": "1"}] * (tasks * parts * max(1, args.max_steps))
    run: Any = TreeTrainer(
        model, args, env=MathVerifier, train_tasks=many, estimator=estimator, processing_class=tokenizer
    )

    def grow(_: Sequence[int], __: str) -> list[EpisodeTree]:
        return list(trees)

    run._grow = grow
    return run


def stock(model: Any, tokenizer: Any, trees: Sequence[EpisodeTree], folder: Path, device: str, **options: Any) -> Any:
    """TRL's own trainer, given the same chains by its `rollout_func`.

    Args:
        model: to train.
        tokenizer: its tokenizer.
        trees: chains from the root, as many in each.
        folder: of the run.
        device: cpu or cuda.
        options: further settings; `first_only=True` trains the first action of every chain alone.
    """
    first_only = options.pop("first_only", False)
    rows = [flat_row(tree, leaf, first_only=first_only) for tree in trees for leaf in tree.leaves()]
    group, parts = len(rows) // len(trees), options.pop("gradient_accumulation_steps", 1)
    args = GRPOConfig(
        **settings(folder, device, per_device_train_batch_size=len(rows) // parts, **options),
        gradient_accumulation_steps=parts,
        num_generations=group,
        scale_rewards="none",
    )
    names = ("prompt_ids", "completion_ids", "logprobs", "env_mask", "outcome")

    def give(prompts: list[Any], _: Any) -> dict[str, Any]:
        assert len(prompts) == len(rows)
        return {name: [row[name] for row in rows] for name in names}

    return GRPOTrainer(
        model,
        reward_funcs=cast("Any", _outcome),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "q"}] * (len(trees) * max(1, args.max_steps))),
        processing_class=tokenizer,
        rollout_func=give,
    )


def _outcome(outcome: list[float], **_: Any) -> list[float]:
    return outcome


def flat_row(tree: EpisodeTree, leaf: int, *, first_only: bool = False) -> dict[str, Any]:
    """One chain as TRL's rollout function gives it."""
    prompt = tree.prompt_token_ids(0) or ()
    whole = tree.token_ids(leaf)
    mask, logprobs = np.zeros(len(whole), dtype=int), np.zeros(len(whole))
    for node in tree.path(leaf)[1:2] if first_only else tree.path(leaf)[1:]:
        action = tree.nodes[node].action
        assert action is not None
        end = tree.length(node)
        mask[end - len(action.token_ids or ()) : end] = 1
        logprobs[end - len(action.token_ids or ()) : end] = action.logprobs or ()
    begin = len(prompt)
    return {
        "prompt_ids": list(prompt),
        "completion_ids": list(whole[begin:]),
        "logprobs": logprobs[begin:].tolist(),
        "env_mask": mask[begin:].tolist(),
        "outcome": tree.episode_return(leaf),
    }


def now(device: str) -> float:
    """Seconds of the processor, or of the wall clock once the GPU is done."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def measure_packed(name: str, shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of loss and gradient in both layouts, and how many tokens each computes."""
    rng = np.random.default_rng(0)
    trees = [random_tree(shape, rng) for _ in range(shape.trees)]
    sizes = [len(_beginnings(tree)) for tree in trees]
    unique = sum(sizes)
    found: dict[str, Any] = {"shape": name, "leaves": sum(len(tree.leaves()) for tree in trees), "unique": unique}
    work: dict[str, Callable[[], None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = model_and_tokenizer(hidden=options.hidden, layers=options.layers)
        found["parameters"] = sum(p.numel() for p in model.parameters())
        layouts: dict[str, dict[str, Any]] = {
            "padded": {"layout": "padded"},
            "whole": {"layout": "packed", "max_packed_tokens": max(sizes)},
            "packed": {"layout": "packed", "max_packed_tokens": options.max_packed_tokens},
        }
        for layout, chosen in layouts.items():
            run = ours(model, tokenizer, trees, Path(folder), options.device, bf16=options.bf16, **chosen)
            run.model.train()
            run.current_gradient_accumulation_steps = 1
            run.first_log_ratio = object()
            batch = run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(len(trees))])
            (micro,) = micro_batches(batch)
            found[f"{layout}_tokens"] = computed_tokens(batch)
            ids = micro.get("packed_ids", torch.cat([micro["prompt_ids"], micro["completion_ids"]], 1))
            found[f"{layout}_rows"], found[f"{layout}_positions"] = len(ids), ids.numel()
            work[layout] = partial(_backward, run, batch)
        seconds = best(work, repeats=options.repeats, device=options.device)
    if options.device == "cuda":
        found |= {f"{layout}_gib": _peak_gib(do) for layout, do in work.items()}
    return (
        found
        | {f"{layout}_seconds": s for layout, s in seconds.items()}
        | {"ratio": seconds["padded"] / seconds["packed"], "whole_ratio": seconds["padded"] / seconds["whole"]}
    )


def _beginnings(tree: EpisodeTree) -> set[tuple[int, ...]]:
    return {path[:n] for path in map(tree.token_ids, range(1, len(tree))) for n in range(1, len(path) + 1)}


def _backward(run: Any, batch: Any) -> None:
    run.model.zero_grad()
    with run.accelerator.autocast():
        loss = run.compute_loss(run.model, batch)
    loss.backward()


def _peak_gib(work: Callable[[], None]) -> float:
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() / 2**30


def best(work: dict[str, Callable[[], None]], *, repeats: int, device: str) -> dict[str, float]:
    """Returns the least seconds of each, after one run of each to warm up; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, do in work.items():
            start = now(device)
            do()
            if turn:
                seconds[name].append(now(device) - start)
    return {name: min(values) for name, values in seconds.items()}


class StepSeconds(TrainerCallback):
    """Seconds between the ends of optimizer steps, logging included."""

    def __init__(self, device: str) -> None:
        self.device, self.ends = device, list[float]()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Takes the time."""
        self.ends.append(now(self.device))

    @property
    def seconds(self) -> list[float]:
        """All but the first step, which warms up."""
        return np.diff(self.ends).tolist()


def measure_flat(shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a whole step on the same flat rollouts, everything but sampling, ours and TRL's."""
    rng = np.random.default_rng(0)
    trees = [random_tree(shape, rng) for _ in range(shape.trees)]
    seconds: dict[str, list[float]] = {"stock": [], "padded": [], "packed": []}
    for _ in range(2):  # they take turns
        for name in seconds:
            with tempfile.TemporaryDirectory() as folder:
                model, tokenizer = model_and_tokenizer(hidden=options.hidden, layers=options.layers)
                build: Any = stock if name == "stock" else partial(ours, layout=name)
                run = build(model, tokenizer, trees, Path(folder), options.device, max_steps=options.repeats + 1)
                timer = StepSeconds(options.device)
                run.remove_callback(PrinterCallback)
                run.add_callback(timer)
                run.train()
                seconds[name] += timer.seconds
    least = {name: min(values) for name, values in seconds.items()}
    ratios = {f"{name}/stock": least[name] / least["stock"] for name in ("padded", "packed")}
    return {f"{name}_seconds": value for name, value in least.items()} | ratios


PHASES = ("sampling", "rows", "credit", "batch", "loss", "backward", "optimizer")


class Phases:
    """Adds up the seconds of the parts of a trainer's step."""

    def __init__(self, run: Any, device: str) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._device = device
        for owner, name, phase in (
            (run, "_grow", "sampling"),
            (run, "_credit", "credit"),
            (run, "_collate", "batch"),
            (run, "compute_loss", "loss"),
            (run.accelerator, "backward", "backward"),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), phase))
        create = run.create_optimizer

        def created(*args: Any) -> Any:
            optimizer = create(*args)
            optimizer.step = self._timed(optimizer.step, "optimizer")
            return optimizer

        run.create_optimizer = created

    def _timed(self, work: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = now(self._device)
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds[phase] += now(self._device) - start

        timed.__dict__ |= getattr(work, "__dict__", {})
        timed.__self__ = getattr(work, "__self__", None)  # type: ignore[attr-defined]  a scheduler asks whose step it is
        timed.__func__ = timed  # type: ignore[attr-defined]
        return timed

    @contextmanager
    def laying_out(self) -> Generator[None]:
        """Counts `lay_out` while it lasts."""
        tree_trainer_module.lay_out = self._timed(lay_out, "rows")
        try:
            yield
        finally:
            tree_trainer_module.lay_out = lay_out


def measure_phases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each part of the demo's step, per step, in both layouts, from the same agent."""
    demo = DemoSettings()
    few = options.small
    started = DemoSettings(
        demonstrations=200 if few else 1024, careful_updates=2 if few else 60, noisy_updates=1 if few else 40
    )
    held_out = demo_tasks(4, seed=1)
    results: list[dict[str, Any]] = []
    made = warm_start(started, held_out, progress=False)
    state = {name: tensor.clone() for name, tensor in made[0].state_dict().items()}
    trees, steps = (4, 1) if few else (demo.tasks_per_step, 3)
    for layout in ("padded", "packed"):
        made[0].load_state_dict(state)
        with tempfile.TemporaryDirectory() as folder:
            args = TreeConfig(
                **settings(Path(folder), options.device, max_steps=steps, learning_rate=demo.learning_rate),
                per_device_train_batch_size=trees // 2,
                gradient_accumulation_steps=2,
                num_rollouts=6,
                num_continuations=2,
                max_action_tokens=24,
                layout=layout,
            )
            run: Any = TreeTrainer(
                made[0],
                args,
                env=partial(MathVerifier, **DEMO_ENV_OPTIONS),
                train_tasks=demo_tasks(64, seed=2, exclude=held_out),
                estimator=rtmc_advantages,
                processing_class=made[1],
            )
            run.remove_callback(PrinterCallback)
            phases = Phases(run, options.device)
            start = now(options.device)
            with phases.laying_out():
                run.train()
            whole = (now(options.device) - start) / steps
            spent = {name: value / steps for name, value in phases.seconds.items()}
            results.append({"layout": layout, "step": whole, "rest": whole - sum(spent.values()), **spent})
    return results


def report(results: SimpleNamespace, console: Console) -> None:
    """Prints the tables."""
    if results.packed:
        table = Table(title="loss and gradient of the same trees")
        for column in ("shape", "leaves", "unique", "whole", "packed", "padded", "whole s", "packed s", "padded s"):
            table.add_column(column, justify="right")
        for column in ("padded / whole", "padded / packed"):
            table.add_column(column, justify="right")
        for r in results.packed:
            counts = (r["leaves"], r["unique"], r["whole_tokens"], r["packed_tokens"], r["padded_positions"])
            seconds = (r[f"{layout}_seconds"] for layout in ("whole", "packed", "padded"))
            ratios = (f"{r[name]:.2f}" for name in ("whole_ratio", "ratio"))
            table.add_row(r["shape"], *map(str, counts), *(f"{s:.3f}" for s in seconds), *ratios)
        console.print(table)
    if results.flat:
        r = results.flat
        console.print(
            f"a step on flat rollouts, all but sampling: stock {r['stock_seconds']:.3f} s, ours padded "
            f"{r['padded_seconds']:.3f} ({r['padded/stock']:.2f}), ours packed {r['packed_seconds']:.3f} "
            f"({r['packed/stock']:.2f})"
        )
    if results.phases:
        table = Table(title="seconds of a step of the demo, by phase")
        for column in ("layout", "step", *PHASES, "rest"):
            table.add_column(column, justify="right")
        for r in results.phases:
            table.add_row(r["layout"], *(f"{r[name]:.3f}" for name in ("step", *PHASES, "rest")))
        console.print(table)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["packed", "flat", "phases"], default=["packed", "flat", "phases"])
    parser.add_argument("--small", action="store_true", help="little work, for tests: the numbers mean nothing")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--max-packed-tokens", type=int, help="most tokens of a packed row")
    parser.add_argument("--hidden", type=int, default=128, help="width of the model")
    parser.add_argument("--layers", type=int, default=3, help="its depth")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    if options.small:
        options.repeats = 1
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    shapes = SMALL if options.small else SHAPES
    results = SimpleNamespace(packed=[], flat={}, phases=[])
    if "packed" in options.only:
        results.packed = [measure_packed(name, shape, options) for name, shape in shapes.items()]
    if "flat" in options.only:
        results.flat = measure_flat(shapes["flat"], options)
    if "phases" in options.only:
        results.phases = measure_phases(options)
    report(results, Console())
    if options.json is not None:
        device = (
            torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
        )
        record = {"device": device, "settings": {k: str(v) for k, v in vars(options).items()}, **vars(results)}
        options.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
