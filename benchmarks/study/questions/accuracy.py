"""Question 1: how near is credit to the truth, and is better credit a better gradient?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.cells import Cell, Results
from benchmarks.study.figures import draw_accuracy
from benchmarks.study.settings import SETTINGS, Setting, setting_of
from benchmarks.study.starts import recipe_of
from benchmarks.study.statistics import difference, interval_of, median, verdict

from .question import TABLES, TINY, Scale, markdown

TRUE = "(true)"
MEASURES = ("r", "mse", "sign", "cosine")


@dataclass(frozen=True)
class Accuracy:
    """Credit of every estimator against Q and V: by brute force from snapshots, or exact where a table is."""

    number: int = 1
    title: str = "How near is credit to the truth?"
    asks: str = (
        "Correlation (r), squared error, sign of large advantages and cosine of an update to the true policy gradient, "
        "for every estimator, groups of 4 to 64, smoothing of 0 to 8, and states by exact signatures, by the newest "
        "observation (coarse), by clusters of embeddings (learned), and none; in tables also with a quarter and "
        "a half of the steps in forks that TRACE chooses with the true values."
    )

    def plan(self, results: Results, scale: Scale) -> list[Cell]:
        """Returns the measurements, seed by seed: every seed has other tasks and other chains."""
        del results
        if scale.quick:
            return [self._cell(setting_of(name, quick=True), 0, scale) for name in ("sokoban", "decisive")]
        names = TABLES if scale.core else (*TABLES, *TINY)
        chosen = [SETTINGS[name] for name in names]
        return [self._cell(one, seed, scale) for one in chosen for seed in range(scale.seeds_of(one))]

    def _cell(self, setting: Setting, seed: int, scale: Scale) -> Cell:
        if scale.quick:
            config: dict[str, Any] = {"sizes": [4], "tasks": 2, "rollouts": 8, "continuations": 4}
            config |= {"rollouts": 1024} if setting.problem else {}
        elif setting.problem:
            config = {"sizes": [4, 8, 16, 32, 64], "rollouts": 8192}
        else:
            config = {"sizes": [4, 8, 16, 32, 64], "tasks": 4, "rollouts": 64, "continuations": 48}
        cost = 9.0 if setting.problem else 60.0
        return Cell("credit", setting.name, "all", seed, 0, 0.0, config, recipe_of(setting), scale.quick, cost)

    def report(self, results: Results, scale: Scale, images: Path) -> str:
        """Draws the measures by group size, and returns a table per setting at groups of 8."""
        found = results.of(self.plan(results, scale))
        if not found:
            return ""
        parts: list[str] = []
        for name in dict.fromkeys(cell.setting for cell, _ in found):
            rows = [row for cell, entry in found if cell.setting == name for row in entry["rows"]]
            draw_accuracy(rows, name, images / f"question_1_{name}")
            parts.append(f"![{name}](images/study/question_1_{name}.png)\n\n    python -m benchmarks.study 1 report")
            parts += [_reading(name, rows), self._table(name, rows, found)]
        return "\n\n".join(parts)

    def _table(self, name: str, rows: Sequence[dict[str, Any]], found: Sequence[tuple[Cell, dict[str, Any]]]) -> str:
        about = [entry for cell, entry in found if cell.setting == name]
        size = 8 if any(row["size"] == 8 for row in rows) else min(row["size"] for row in rows)
        lines: list[Sequence[str]] = [["estimator", "states", *MEASURES]]
        for key in dict.fromkeys((row["estimator"], row["signature"]) for row in rows):
            here = [r for r in rows if (r["estimator"], r["signature"]) == key and r["size"] == size]
            cells = [[r[m] for r in here if r[m] is not None and np.isfinite(r[m])] for m in MEASURES]
            lines.append([*key, *(str(interval_of([[v]], median)) if v else "" for v in cells)])
        noise = [entry["metrics"]["noise"] for entry in about if "metrics" in entry]
        truth = f"brute force, whose own variance is {np.mean(noise):.4f}" if noise else "exact"
        return f"**{name}**, groups of {size}, {len(about)} seeds, truth {truth}\n\n{markdown(lines)}"


def _reading(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Says whose updates are nearer to the true gradient than GRPO's, and whose credit is nearest to the truth."""
    size = 8 if any(row["size"] == 8 for row in rows) else min(row["size"] for row in rows)
    scores: dict[str, dict[str, list[float]]] = {"cosine": {}, "r": {}}
    for row in rows:
        if row["size"] == size:
            label = row["estimator"] if row["signature"] == "exact" else f"{row['estimator']} ({row['signature']})"
            for measure, by in scores.items():
                if np.isfinite(row[measure]):
                    by.setdefault(label, []).append(row[measure])
    cosine, r = scores["cosine"], scores["r"]
    if not cosine.get("GRPO"):
        return ""
    shown = {
        label: verdict(difference([values], [cosine["GRPO"]])) for label, values in cosine.items() if label != TRUE
    }
    words = [
        f"{word} than GRPO's: {', '.join(names)}"
        for word in ("better", "worse")
        if (names := [label for label, one in shown.items() if one == word])
    ]
    nearest = max((label for label in r if label != TRUE), key=lambda label: float(np.median(r[label])))
    return (
        f"In {name}, the cosine of an update is {'; '.join(words) or 'not shown to differ from that of GRPO'}. "
        f"The credit of highest correlation is that of {nearest} (r {np.median(r[nearest]):.2f}, cosine "
        f"{np.median(cosine[nearest]):.2f}); GRPO has r {np.median(r['GRPO']):.2f}, cosine "
        f"{np.median(cosine['GRPO']):.2f}; the true advantages have cosine {np.median(cosine[TRUE]):.2f}."
    )


QUESTION = Accuracy()
