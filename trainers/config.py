"""Settings of `TreeTrainer`: TRL's, and the shape of the trees."""

import math
from dataclasses import dataclass, field
from typing import get_args

from trl import GRPOConfig

from agentenv.agents.chat import History
from agentenv.arrays import TreeArrays
from agentenv.credit import step_weights

from .options import check_options, check_types
from .trl_vllm import check_vllm

__all__ = ["TreeConfig", "check_args"]

_NAMES: dict[str, tuple[str, ...]] = {
    "predictor": ("text", "hidden"),
    "history": get_args(History),
    "loss_type": ("dapo", "bnpo", "dr_grpo", "cispo", "grpo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
}
"""Those that a setting may have. TRL looks at its own when the first loss is computed, after a whole generation."""

LAYOUTS = ("auto", "packed", "padded")

_PER_SEQUENCE = frozenset({"grpo", "sapo", "luspo", "vespo"})
"""Losses of TRL that normalize, or take the importance ratio of, whole sequences."""

PER_MICRO_BATCH = frozenset({"grpo", "sapo", "luspo", "bnpo"})
"""Losses of TRL that are means over the rows, or the tokens, of each micro-batch: what comes together changes them."""


@dataclass
class TreeConfig(GRPOConfig):
    """TRL's `GRPOConfig` with trees instead of independent completions.

    One row of TRL's batch is one task, and so one tree: `per_device_train_batch_size * steps_per_generation` tasks are
    sampled at once on each device, and the leaves of their trees are split into `steps_per_generation` micro-batches.

    The loss is TRL's: `loss_type`, `epsilon`, `epsilon_high`, `beta`, `entropy_coef`, `num_iterations`, ... Options of
    TRL's sampling and scoring, which this trainer does itself, are refused by name (`agentenv.trainers.options`). Four
    mean something special:

    - `num_generations` must be left out: it is the number of tasks sampled at once, which is the group that TRL checks
      its batch sizes against. Episodes per task are `num_rollouts` and `num_continuations`.
    - `max_completion_length` is the constant of `loss_type="dr_grpo"` (512 by default) and refused with other losses.
      Lengths are limited by `max_action_tokens`, `max_episode_tokens` and the environment's `max_steps`.
    - `disable_dropout` is true by default: what was sampled without dropout is trained without it.
    - losses per sequence (`grpo`, `sapo`, `luspo`, `vespo`, `importance_sampling_level="sequence"`) and
      `off_policy_mask_threshold` need `num_continuations=0`: a step that several sequences share has none of its own.
    """

    method = "trees"

    num_generations: int | None = field(default=None, metadata={"help": "Must be left out: see num_rollouts."})
    max_completion_length: int | None = field(
        default=None, metadata={"help": 'The constant of loss_type="dr_grpo", 512 by default; refused otherwise.'}
    )
    disable_dropout: bool = field(default=True, metadata={"help": "Train without dropout, as is sampled."})
    num_rollouts: int = field(default=8, metadata={"help": "Full episodes sampled from the root of each tree."})
    num_continuations: int = field(
        default=0,
        metadata={"help": "Further episodes per tree, continued in mid-episode from snapshots of earlier ones."},
    )
    eval_rollouts: int = field(
        default=1,
        metadata={
            "help": "Full episodes per task in evaluation; with more than 1, pass@1, pass@2, pass@4, ... are logged."
        },
    )
    step_weights: str = field(
        default="auto",
        metadata={
            "help": "What a step weighs in the loss: 'occupancy' (how often the policy itself would come through it), "
            "'graph' (the same, on merged states), 'counts' (episodes through it) or 'unique' (1). 'auto' is 'graph' "
            "where the allocator chooses by outcomes ('trace'), otherwise 'occupancy'."
        },
    )
    candidates: int = field(
        default=1,
        metadata={
            "help": "Candidate tasks among which an allocator with `roots` (trace) chooses, for each task of a "
            "generation; their budget of episodes stays num_rollouts per task of the generation."
        },
    )
    predictor: str = field(
        default="text",
        metadata={
            "help": "What allocators 'trace' and 'trace_unseen' predict success from: 'text' (hashed words and "
            "signatures) or 'hidden' (the policy's own hidden states at step boundaries)."
        },
    )
    staleness: int = field(
        default=0,
        metadata={
            "help": "Generations that are sampled ahead while weights are updated, and so the most by which the "
            "weights that sampled may be older than those that are trained; 0 samples and updates by turns."
        },
    )
    importance_cap: float = field(
        default=2.0,
        metadata={
            "help": "With staleness above 0, and with use_vllm, losses are multiplied by the ratio of a token's "
            "probability now to that when it was sampled, cut off here (truncated importance sampling)."
        },
    )
    max_action_tokens: int = field(default=256, metadata={"help": "Limit of the tokens of one action."})
    max_episode_tokens: int | None = field(
        default=None,
        metadata={"help": "An episode with this many tokens is truncated; the model's window by default."},
    )
    history: History = field(
        default="exact",
        metadata={
            "help": "What the model sees of its earlier actions: the tokens it sampled ('exact'), or what the chat "
            "template makes of them ('template'), which for many leaves out the reasoning of earlier turns."
        },
    )
    layout: str = field(
        default="auto",
        metadata={
            "help": "'packed' (shared prefixes are computed once), 'padded' (one row per leaf) or 'auto': packed where "
            "the attention of the model can be masked."
        },
    )
    max_packed_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens of a packed row; larger trees are cut. By default what costs least: attention grows "
            "with the square of a packed row's length, and a cut repeats the trunk."
        },
    )
    rollout_retries: int = field(
        default=2, metadata={"help": "How often a rollout that infrastructure broke starts again."}
    )
    max_broken_generations: int = field(
        default=3,
        metadata={"help": "Training stops with an error after so many generations in a row without a valid episode."},
    )
    save_trees_steps: int = field(
        default=0, metadata={"help": "Write the episode trees of every so many optimizer steps; 0 for never."}
    )
    allow_changes: bool = field(
        default=False, metadata={"help": "Resume a run with other settings than it has; refused by name otherwise."}
    )

    def __post_init__(self) -> None:
        check_types(self)
        least = {
            "num_rollouts": 1,
            "num_continuations": 0,
            "eval_rollouts": 1,
            "candidates": 1,
            "staleness": 0,
            "max_action_tokens": 1,
            "rollout_retries": 0,
            "max_broken_generations": 1,
            "save_trees_steps": 0,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                msg = f"{name} must be at least {bound}, got {getattr(self, name)}"
                raise ValueError(msg)
        if self.max_episode_tokens is not None and self.max_episode_tokens < 1:
            msg = f"max_episode_tokens must be at least 1 or None, got {self.max_episode_tokens}"
            raise ValueError(msg)
        self._check_layout()
        if self.step_weights != "auto":
            _check_weights(self.step_weights)
        for name, names in _NAMES.items():
            if getattr(self, name) not in names:
                msg = f"{name} must be {', '.join(map(repr, names[:-1]))} or {names[-1]!r}, got {getattr(self, name)!r}"
                raise ValueError(msg)
        self._check_sampling()
        check_options(self)
        check_vllm(self)
        self._check_loss()
        tasks = self._tasks_per_generation()
        for name, group in (("num_generations", tasks), ("num_generations_eval", 1)):
            if getattr(self, name) not in {None, group}:
                msg = f"{name} must be left out, got {getattr(self, name)}: episodes per task are num_rollouts"
                raise ValueError(msg)
        # TRL's group of rows that belong together: here a row is a task, and a generation belongs together.
        self.num_generations, self.num_generations_eval = tasks, 1
        super().__post_init__()

    def _check_sampling(self) -> None:
        if not 0 < self.temperature < math.inf:
            msg = f"temperature must be above 0 and finite, got {self.temperature}: greedy play explores nothing"
            raise ValueError(msg)
        if not 1 <= self.importance_cap < math.inf:
            msg = f"importance_cap must be at least 1 and finite, got {self.importance_cap}"
            raise ValueError(msg)
        for name in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                msg = f"{name} must be at least 0 and finite, got {getattr(self, name)}"
                raise ValueError(msg)

    def _check_layout(self) -> None:
        if self.layout not in LAYOUTS:
            msg = f"layout must be {', '.join(map(repr, LAYOUTS[:-1]))} or {LAYOUTS[-1]!r}, got {self.layout!r}"
            raise ValueError(msg)
        if self.max_packed_tokens is not None and (self.max_packed_tokens < 1 or self.layout == "padded"):
            msg = (
                "max_packed_tokens must be at least 1 or None, and None with layout='padded', got "
                f"{self.max_packed_tokens} with layout={self.layout!r}"
            )
            raise ValueError(msg)
        if self.layout == "packed" and self.loss_type in PER_MICRO_BATCH:
            msg = (
                f"layout must be 'auto' or 'padded' with loss_type={self.loss_type!r}, got 'packed': the loss is a "
                "mean over each micro-batch, and packing makes others"
            )
            raise ValueError(msg)

    def _check_loss(self) -> None:
        if self.loss_type == "dr_grpo":
            self.max_completion_length = self.max_completion_length or 512
        elif self.max_completion_length is not None:
            msg = (
                f"max_completion_length must be left out with loss_type={self.loss_type!r}, got "
                f"{self.max_completion_length}: set max_action_tokens or max_episode_tokens"
            )
            raise ValueError(msg)
        level = self.importance_sampling_level
        if self.num_continuations and self.off_policy_mask_threshold is not None:
            msg = (
                "off_policy_mask_threshold must be None with num_continuations above 0, got "
                f"{self.off_policy_mask_threshold}: it drops whole sequences, and with one the steps that others share"
            )
            raise ValueError(msg)
        if self.num_continuations and (self.loss_type in _PER_SEQUENCE or level == "sequence"):
            msg = (
                f"num_continuations must be 0 with loss_type={self.loss_type!r} and "
                f"importance_sampling_level={level!r}, got {self.num_continuations}: a step that several "
                "sequences share has none of its own; take 'dapo', 'bnpo', 'dr_grpo' or 'cispo' at token level"
            )
            raise ValueError(msg)

    def _tasks_per_generation(self) -> int:
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        tasks = self.generation_batch_size or self.per_device_train_batch_size * steps
        if tasks < 2:
            msg = (
                "per_device_train_batch_size * steps_per_generation (tasks sampled at once) must be at least 2, "
                f"got {tasks}"
            )
            raise ValueError(msg)
        return tasks


def check_args(args: object, kind: type[TreeConfig]) -> None:
    """Refuses settings that are another trainer's.

    Args:
        args: the settings.
        kind: the trainer's.

    Raises:
        TypeError: they are of another kind.
    """
    if not isinstance(args, kind) or args.method != kind.method:
        msg = f"args must be a {kind.__name__}, got {type(args).__name__}: each trainer has settings of its own"
        raise TypeError(msg)


def _check_weights(name: str) -> None:
    try:
        step_weights(TreeArrays.build([-1, 0], [0.0, 1.0]), name)
    except ValueError as error:
        msg = f"step_{error}"
        raise ValueError(msg) from None
