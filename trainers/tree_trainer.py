"""`TreeTrainer`: TRL's GRPO on episode trees, with credit per step.

It differs from `trl.GRPOTrainer` in four things, all inside one overridden method:

1. each task grows an episode tree in a branching environment (`num_rollouts` full episodes, `num_continuations` more
   from snapshots taken in mid-episode) instead of a group of independent completions;
2. an estimator turns the tree into one advantage per step, RTMC by default;
3. every step's tokens carry their own advantage, `[B, L]` instead of `[B]`;
4. shared prefixes are trained once.

Loss, clipping, KL, optimizer, checkpoints, logging and distribution are TRL's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from typing_extensions import override

from agentenv.agents import TransformersAgent
from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages, rtmc_advantages
from agentenv.env import Env
from agentenv.registry import make
from agentenv.rollout import Rollout, derive_seed
from agentenv.tree import Anchor, EpisodeTree

from .config import TreeConfig
from .rows import Row, pad_rows, tree_rows
from .run_folder import RunFolder

__all__ = ["Allocator", "Estimator", "TreeTrainer", "spread_evenly"]

Estimator = Callable[[TreeArrays], StepAdvantages]
"""Turns trees into step advantages, e.g. `functools.partial(rtmc_advantages, discount=1.0)`."""

Allocator = Callable[[Sequence[EpisodeTree], int, np.random.Generator], list[Anchor]]
"""Chooses where to spend a budget of continuations, given the trees so far; `agentenv.credit` has rules to build on."""


def spread_evenly(trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
    """Gives every tree the same number of continuations, from nodes drawn uniformly among those that can go on.

    Args:
        trees: with snapshots.
        budget: continuations in all; what does not divide by the number of trees is not spent.
        rng: draws the nodes.
    """
    anchors: list[Anchor] = []
    for i, tree in enumerate(trees):
        if not tree.snapshots:
            continue
        drawn = rng.choice(sorted(tree.snapshots), size=budget // len(trees))
        nodes, counts = np.unique(drawn, return_counts=True)
        anchors += [Anchor(i, int(node), int(count)) for node, count in zip(nodes, counts, strict=True)]
    return anchors


class TreeTrainer(GRPOTrainer):
    """Trains a causal language model as an agent in a branching environment.

    Args:
        model: the model, or a name or folder to load it from.
        args: the settings.
        env: a registered id, an environment class, or a function that makes environments.
        train_tasks: the tasks to train on; whatever `reset(options={"task": ...})` accepts.
        eval_tasks: held-out tasks for `evaluate`; one episode each, always with the same seeds.
        estimator: turns trees into step advantages.
        allocator: chooses the nodes that receive the `num_continuations` per tree.
        processing_class: the tokenizer, with a chat template; loaded with the model by default.
        callbacks: as for `transformers.Trainer`.
        optimizers: as for `transformers.Trainer`.
        peft_config: as for `GRPOTrainer`.

    Attributes:
        last_trees: the trees of the last generation, on this process.

    Raises:
        ValueError: there are fewer tasks than one generation needs.
        ModelError: the tokenizer has no chat template.
    """

    args: TreeConfig

    def __init__(  # noqa: PLR0913  TRL's arguments, and ours
        self,
        model: str | PreTrainedModel,
        args: TreeConfig,
        *,
        env: str | Callable[[], Env],
        train_tasks: Sequence[Any],
        eval_tasks: Sequence[Any] | None = None,
        estimator: Estimator = rtmc_advantages,
        allocator: Allocator = spread_evenly,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
    ) -> None:
        needed = cast("int", args.generation_batch_size)
        if len(train_tasks) < needed:
            msg = f"train_tasks must hold at least one generation of {needed} tasks, got {len(train_tasks)}"
            raise ValueError(msg)
        if args.beta and peft_config is not None:
            msg = f"beta must be 0 with peft_config, got {args.beta}: no reference model is kept beside an adapter"
            raise ValueError(msg)
        self._tasks = {"train": train_tasks, "eval": eval_tasks or ()}
        self._make_env = (lambda: make(env)) if isinstance(env, str) else env
        self._estimator = estimator
        self._allocator = allocator
        self._agent: TransformersAgent | None = None
        self._rollouts: dict[str, Rollout] = {}
        self.last_trees: list[EpisodeTree] = []
        super().__init__(
            model=model,
            reward_funcs=_environment_reward,
            args=args,
            train_dataset=_task_numbers(len(train_tasks)),
            eval_dataset=_task_numbers(len(eval_tasks)) if eval_tasks else None,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        description = {
            "env": _name(env),
            "estimator": _name(estimator),
            "allocator": _name(allocator),
            "train_tasks": len(train_tasks),
        }
        self.add_callback(RunFolder(self, description, save_trees_steps=args.save_trees_steps))

    @override
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if cast("torch.nn.Module", self.model).training else "eval"
        tasks = [self._tasks[mode][row["task"]] for row in inputs]
        self.last_trees = self._grow(tasks, mode)
        arrays = TreeArrays.from_trees(self.last_trees)
        credit = self._estimator(arrays)
        sizes = np.cumsum([len(tree) for tree in self.last_trees])[:-1]
        rows = [
            row
            for tree, advantages in zip(self.last_trees, np.split(credit.advantages, sizes), strict=True)
            for row in tree_rows(tree, advantages, train_truncated=not self.mask_truncated_completions)
        ]
        batch = self._collate(rows, mode)
        self._record(arrays, credit, batch, mode)
        return batch

    def _grow(self, tasks: Sequence[Any], mode: str) -> list[EpisodeTree]:
        """Samples one tree per task with the current weights."""
        args = self.args
        continuations = args.num_continuations if mode == "train" else 0
        # Evaluation repeats the same random numbers, so that its curve shows the policy and not the dice.
        step = self.state.global_step if mode == "train" else "eval"
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model:
            rollout = self._rollout(model, mode, keep_snapshots=continuations > 0)
            rollout.seed = derive_seed(args.seed, step, self.accelerator.process_index)
            trees = rollout.grow(tasks, args.num_rollouts if mode == "train" else 1)
            if continuations:
                rng = np.random.default_rng(rollout.seed)
                rollout.extend(trees, self._allocator(trees, continuations * len(trees), rng))
        return trees

    def _rollout(self, model: Any, mode: str, *, keep_snapshots: bool) -> Rollout:
        if self._agent is None or self._agent.model is not model:
            self._agent = TransformersAgent(
                model,
                cast("PreTrainedTokenizerBase", self.processing_class),
                max_new_tokens=self.args.max_action_tokens,
                temperature=self.args.temperature,
            )
        self._agent.weights_changed()  # by the optimizer, or by a checkpoint, since the generation before
        if mode not in self._rollouts:
            self._rollouts[mode] = Rollout(
                self._make_env,
                self._agent,
                retries=self.args.rollout_retries,
                keep_snapshots=keep_snapshots,
                max_tokens=self.args.max_episode_tokens or _window(model),
            )
        rollout = self._rollouts[mode]
        rollout.agent = self._agent
        return rollout

    def _collate(self, rows: Sequence[Row], mode: str) -> dict[str, Any]:
        """Pads the rows, on every process to the same number, divisible into micro-batches."""
        parts = cast("int", self.args.steps_per_generation) if mode == "train" else 1
        most = max(*gather_object([len(rows)]), 1)
        batch = pad_rows(
            rows,
            pad_token_id=cast("Any", self.processing_class).pad_token_id,
            count=-(-most // parts) * parts,
            multiple_of=cast("int | None", self.pad_to_multiple_of),
        )
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
        batch["num_items_in_batch"] = self._gather(batch["tool_mask"].sum()).sum()
        if self.beta:
            batch["ref_per_token_logps"] = self._reference_logprobs(batch)
        return batch

    @torch.no_grad()
    def _reference_logprobs(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities `[B, L]` of the completions under the reference model, for the KL term."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        width = batch["completion_ids"].size(1)
        size, parts = self.args.per_device_train_batch_size, list[torch.Tensor]()
        reference: Any = self.ref_model
        for part, part_mask in zip(ids.split(size), mask.split(size), strict=True):
            logits = reference(input_ids=part, attention_mask=part_mask).logits[:, -width - 1 : -1]
            logprobs = torch.log_softmax(logits.float() / self.temperature, dim=-1)
            parts.append(logprobs.gather(2, part[:, -width:, None]).squeeze(2))
        return torch.cat(parts)

    def _record(self, arrays: TreeArrays, credit: StepAdvantages, batch: Mapping[str, torch.Tensor], mode: str) -> None:
        """Adds what happened to TRL's metrics, averaged over processes."""
        values = _episode_metrics(self.last_trees) | _credit_metrics(arrays, credit)
        values["tree/rows"] = float(len(batch["completion_ids"]))
        names, numbers = list(values), torch.tensor(list(values.values()), device=self.accelerator.device)
        means = self._gather(numbers).view(-1, len(names)).nanmean(dim=0).tolist()
        for name, value in zip(names, means, strict=True):
            self._metrics[mode][name].append(value)
        if mode == "train":
            tokens = batch["prompt_mask"].sum() + batch["completion_mask"].sum()
            self.state.num_input_tokens_seen += int(self._gather(tokens).sum())
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]

    def _gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.accelerator.gather(tensor))

    def close(self) -> None:
        """Closes the environments. May be called twice; training opens them again."""
        for rollout in self._rollouts.values():
            rollout.close()


