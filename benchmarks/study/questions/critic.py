"""Question 3: SR-PPO, a critic in place of a group."""

import numpy as np

from benchmarks.study.cells import Runs
from benchmarks.study.settings import SETTINGS

from .comparing import margin_of, markdown
from .question import TrainingQuestion

TRUST = "critic/trust"


class Critic(TrainingQuestion):
    """Adds what collapses, and how far the critic was believed: where it was not, k and lambda do nothing."""

    def more(self, found: Runs, tried: Runs) -> str:
        """Returns the trust in each quarter of training, the median over runs; and the collapses by learning rate."""
        return "\n\n".join(filter(None, [self._attempts(found), self._trust(found), self._collapses(tried)]))

    def _attempts(self, found: Runs) -> str:
        metrics = ("pass@1", "pass@64")
        settings = [name for name in self.settings if SETTINGS[name].plays]
        rows = [
            [name, method, *(margin_of(found, method, self.baseline, name, metric=metric) for metric in metrics)]
            for name in settings
            for method in self.methods
            if method != self.baseline
        ]
        rows = [row for row in rows if any(row[2:])]
        title = (
            f"One attempt and 64 at the end, less {self.baseline}, difference of the medians (in tables pass@64 is 1 "
            "for all, and says nothing):"
        )
        return f"{title}\n\n{markdown([['setting', 'method', *metrics], *rows])}" if rows else ""

    def _collapses(self, tried: Runs) -> str:
        counts: dict[tuple[str, str], dict[float, list[bool]]] = {}
        for cell, entry in tried:
            metrics = entry["metrics"]
            fallen = metrics["final"] < metrics["start"] / 2
            counts.setdefault((cell.setting, cell.method), {}).setdefault(cell.rate, []).append(fallen)
        rows = [
            [*names, "; ".join(f"{sum(by[rate])} of {len(by[rate])} at {rate:g}" for rate in sorted(by))]
            for names, by in counts.items()
            if any(map(any, by.values()))
        ]
        title = (
            "Collapses: runs that ended with less than half of the success that they began with, of all that were "
            "tried, those that tuned among them, by learning rate; methods that are not named had none:"
        )
        return f"{title}\n\n{markdown([['setting', 'method', 'collapsed'], *rows])}" if rows else ""

    def _trust(self, found: Runs) -> str:
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
    "the critic first learns from 128 episodes, which the budget pays, k is 1 and lambda 0.95; the trainer's default "
    "is an adaptive k of at most 4 without that warm-up. In tables all prompts are one task: single rollouts are a "
    "group there, as a user's never are.",
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
