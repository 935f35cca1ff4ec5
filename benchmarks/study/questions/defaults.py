"""Question 7: defaults, read off the results of the others; it runs nothing of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.cells import Cell, Results

from . import allocation, closed_loop, critic, estimators, forking
from .question import Scale, markdown, scores_of

_OTHERS = (forking, estimators, allocation, closed_loop, critic)


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
        """Returns a table of the three best methods by setting, with the number of runs of each."""
        del images
        found: list[tuple[Cell, dict[str, Any]]] = []
        for module in _OTHERS:
            cells = [c for c in module.QUESTION.plan(results, scale) if c.seed < 9_000]
            found += [pair for pair in results.of(cells) if pair not in found]
        table = scores_of(found, "mean")
        settings = dict.fromkeys(setting for by in table.values() for setting in by)
        lines: list[Sequence[str]] = [["setting", "first", "second", "third"]]
        for setting in settings:
            ranked = sorted(table, key=lambda m: -float(np.median(table[m].get(setting, [-1.0]))))
            best = [m for m in ranked if len(table[m].get(setting, [])) > 1][:3]
            if not best:
                continue
            lines.append([setting, *(f"{m} {np.median(table[m][setting]):.2f}" for m in best), *[""] * (3 - len(best))])
        return markdown(lines) + "\n\nRanks alone claim nothing: intervals are above." if len(lines) > 1 else ""


QUESTION = Defaults()