def _environment_reward(**_: Any) -> list[float | None]:
    """Stands in for TRL's reward functions: TRL asks for one, and rewards come from the environment."""
    msg = "rewards come from the environment; this function is never called"
    raise RuntimeError(msg)


def _name(value: Any) -> str:
    """How to say in a file which function, class or id was given."""
    if isinstance(value, partial):
        arguments = [*map(repr, value.args), *(f"{k}={v!r}" for k, v in value.keywords.items())]
        return f"{_name(value.func)}({', '.join(arguments)})"
    return value if isinstance(value, str) else f"{value.__module__}.{value.__qualname__}"


def _task_numbers(count: int) -> Dataset:
    return Dataset.from_dict({"prompt": [""] * count, "task": list(range(count))})


def _window(model: Any) -> int | None:
    return getattr(model.config, "max_position_embeddings", None)


def _episode_metrics(trees: Sequence[EpisodeTree]) -> dict[str, float]:
    """Means over the episodes that count, and how many broke."""
    groups = [[(tree, leaf, tree.episode_return(leaf)) for leaf in tree.leaves()] for tree in trees]
    episodes = [(tree, leaf, value) for group in groups for tree, leaf, value in group if value is not None]
    returns = np.array([value for *_, value in episodes] or [np.nan])
    spread = [np.ptp([v for *_, v in group if v is not None] or [0.0]) for group in groups]
    steps = [len(tree.path(leaf)) - 1 for tree, leaf, _ in episodes] or [np.nan]
    cut = [tree.nodes[leaf].truncated for tree, leaf, _ in episodes] or [np.nan]
    return {
        "reward": float(returns.mean()),
        "reward_std": float(returns.std()),
        "success": float((returns > 0).mean()) if episodes else np.nan,
        "frac_reward_zero_std": float(np.mean([value == 0 for value in spread])),
        "episode/steps": float(np.mean(steps)),
        "episode/truncated": float(np.mean(cut)),
        "tree/leaves": float(np.mean([len(group) for group in groups])),
        "tree/failed": float(sum(value is None for group in groups for *_, value in group)),
    }


def _credit_metrics(arrays: TreeArrays, credit: StepAdvantages) -> dict[str, float]:
    steps = ~arrays.is_root & arrays.valid
    advantages = credit.advantages[steps]
    if not advantages.size:
        return {"credit/std": np.nan, "credit/frac_nonzero": np.nan}
    return {
        "credit/std": float(advantages.std()),
        "credit/frac_nonzero": float((np.abs(advantages) > 1e-6).mean()),
    }
