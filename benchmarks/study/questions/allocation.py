"""Question 4: TRACE's two stages, alone and together."""

import numpy as np

from benchmarks.study.cells import MIXED, Runs

from .comparing import markdown, median_of
from .question import ALL, TrainingQuestion

BRIER = "predictor/brier"


class Allocation(TrainingQuestion):
    """Adds what predictions are worth beside the share of successes alone."""

    def more(self, found: Runs, tried: Runs) -> str:
        """Returns by how much each predictor's Brier score is below that of a constant, quarter by quarter."""
        del tried
        runs: dict[tuple[str, str], list[list[float]]] = {}
        for cell, entry in found:
            if BRIER in (quarters := entry["quarters"]):
                share = np.array(quarters["success"])
                gain = share * (1 - share) - np.array(quarters[BRIER])
                runs.setdefault((cell.setting, cell.method), []).append(gain.tolist())
        rows = [[*names, *map(median_of, zip(*gains, strict=True))] for names, gains in runs.items()]
        title = (
            "How good predictions of success are (what they cost is in the core seconds below): Brier score of always "
            "saying that quarter's share of successes, less the predictor's; above 0 it knows more than that, below "
            "less:"
        )
        head = ["setting", "method", "first quarter", "second", "third", "last"]
        return f"{title}\n\n{markdown([head, *rows])}" if rows else ""


QUESTION = Allocation(
    number=4,
    title="What do TRACE's two stages buy?",
    asks="Effective ratio (the share of trees with both outcomes) and success for tasks and prefixes that are chosen "
    "evenly or by prediction, at equal tokens, on easy and hard pools; against PCL and VIP at the root, dynamic "
    "sampling, which goes on to fresh tasks until enough groups are mixed, "
    "and random expansion; and by what forked steps weigh. All trees are read by graph values, alone where "
    "nothing is forked.",
    baseline="uniform/uniform",
    methods=(
        "uniform/uniform", "active/active", "active/uniform", "uniform/active", "active roots by PCL",
        "active roots by VIP", "dynamic sampling", "graph values",
        "TRACE, a pool of 4", "TRACE, a quarter, occupancy", "TRACE, a quarter, counts", "TRACE, a quarter, unique",
    ),
    settings=ALL,
    core_methods=("uniform/uniform", "active/uniform", "uniform/active", "active/active", "dynamic sampling"),
    core_settings=("math-hard", "irrecoverable-hard"),
    quarters=("effective_ratio", MIXED, BRIER),
)  # fmt: skip
