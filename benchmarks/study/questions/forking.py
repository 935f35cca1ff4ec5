"""Question 5: does forking pay?"""

from collections.abc import Sequence
from typing import Any

from benchmarks.study.cells import Cell

from .question import ALL, TrainingQuestion, margin_of, markdown, scores_of

PAIRS = {
    "graph values": ("TRACE, a quarter", "no forks"),
    "GRPO": ("GRPO, TRACE, a quarter", "RLOO"),
    "RTMC": ("RTMC, TRACE, a quarter", "RTMC"),
}
"""With and without forks, by who reads both. Dr.GRPO, which reads the forked trees, is RLOO up to a factor."""


class Forking(TrainingQuestion):
    """Adds what forks are worth to each reader of trees."""

    def more(self, found: Sequence[tuple[Cell, dict[str, Any]]]) -> str:
        """Returns the margin of a quarter in forks over none, under each estimator."""
        means = scores_of(found, "mean")
        rows = [[s, *(margin_of(means, *pair, s) for pair in PAIRS.values())] for s in self.settings]
        rows = [row for row in rows if any(row[1:])]
        title = "A quarter of the episodes in forks less none, by who reads the trees:"
        return f"{title}\n\n{markdown([['setting', *PAIRS], *rows])}" if rows else ""


QUESTION = Forking(
    number=5,
    title="Does forking pay?",
    asks="At equal tokens, where a continuation from a deep prefix is cheaper than an episode: easy and hard tasks, "
    "shallow and deep forks, a quarter and a half of the episodes, what forked steps weigh, and who reads the trees.",
    baseline="no forks",
    methods=(
        "no forks", "TRACE, a quarter", "random, a quarter", "TRACE, half", "random, half", "TRACE unseen, a quarter",
        "shallow, a quarter", "deep, a quarter", "TRACE, a quarter, occupancy", "TRACE, a quarter, counts",
        "TRACE, a quarter, unique", "GRPO", "RLOO", "GRPO, TRACE, a quarter", "RTMC", "RTMC, TRACE, a quarter",
    ),
    settings=ALL,
    core_methods=(
        "no forks", "TRACE, a quarter", "random, a quarter", "TRACE, half", "RLOO", "GRPO, TRACE, a quarter", "RTMC",
        "RTMC, TRACE, a quarter",
    ),
    core_settings=("irrecoverable-hard", "decisive-hard", "aliased-hard", "math-hard"),
    quarters=("effective_ratio",),
)  # fmt: skip
