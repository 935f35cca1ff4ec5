"""Question 7: defaults, read off the results of the others; it runs nothing of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.cells import TUNING_SEED, Cell, Results
from benchmarks.study.statistics import probability_of_improvement, verdict

from . import allocation, closed_loop, critic, estimators, forking
from .question import Scale, markdown, scores_of

_OTHERS = (forking, estimators, allocation, closed_loop, critic)

DEFAULT = "RTMC"
"""What `TreeTrainer` does: RTMC as published, of returns, without forks."""
STAY = "No method is shown better than the trainer's default (RTMC of returns, no forks) where it was run: it stays."
CHANGE = (
    "Where a method is shown better than the trainer's default (RTMC of returns, nothing forked), a column says so."
)


@dataclass(frozen=True)
class Defaults:
    """Ranks all methods that were trained in a setting, by the median of the mean of their curves."""

    number: int = 7
    title: str = "What should the defaults be?"
    asks: str = "The best of all methods that were trained, setting by setting, beside what the trainers do by default."

    def plan(self, results: Results, scale: Scale) -> list[Cell]:
        """Has nothing to run."""
        del results, scale
        return []

    def report(self, results: Results, scale: Scale, images: Path) -> str:
        """Returns a table of the three best methods by setting, and what is shown better or worse than the default."""
        del images
        found: list[tuple[Cell, dict[str, Any]]] = []
        for module in _OTHERS:
            cells = [c for c in module.QUESTION.plan(results, scale) if c.seed < TUNING_SEED]
            found += [pair for pair in results.of(cells) if pair not in found]
        table = scores_of(found, "mean")
        lines: list[Sequence[str]] = [["setting", "first", "second", "third", "better than RTMC", "worse than RTMC"]]
        decided = False
        for setting in dict.fromkeys(setting for by in table.values() for setting in by):
            here = {method: by[setting] for method, by in table.items() if len(by.get(setting, [])) > 1}
            best = sorted(here, key=lambda method: -float(np.median(here[method])))[:3]
            if len(best) < 3:
                continue
            shown = {m: _against(runs, here[DEFAULT]) for m, runs in here.items() if m != DEFAULT and DEFAULT in here}
            sides = [", ".join(m for m, one in shown.items() if one == side) for side in ("better", "worse")]
            decided = decided or bool(sides[0])
            names = [f"{method} {np.median(here[method]):.2f}" for method in best]
            lines.append([setting, *names, *(side or ("none shown" if shown else "not run") for side in sides)])
        if len(lines) == 1:
            return ""
        return f"{markdown(lines)}\n\nRanks alone claim nothing. {CHANGE if decided else STAY}"


def _against(runs: Sequence[float], default: Sequence[float]) -> str:
    return verdict(probability_of_improvement([runs], [default]), nothing=0.5)


QUESTION = Defaults()
