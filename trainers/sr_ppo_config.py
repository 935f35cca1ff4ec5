"""Settings of `SRPPOTrainer`: those of `TreeTrainer`, one rollout per prompt, and the critic's."""

import math
from collections.abc import Set
from dataclasses import dataclass, field, fields

from .config import TreeConfig
from .options import check_types

__all__ = ["SRPPOConfig"]

_LEAST = {"critic_warmup": 0, "critic_epochs": 1, "critic_minibatches": 1, "critic_hidden": 1, "critic_record": 32}

_CREDIT = frozenset({"k", "k_schedule", "k_final", "decay", "prompt_weighted", "critic_guard"})
"""What says how the critic's predictions become credit."""


@dataclass
class SRPPOConfig(TreeConfig):
    """`TreeConfig` with one rollout per prompt and a critic of tokens.

    What keeps a critic that knows nothing from steering the policy is `critic_guard`: it is believed only as far as
    outcomes have confirmed it (`TrackRecord.trust`), whatever `decay` and `k` are:

        decay_now = 1 - trust (1 - decay)          k_now = 1 + trust (k - 1)
        credit = trust (credit by the critic) + (1 - trust) (outcome - success of the generation's other prompts)

    so that without a confirmed critic it is REINFORCE with the mean of other prompts as baseline. An unconfirmed critic
    would cost no bias as a baseline, but variance: one that expects too much makes every failure push. What
    collapses without the guard, `docs/study.md` counts (question 3). Nothing is gained by letting the critic learn
    first: the episodes of a `critic_warmup` are lost to the policy. Without the guard, warm it up.

    With `closed_loop` the critic does not give the credit: it predicts where outcomes are mixed, TRACE continues
    episodes there, RTMC reads the realized trees, and the critic learns from them. Set `num_rollouts` and
    `num_continuations` then.
    """

    method = "sr_ppo"

    num_rollouts: int = field(default=1, metadata={"help": "Full episodes per prompt."})
    k: float = field(default=4.0, metadata={"help": "Attempts of Pass@k, at least 1; see k_schedule."})
    k_schedule: str = field(
        default="adaptive",
        metadata={
            "help": "'adaptive' (the k at which the best of k attempts solves half of the prompts, at most k), "
            "'constant', or 'geometric' (from k at the first step to k_final at the last)."
        },
    )
    k_final: float = field(default=1.0, metadata={"help": "Attempts at the last step of k_schedule='geometric'."})
    decay: float = field(
        default=0.95,
        metadata={
            "help": "Lambda, per token: 0 credits a token with the change of value across it, 1 with outcome - value."
        },
    )
    prompt_weighted: bool = field(
        default=False,
        metadata={"help": "Pass@k as one weight per prompt, k (1 - p)^(k - 1), not as the value of every prefix."},
    )
    critic_guard: bool = field(
        default=True,
        metadata={"help": "Believe the critic only as far as outcomes confirmed it; off, decay and k hold at once."},
    )
    critic_warmup: int = field(
        default=0,
        metadata={
            "help": "Episodes that the critic alone learns from, before the policy's first update: some hundred where "
            "critic_guard is off; with it they are lost."
        },
    )
    critic_learning_rate: float = field(default=1e-3, metadata={"help": "Of the critic's AdamW; constant."})
    critic_epochs: int = field(default=2, metadata={"help": "The critic's passes over each generation."})
    critic_minibatches: int = field(default=4, metadata={"help": "The critic's updates per pass."})
    critic_hidden: int = field(default=64, metadata={"help": "Width of the hidden layer of the critic's head."})
    critic_record: int = field(
        default=256, metadata={"help": "Last episodes by which the critic's calibration is judged."}
    )
    closed_loop: bool = field(
        default=False, metadata={"help": "The critic chooses where TRACE continues episodes; RTMC gives the credit."}
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name, bound in _LEAST.items():
            if getattr(self, name) < bound:
                msg = f"{name} must be at least {bound}, got {getattr(self, name)}"
                raise ValueError(msg)
        for name in ("k", "k_final"):
            value = getattr(self, name)
            if not 1 <= value < math.inf:
                msg = (
                    f"{name} must be at least 1 and finite, got {value!r}: a critic gives every prefix some chance, so "
                    "all would be reachable; reachability_advantages reads it from trees"
                )
                raise ValueError(msg)
        if self.k_schedule not in {"adaptive", "constant", "geometric"}:
            msg = f"k_schedule must be 'adaptive', 'constant' or 'geometric', got {self.k_schedule!r}"
            raise ValueError(msg)
        if not 0.0 <= self.decay <= 1.0:
            msg = f"decay must be in [0, 1], got {self.decay!r}"
            raise ValueError(msg)
        if not 0.0 < self.critic_learning_rate < math.inf:
            msg = f"critic_learning_rate must be above 0 and finite, got {self.critic_learning_rate!r}"
            raise ValueError(msg)
        self._check_combinations()
        super().__post_init__()

    def _check_combinations(self) -> None:
        if self.k_schedule == "geometric" and self.max_steps <= 0:
            msg = f"max_steps must be set with k_schedule='geometric', got {self.max_steps}: it ends at the last step"
            raise ValueError(msg)
        if self.closed_loop:
            self._refuse(_CREDIT, "closed_loop, where RTMC gives the credit")
        elif self.k_schedule != "geometric":
            self._refuse({"k_final"}, f"k_schedule={self.k_schedule!r}")
        if self.num_continuations and not self.closed_loop:
            msg = (
                f"num_continuations must be 0, got {self.num_continuations}: credit by differences of values needs one "
                "outcome per token; set closed_loop, or train with TreeTrainer"
            )
            raise ValueError(msg)
        if self.closed_loop and (self.num_continuations < 1 or self.num_rollouts < 2):
            msg = (
                f"num_rollouts must be at least 2 and num_continuations at least 1 with closed_loop, got "
                f"{self.num_rollouts} and {self.num_continuations}: TRACE spends both"
            )
            raise ValueError(msg)
        if self.closed_loop and self.staleness:
            msg = (
                f"staleness must be 0 with closed_loop, got {self.staleness}: the critic that chooses where to sample "
                "is trained meanwhile"
            )
            raise ValueError(msg)

    def _refuse(self, ignored: Set[str], where: str) -> None:
        for one in fields(self):
            if one.name in ignored and getattr(self, one.name) != one.default:
                msg = f"{one.name} must be left out with {where}, got {getattr(self, one.name)!r}"
                raise ValueError(msg)
