"""Question 5: does forking pay?"""

from benchmarks.study.cells import Runs

from .comparing import margin_of, markdown
from .question import ALL, TrainingQuestion

PAIRS = {
    "graph values": ("TRACE, a quarter", "graph values"),
    "Dr.GRPO": ("Dr.GRPO, TRACE, a quarter", "RLOO"),
    "RTMC": ("RTMC, TRACE, a quarter", "RTMC"),
}
"""With and without forks, by who reads both. Without forks Dr.GRPO is RLOO up to a factor."""


class Forking(TrainingQuestion):
    """Adds what forks are worth to each reader of trees."""

    def more(self, found: Runs, tried: Runs) -> str:
        """Returns the margin of a quarter in forks over none, under each estimator."""
        del tried
        rows = [[s, *(margin_of(found, *pair, s) for pair in PAIRS.values())] for s in self.settings]
        rows = [row for row in rows if any(row[1:])]
        title = (
            "A quarter of the episodes in forks less none, by who reads the trees (what a user should do stands in "
            "`docs/which_method.md`):"
        )
        return f"{title}\n\n{markdown([['setting', *PAIRS], *rows])}" if rows else ""


QUESTION = Forking(
    number=5,
    title="Does forking pay?",
    asks="At equal tokens, where a continuation from a deep prefix is cheaper than an episode: easy and hard tasks, "
    "shallow and deep forks, a quarter and a half of the episodes (uniform/uniform: half at random), what forked steps "
    "weigh, and who reads the trees: graph values, where no other is named. All are compared with graph values without "
    "forks; for the other readers see the table of readers.",
    baseline="graph values",
    methods=(
        "graph values", "TRACE, a quarter", "random, a quarter", "TRACE, half", "uniform/uniform",
        "TRACE unseen, a quarter",
        "shallow, a quarter", "deep, a quarter", "TRACE, a quarter, occupancy", "TRACE, a quarter, counts",
        "TRACE, a quarter, unique", "GRPO", "RLOO", "Dr.GRPO, TRACE, a quarter", "RTMC", "RTMC, TRACE, a quarter",
    ),
    settings=ALL,
    core_methods=(
        "graph values", "TRACE, a quarter", "random, a quarter", "TRACE, half", "RLOO", "Dr.GRPO, TRACE, a quarter",
        "RTMC", "RTMC, TRACE, a quarter",
    ),
    core_settings=("irrecoverable-hard", "decisive-hard", "aliased-hard", "math-hard"),
    quarters=("effective_ratio",),
)  # fmt: skip
