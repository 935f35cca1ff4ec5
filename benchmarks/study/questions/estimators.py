"""Question 2: RTMC against others, what its smoothing is worth, and where its margin grows."""

from collections.abc import Sequence
from functools import partial

from benchmarks.study.cells import Runs
from benchmarks.study.methods import ENTROPY, SMOOTHING, smoothed

from .comparing import margin_of, markdown
from .question import ALL, TrainingQuestion

REGIMES = {
    "decisive-short": "6 steps, decided by 1 action in 20",
    "decisive-hard": "12 steps, 1 in 20",
    "decisive-long": "24 steps, 1 in 20",
    "decisive": "12 steps, 3 in 10",
    "decisive-rare": "12 steps, 1 in 50",
}
"""Settings that differ in how long episodes are, or in how rare the decisive action is."""

SIZES = (4, 16)
"""Of groups, beside 8."""


class Estimators(TrainingQuestion):
    """Adds where the margin over GRPO grows."""

    def more(self, found: Runs, tried: Runs) -> str:
        """Returns the margins over GRPO by horizon, rarity and size of groups."""
        del tried
        margin = partial(margin_of, found)
        lines: list[Sequence[str]] = [["setting", "groups of", "RTMC less GRPO", "graph values less GRPO"]]
        for setting, said in REGIMES.items():
            lines.append([said, "8", *(margin(m, "GRPO", setting) for m in ("RTMC", "graph values"))])
        for setting in self.settings:
            for size in SIZES:
                gap = margin(f"RTMC, groups of {size}", f"GRPO, groups of {size}", setting)
                lines.append([REGIMES.get(setting, setting), str(size), gap, ""])
        head, *rows = lines
        rows = [row for row in rows if any(row[2:])]
        title = "Where the margin grows (difference of the medians of the mean of the curve):"
        return f"{title}\n\n{markdown([head, *rows])}" if rows else ""


QUESTION = Estimators(
    number=2,
    title="Who reads a group best?",
    asks="RTMC against GRPO, the step reward, GiGPO, RLOO, CRBC and graph values, RTMC by its smoothing, and by the "
    "size of groups; nothing is forked, so what states share is natural overlap. Where episodes are longer, the "
    "decisive action rarer and groups smaller or larger, a table says by how much the margin grows.",
    baseline="GRPO",
    methods=(
        "GRPO", "RTMC", "graph values", "step reward", "GiGPO", "RLOO", "CRBC", *map(smoothed, SMOOTHING),
        *(f"{name}, groups of {n}" for n in SIZES for name in ("RTMC", "GRPO")), ENTROPY,
    ),
    settings=ALL,
    core_methods=("GRPO", "RTMC", "graph values", "step reward", "GiGPO", "RLOO", "CRBC", "RTMC, prior 0"),
    core_settings=(
        "decisive-hard", "irrecoverable-hard", "aliased-hard", "misleading", "decisive-short", "decisive-long",
        "decisive-rare", "math-hard", "sokoban",
    ),
)  # fmt: skip
