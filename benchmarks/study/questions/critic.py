"""Question 3: SR-PPO, a critic in place of a group."""

import numpy as np

from benchmarks.study.cells import Runs

from .question import TrainingQuestion, markdown

TRUST = "critic/trust"


class Critic(TrainingQuestion):
    """Adds how far the critic was believed while the policy learned: where it was not, k and lambda do nothing."""

    def more(self, found: Runs) -> str:
        """Returns the trust in each quarter of training, the median over runs."""
        runs: dict[tuple[str, str], list[list[float]]] = {}
        for cell, entry in found:
            if TRUST in entry["quarters"] and cell.config["options"].get("critic_guard", True):
                runs.setdefault((cell.setting, cell.method), []).append(entry["quarters"][TRUST])
        rows = [
            [*names, *(f"{trust:.2f}" for trust in np.median(quarters, axis=0))] for names, quarters in runs.items()
        ]
        head = ["setting", "method", "first quarter", "second", "third", "last"]
        title = (
            "How far a guarded critic was believed, 0 to 1 (median over runs). At 0 its k and lambda do nothing, nor "
            "do they once all is learned:"
        )
        return f"{title}\n\n{markdown([head, *rows])}" if rows else ""


QUESTION = Critic(
    number=3,
    title="Is one rollout per prompt enough?",
    asks="SR-PPO by k, lambda and its protections against GRPO at equal tokens: success, pass@1 and pass@64 at the "
    "end, calibration of the critic in the last quarter, and what makes it collapse. Where it does not say otherwise, "
    "the critic first learns from 128 episodes, which the budget pays; the trainer's default is k adaptive without "
    "that warm-up. In tables all prompts are one task: single rollouts are a group there, as a user's never are.",
    baseline="GRPO",
    methods=(
        "GRPO", "SR-PPO, k = 1", "SR-PPO, k = 4", "SR-PPO, k = 16", "SR-PPO, k = 64", "SR-PPO, k adaptive",
        "SR-PPO, lambda 0", "SR-PPO, lambda 0.5", "SR-PPO, lambda 1", "SR-PPO, no warm-up", "SR-PPO, the default",
        "SR-PPO, lambda 0, no guard", "SR-PPO, lambda 0, no guard, no warm-up",
    ),
    settings=(
        "irrecoverable-hard", "math", "math-hard", "sokoban", "sokoban-hard", "misleading", "misleading-hard",
        "decisive",
    ),
    core_methods=(
        "GRPO", "SR-PPO, k = 1", "SR-PPO, k adaptive", "SR-PPO, no warm-up", "SR-PPO, the default",
        "SR-PPO, lambda 0, no guard, no warm-up",
    ),
    core_settings=("irrecoverable-hard", "misleading", "math"),
    metrics=("pass@1", "pass@64"),
    quarters=("critic/brier", "critic/ece", "critic/trust", "entropy"),
    config={"attempts": 64, "attempt_tasks": 32},
)  # fmt: skip
