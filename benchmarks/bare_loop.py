"""A training step of the demo against a bare loop that does the same work by hand, in one run.

    python benchmarks/bare_loop.py                     # one CPU core, 1 to 3 minutes
    python benchmarks/bare_loop.py --small             # little work, for tests: the numbers mean nothing
    python benchmarks/bare_loop.py --json bare_loop.json

The bare loop is what one would write for this one model, and nothing else: a Qwen3 of plain tensor operations that
shares the agent's weights; a sampler that holds all episodes in lock step, keeps their keys and values from turn to
turn, and branches a prefix by repeating rows; a padded update with a clipped ratio and an entropy bonus. It has no
messages, no parsing, no seed per action, no tree, no credit, no checks, no logs.

*The same work*: `TreeTrainer` makes a few optimizer steps of the demo's size, a quarter of the episodes forks, from a
warmed-up agent and keeps its trees. The bare loop is then given them: it samples as many tokens in the same rows and
turns (what it draws is replaced by what was drawn before), takes the same steps in the same environments, and updates
on the same rows. Seconds are of the processor (one thread), medians over the steps.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from agentenv.envs.math_verifier import MathTask, MathVerifier
from agentenv.trainers import TreeConfig, TreeTrainer
from agentenv.trainers.demo import DEMO_ENV_OPTIONS, DemoSettings, demo_tasks, warm_start
from agentenv.tree import EpisodeTree
from agentenv.types import Action

PARTS = (4, 8, 16, 32, 64)
"""Micro-batches of the bare update; the fastest counts."""


class BareModel:
    """The tensor operations of a Qwen3 model with as many key heads as query heads and tied embeddings."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.weights: dict[str, Tensor] = dict(model.named_parameters())
        self.layers, self.heads, self.size = config.num_hidden_layers, config.num_attention_heads, config.head_dim
        self.eps: float = config.rms_norm_eps
        base: float = config.rope_parameters["rope_theta"]
        angles = torch.outer(
            torch.arange(config.max_position_embeddings).float(),
            1.0 / base ** (torch.arange(0, self.size, 2).float() / self.size),
        )
        turned = torch.cat((angles, angles), -1)
        self.cos, self.sin = turned.cos(), turned.sin()

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return rms_norm(x, (x.shape[-1],), self.weights[f"{name}.weight"], self.eps)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = self.size // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    def _qkv(self, x: Tensor, layer: str, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def heads(name: str) -> Tensor:
            made = x @ self.weights[f"{layer}.self_attn.{name}_proj.weight"].T
            return made.view(*x.shape[:2], self.heads, self.size)

        q = self._norm(heads("q"), f"{layer}.self_attn.q_norm").transpose(1, 2)
        k = self._norm(heads("k"), f"{layer}.self_attn.k_norm").transpose(1, 2)
        return self._turn(q, cos, sin), self._turn(k, cos, sin), heads("v").transpose(1, 2)

    def _rest(self, x: Tensor, attended: Tensor, layer: str) -> Tensor:
        x = x + attended @ self.weights[f"{layer}.self_attn.o_proj.weight"].T
        h = self._norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (h @ self.weights[f"{layer}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        return x + (silu(gate) * up) @ self.weights[f"{layer}.mlp.down_proj.weight"].T

    def _logits(self, x: Tensor) -> Tensor:
        return self._norm(x, "model.norm") @ self.weights["model.embed_tokens.weight"].T

    def logits(self, ids: Tensor) -> Tensor:
        """Returns the logits `[B, T, V]` of whole sequences, padded on the right."""
        x = self.weights["model.embed_tokens.weight"][ids]
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for number in range(self.layers):
            layer = f"model.layers.{number}"
            q, k, v = self._qkv(self._norm(x, f"{layer}.input_layernorm"), layer, cos, sin)
            attended = scaled_dot_product_attention(q, k, v, is_causal=True)
            x = self._rest(x, attended.transpose(1, 2).flatten(2), layer)
        return self._logits(x)

    def append(self, ids: Tensor, counts: Tensor, cache: "Cache") -> Tensor:
        """Reads `counts` [B] of the tokens `ids` [B, C] into the cache; returns the last one's logits `[B, V]`."""
        x = self.weights["model.embed_tokens.weight"][ids]
        at = (cache.lengths[:, None] + torch.arange(ids.shape[1])).clamp(max=cache.keys[0].shape[2] - 1)
        seen = int(at.max()) + 1
        cos, sin = self.cos[at][:, None], self.sin[at][:, None]
        hidden = (torch.arange(seen) > at[:, :, None])[:, None] * -1e9
        rows = torch.arange(len(ids))[:, None]
        for number in range(self.layers):
            layer = f"model.layers.{number}"
            q, k, v = self._qkv(self._norm(x, f"{layer}.input_layernorm"), layer, cos, sin)
            cache.keys[number][rows, :, at] = k.transpose(1, 2)
            cache.values[number][rows, :, at] = v.transpose(1, 2)
            known, told = cache.keys[number][:, :, :seen], cache.values[number][:, :, :seen]
            weights = torch.softmax((q @ known.transpose(-1, -2)).mul_(self.size**-0.5).add_(hidden), -1)
            attended = (weights @ told).transpose(1, 2).flatten(2)
            if number == self.layers - 1:
                last = (torch.arange(len(ids)), (counts - 1).clamp(min=0))
                x, attended = x[last][:, None], attended[last][:, None]
            x = self._rest(x, attended, layer)
        cache.lengths = cache.lengths + counts
        return self._logits(x)[:, 0]


class Cache:
    """Keys and values of the rows, with room for whole episodes."""

    def __init__(self, model: BareModel, rows: int, room: int) -> None:
        shape = (rows, model.heads, room, model.size)
        self.keys = [torch.zeros(shape) for _ in range(model.layers)]
        self.values = [torch.zeros(shape) for _ in range(model.layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; one that comes twice is branched."""
        self.keys = [one[rows] for one in self.keys]
        self.values = [one[rows] for one in self.values]
        self.lengths = self.lengths[rows]


@dataclass
class Chain:
    """What one rollout of a tree added to it.

    Attributes:
        start: names what it began at; the same for all that begin there.
        prefix: the tokens before its first action.
        actions: tokens and log-probabilities of each action, and the action itself.
        answers: what was appended after each action but the last.
        reward: of its episode.
        env: where its actions are taken, before the first of them.
    """

    start: tuple[int, int]
    prefix: tuple[int, ...]
    actions: list[Action]
    answers: list[tuple[int, ...]]
    reward: float
    env: MathVerifier

    @property
    def ids(self) -> list[int]:
        """The whole episode's tokens."""
        parts = list(self.prefix)
        for action, answer in zip(self.actions, [*self.answers, ()], strict=True):
            parts += [*(action.token_ids or ()), *answer]
        return parts

    @property
    def chosen(self) -> list[tuple[int, int, float]]:
        """Place, token and log-probability of each sampled token."""
        found: list[tuple[int, int, float]] = []
        at = len(self.prefix)
        for action, answer in zip(self.actions, [*self.answers, ()], strict=True):
            tokens, logprobs = action.token_ids or (), action.logprobs or ()
            found += zip(range(at, at + len(tokens)), tokens, logprobs, strict=True)
            at += len(tokens) + len(answer)
        return found


def chains_of(number: int, tree: EpisodeTree) -> list[Chain]:
    """Splits a tree into what each of its rollouts added."""
    known, chains = {0}, list[Chain]()
    for leaf in tree.leaves():
        own = [node for node in tree.path(leaf) if node not in known]
        known |= set(own)
        start = tree.nodes[own[0]].parent
        assert start is not None
        actions = [action for node in own if (action := tree.nodes[node].action) is not None]
        answers: list[tuple[int, ...]] = []
        for node in own[:-1]:
            seen = tree.prompt_token_ids(node)
            assert seen is not None
            answers.append(seen[tree.length(node) :])
        prefix = tree.prompt_token_ids(start)
        assert prefix is not None
        env = MathVerifier(tasks=[MathTask(**tree.task)], **DEMO_ENV_OPTIONS)
        env.reset(seed=0)
        for node in tree.path(start)[1:]:
            env.step(tree.nodes[node].action or "")
        chains.append(Chain((number, start), prefix, actions, answers, tree.episode_return(leaf) or 0.0, env))
    return chains


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns the rows, padded on the right, and their lengths."""
    counts = [len(row) for row in rows]
    ids = torch.zeros(len(rows), max(counts), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    return ids, torch.tensor(counts)


@torch.no_grad()
def sample(model: BareModel, chains: Sequence[Chain]) -> None:
    """Samples as many tokens as the chains have, all in lock step, and takes their steps in their environments."""
    starts = list(dict.fromkeys(chain.start for chain in chains))
    prefixes = {chain.start: chain.prefix for chain in chains}
    cache = Cache(model, len(starts), max(len(chain.ids) for chain in chains))
    logits = model.append(*padded([prefixes[start] for start in starts]), cache)
    rows = torch.tensor([starts.index(chain.start) for chain in chains])
    cache.select(rows)
    logits, live = logits[rows], list(chains)
    for turn in range(max(len(chain.actions) for chain in chains)):
        told = [list(chain.actions[turn].token_ids or ()) for chain in live]
        for at in range(longest := max(map(len, told))):
            logprobs = torch.log_softmax(logits, -1)
            drawn = (logprobs - torch.empty_like(logprobs).exponential_().log()).argmax(-1)
            logprobs.gather(1, drawn[:, None]).tolist()
            now = torch.tensor([tokens[at] if at < len(tokens) else 0 for tokens in told])
            if at < longest - 1:
                counts = torch.tensor([int(at < len(tokens) - 1) for tokens in told])
                further = model.append(now[:, None], counts, cache)
                logits = torch.where(counts[:, None] > 0, further, logits)
        for chain in live:
            chain.env.step(chain.actions[turn])
        going = [number for number, chain in enumerate(live) if turn + 1 < len(chain.actions)]
        if not going:
            return
        cache.select(torch.tensor(going))
        chunks = [[told[number][-1], *live[number].answers[turn]] for number in going]
        live = [live[number] for number in going]
        logits = model.append(*padded(chunks), cache)


def update(model: BareModel, chains: Sequence[Chain], optimizer: torch.optim.Optimizer, parts: int) -> None:
    """One optimizer step on the chains as padded rows, sorted by length."""
    groups: dict[int, list[float]] = {}
    for chain in chains:
        groups.setdefault(chain.start[0], []).append(chain.reward)
    ordered = sorted(chains, key=lambda chain: len(chain.ids))
    total = sum(len(chain.chosen) for chain in chains)
    optimizer.zero_grad()
    for part in np.array_split(np.arange(len(ordered)), min(parts, len(ordered))):
        some = [ordered[number] for number in part]
        ids, _ = padded([chain.ids for chain in some])
        chosen = [chain.chosen for chain in some]
        row = torch.tensor([number for number, found in enumerate(chosen) for _ in found])
        place, token = (torch.tensor([one[k] for found in chosen for one in found]) for k in (0, 1))
        before = torch.tensor([one[2] for found in chosen for one in found])
        credit = torch.tensor([chain.reward - statistics.mean(groups[chain.start[0]]) for chain in some])[row]
        logprobs = torch.log_softmax(model.logits(ids)[row, place - 1], -1)
        ratio = (logprobs.gather(1, token[:, None])[:, 0] - before).exp()
        gained = torch.minimum(ratio * credit, ratio.clamp(0.8, 1.28) * credit)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        (-(gained + 0.003 * entropy).sum() / total).backward()
    parameters = optimizer.param_groups[0]["params"]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


class Steps(TrainerCallback):
    """Seconds and trees of every optimizer step."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.began = 0.0
        self.seconds: list[float] = []
        self.trees: list[list[EpisodeTree]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Called once the generation is there, so it only marks the first step."""
        self.began = self.began or time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Takes the time."""
        now = time.process_time()
        self.seconds.append(now - self.began)
        self.trees.append(list(self.trainer.last_trees))
        self.began = time.process_time()


def train_ours(model: Any, tokenizer: Any, options: argparse.Namespace) -> Steps:
    """Makes optimizer steps of the demo's size."""
    demo, steps = DemoSettings(), Steps()
    with tempfile.TemporaryDirectory() as folder:
        args = TreeConfig(
            output_dir=folder,
            max_steps=options.steps + 1,
            per_device_train_batch_size=2 if options.small else demo.tasks_per_step // 2,
            gradient_accumulation_steps=2,
            num_rollouts=2 if options.small else 6,
            num_continuations=1 if options.small else 2,
            max_action_tokens=4 if options.small else 24,
            learning_rate=demo.learning_rate,
            lr_scheduler_type="constant",
            entropy_coef=0.003,
            epsilon_high=0.28,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            disable_tqdm=True,
            report_to=[],
        )
        steps.trainer = TreeTrainer(
            model,
            args,
            env=partial(MathVerifier, **DEMO_ENV_OPTIONS),
            train_tasks=demo_tasks(256, seed=2),
            processing_class=tokenizer,
        )
        steps.trainer.remove_callback(PrinterCallback)
        steps.trainer.add_callback(steps)
        steps.trainer.train()
    return steps


def train_bare(model: Any, generations: Sequence[Sequence[EpisodeTree]], rate: float) -> dict[str, list[float]]:
    """Does the same by hand; returns the seconds of each step's sampling, and of its update in so many parts."""
    bare, optimizer = BareModel(model), torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0)
    seconds: dict[str, list[float]] = {name: [] for name in ("sampling", *map(str, PARTS))}
    for trees in generations:
        chains = [chain for number, tree in enumerate(trees) for chain in chains_of(number, tree)]
        start = time.process_time()
        sample(bare, [chain for chain in chains if not chain.start[1]])
        if further := [chain for chain in chains if chain.start[1]]:
            sample(bare, further)
        seconds["sampling"].append(time.process_time() - start)
        for parts in PARTS:
            start = time.process_time()
            update(bare, chains, optimizer, parts)
            seconds[str(parts)].append(time.process_time() - start)
    return seconds


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns the seconds of a step, ours and bare, and what was done in them."""
    started = DemoSettings(demonstrations=1024, careful_updates=80, noisy_updates=60)
    if options.small:
        started = DemoSettings(demonstrations=200, careful_updates=2, noisy_updates=1)
    model, tokenizer = warm_start(started, demo_tasks(4, seed=1), progress=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = train_ours(model, tokenizer, options)
    model.load_state_dict(state)
    bare = {name: statistics.median(s[1:]) for name, s in train_bare(model, steps.trees, 5e-4).items()}
    sampling, ours = bare.pop("sampling"), statistics.median(steps.seconds[1:])
    parts = min(bare, key=lambda name: bare[name])
    tokens = [
        sum(len(n.action.token_ids or ()) for tree in trees for n in tree.nodes if n.action) for trees in steps.trees
    ]
    whole = sampling + bare[parts]
    return {
        "sampled_tokens": statistics.median(tokens[1:]),
        "bare_sampling": sampling,
        "bare_update": bare[parts],
        "bare_parts": int(parts),
        "bare": whole,
        "ours": ours,
        "ratio": ours / whole,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps that are measured")
    parser.add_argument("--small", action="store_true", help="little work, for tests: the numbers mean nothing")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    if options.small:
        options.steps = 1
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    found = measure(options)
    table = Table(title="a training step of the demo, seconds of one core")
    for column in ("sampled tokens", "bare: sampling", "bare: update", "bare", "ours", "ours / bare"):
        table.add_column(column, justify="right")
    names = ("bare_sampling", "bare_update", "bare", "ours")
    table.add_row(f"{found['sampled_tokens']:,.0f}", *(f"{found[k]:.3f}" for k in names), f"{found['ratio']:.2f}")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
