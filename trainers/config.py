"""Settings of `TreeTrainer`: TRL's, and the shape of the trees."""

from dataclasses import dataclass, field

from trl import GRPOConfig

__all__ = ["TreeConfig"]


@dataclass
class TreeConfig(GRPOConfig):
    """TRL's `GRPOConfig` with trees instead of independent completions.

    One row of TRL's batch is one task, and so one tree: `per_device_train_batch_size * steps_per_generation` tasks are
    sampled at once on each device, and the leaves of their trees are split into `steps_per_generation` micro-batches.
    `num_generations` is not used (it is 1 per tree): set `num_rollouts` and `num_continuations`.

    The loss is TRL's: `loss_type`, `epsilon`, `epsilon_high`, `beta`, `entropy_coef`, `num_iterations`, ...
    """

    num_rollouts: int = field(default=8, metadata={"help": "Full episodes sampled from the root of each tree."})
    num_continuations: int = field(
        default=0,
        metadata={"help": "Further episodes per tree, continued in mid-episode from snapshots of earlier ones."},
    )
    max_action_tokens: int = field(default=256, metadata={"help": "Limit of the tokens of one action."})
    max_episode_tokens: int | None = field(
        default=None,
        metadata={"help": "An episode with this many tokens is truncated; the model's window by default."},
    )
    rollout_retries: int = field(
        default=2, metadata={"help": "How often a rollout that infrastructure broke starts again."}
    )
    save_trees_steps: int = field(
        default=0, metadata={"help": "Write the episode trees of every so many optimizer steps; 0 for never."}
    )

    def __post_init__(self) -> None:
        for name, least in (("num_rollouts", 1), ("num_continuations", 0), ("max_action_tokens", 1)):
            if getattr(self, name) < least:
                msg = f"{name} must be at least {least}, got {getattr(self, name)}"
                raise ValueError(msg)
        if self.top_p != 1.0 or self.top_k not in {0, None, -1} or self.min_p:
            msg = (
                f"top_p must be 1, top_k 0 and min_p unset, got {self.top_p}, {self.top_k} and {self.min_p}: the loss "
                "needs the probabilities of the distribution that was sampled from"
            )
            raise ValueError(msg)
        if self.use_vllm:
            msg = "use_vllm must be False, got True: TreeTrainer samples with the training model itself"
            raise ValueError(msg)
        # TRL refuses a single generation, in this method only; the trainer itself is built for it.
        self.num_generations = self._tasks_per_generation()
        self.num_generations_eval = 1
        super().__post_init__()
        self.num_generations = 1

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
