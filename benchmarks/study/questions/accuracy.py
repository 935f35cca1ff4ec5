"""Question 1: how near is credit to the truth, and is better credit a better gradient?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.cells import Cell, Results, Runs
from benchmarks.study.figures import draw_accuracy
from benchmarks.study.settings import SETTINGS, Setting, setting_of
from benchmarks.study.starts import recipe_of
from benchmarks.study.statistics import TOO_FEW, difference

from .comparing import markdown, median_of, told
from .gradients import tell_of_policies
from .question import TABLES, TINY, Scale

TRUE = "(true)"
READERS = ("RTMC, graph values", "RTMC (paper)", "Dr.GRPO")
MEASURES = ("r", "mse", "sign", "cosine")
Key = tuple[str, str]
GRPO: Key = ("GRPO", "exact")


@dataclass(frozen=True)
class Accuracy:
    """Credit of every estimator against Q and V: by brute force from snapshots, or exact where a table is."""

    number: int = 1
    title: str = "How near is credit to the truth?"
    asks: str = (
        "Correlation (r), squared error, sign of large advantages and cosine of an update to the true policy gradient, "
        "for every estimator, groups of 4 to 64, smoothing of 0 to 8, and states by exact signatures, by the newest "
        "observation (coarse), by clusters of embeddings (learned), and none; in tables also with a quarter and "
        "a half of the steps in forks that TRACE chooses with the true values, weighed by occupancy. An update that "
        "says nothing has cosine 0. At the end: are those that are nearer "
        "also those that learn faster in question 2?"
    )

    def plan(self, results: Results, scale: Scale) -> list[Cell]:
        """Returns the measurements, seed by seed: every seed has other tasks and other chains."""
        del results
        if scale.quick:
            names = [name for name in ("sokoban", "decisive") if scale.takes(SETTINGS[name])]
            return [self._cell(setting_of(name, quick=True), 0, scale) for name in names]
        names = TABLES if scale.core else (*TABLES, *TINY)
        chosen = [SETTINGS[name] for name in names if scale.takes(SETTINGS[name])]
        return [self._cell(one, seed, scale) for one in chosen for seed in range(_seeds_of(one, scale))]

    def _cell(self, setting: Setting, seed: int, scale: Scale) -> Cell:
        if scale.quick:
            config: dict[str, Any] = {"sizes": [4], "tasks": 2, "rollouts": 8, "continuations": 4}
            config |= {"rollouts": 1024} if setting.problem else {}
        elif setting.problem:
            config = {"sizes": [4, 8, 16, 32, 64], "rollouts": 8192}
        else:
            config = {"sizes": [4, 8, 16, 32, 64], "tasks": 4, "rollouts": 64, "continuations": 48}
        cost = 9.0 if setting.problem else 500.0
        return Cell(
            "credit", setting.name, "all", seed, 0, 0.0, config, recipe_of(setting, scale.size), scale.quick, cost,
            scale.size, scale.device,
        )  # fmt: skip

    def report(self, results: Results, scale: Scale, images: Path) -> str:
        """Draws the measures by group size, and returns a table per setting at groups of 8."""
        found = results.of(self.plan(results, scale))
        if not found:
            return ""
        parts, credit = list[str](), _rows(found)
        for name, rows in credit.items():
            stem = f"question_1_{name}{scale.suffix}"
            draw_accuracy(rows, name, images / stem)
            parts.append(f"![{name}](images/study/{stem}.png)\n\n    python -m benchmarks.study 1 report{scale.words}")
            parts += [_reading(name, rows), self._table(name, rows, found)]
        parts.append(_forks(credit))
        parts.append(tell_of_policies(credit, results, scale, images / f"question_1_policies{scale.suffix}"))
        return "\n\n".join(filter(None, parts))

    def in_short(self, results: Results, scale: Scale) -> str:
        """Returns in how many settings an update is nearer to the true gradient than GRPO's, and farther."""
        credit = _rows(results.of(self.plan(results, scale)))
        verdicts = [
            shown for rows in credit.values() if {*(shown := _against(_scores(rows, "cosine"))).values()} - {TOO_FEW}
        ]
        names = [key for key in dict.fromkeys(key for one in verdicts for key in one) if key[1] == "exact"]
        counts = {
            key[0]: [sum(one.get(key) == word for one in verdicts) for word in ("better", "worse")] for key in names
        }
        said = "; ".join(f"{name} {better} ({worse})" for name, (better, worse) in counts.items() if better or worse)
        head = f"Settings, of {len(verdicts)}, in which an update of exact states is nearer to the true gradient than"
        return f"{head} GRPO's (and in which farther): {said}." if said else ""

    def _table(self, name: str, rows: Sequence[dict[str, Any]], found: Runs) -> str:
        about = [entry for cell, entry in found if cell.setting == name]
        scores = {measure: _scores(rows, measure) for measure in MEASURES}
        against = _against(scores["cosine"])
        lines: list[Sequence[str]] = [["estimator", "states", *MEASURES, "cosine against GRPO's"]]
        for key in dict.fromkeys((row["estimator"], row["signature"]) for row in rows):
            values = [scores[measure].get(key) for measure in MEASURES]
            lines.append([*key, *(median_of(v) if v else "" for v in values), against.get(key, "")])
        noise = [entry["metrics"]["noise"] for entry in about if "metrics" in entry]
        truth = f"brute force, whose own variance is {np.mean(noise):.4f}" if noise else "exact"
        seeds = "1 seed" if len(about) == 1 else f"{len(about)} seeds"
        return f"**{name}**, groups of {_size(rows)}, {seeds}, truth {truth}\n\n{markdown(lines)}"


def _seeds_of(setting: Setting, scale: Scale) -> int:
    """Returns how often credit is measured: at most 5 times where the truth takes minutes, as it is sampled."""
    return min(scale.seeds, 5) if setting.plays else scale.seeds


def _rows(found: Runs) -> dict[str, list[dict[str, Any]]]:
    """Collects what was measured by setting."""
    credit: dict[str, list[dict[str, Any]]] = {}
    for cell, entry in found:
        credit.setdefault(cell.setting, []).extend(entry["rows"])
    return credit


def _size(rows: Sequence[dict[str, Any]]) -> int:
    """Returns the size of groups that is told of."""
    return 8 if any(row["size"] == 8 for row in rows) else min(row["size"] for row in rows)


def _scores(rows: Sequence[dict[str, Any]], measure: str) -> dict[Key, list[float]]:
    """Returns what was measured at the size that is told of, a value a seed, by estimator and signature."""
    size, by = _size(rows), dict[Key, list[float]]()
    for row in rows:
        if row["size"] == size and row[measure] is not None and np.isfinite(row[measure]):
            by.setdefault((row["estimator"], row["signature"]), []).append(row[measure])
    return by


def _against(cosine: dict[Key, list[float]]) -> dict[Key, str]:
    """Returns the verdict on each estimator's cosine beside GRPO's."""
    theirs = cosine.get(GRPO)
    rivals = {key: values for key, values in cosine.items() if theirs and key != GRPO and key[0] != TRUE}
    return {key: told(difference([values], [theirs or []])) for key, values in rivals.items()}


def _reading(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Says how many updates are nearer to the true gradient than GRPO's, and whose credit is nearest to the truth."""
    cosine, r = _scores(rows, "cosine"), _scores(rows, "r")
    if not cosine.get(GRPO):
        return ""
    verdicts = list(_against(cosine).values())
    counts = ", ".join(f"{word} {verdicts.count(word)}" for word in sorted(set(verdicts)))
    rivals = [key for key in cosine if key[0] != TRUE]

    def about(key: Key) -> str:
        states = "" if key[1] == "exact" else f", {key[1]},"
        return f"{key[0]}{states} (r {np.median(r[key]):.2f}, cosine {np.median(cosine[key]):.2f})"

    credit = max(rivals, key=lambda key: float(np.median(r.get(key, [-1.0]))))
    update = max(rivals, key=lambda key: float(np.median(cosine[key])))
    return (
        f"In {name}, by the cosine of the update, beside {about(GRPO)}: {counts}. The highest r has "
        f"{about(credit)}, the highest cosine {about(update)}; "
        f"the true advantages have cosine {np.median(cosine[TRUE, 'exact']):.2f}."
    )


def _forks(credit: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Returns what forks are worth to a single update, by who reads them."""
    rows: list[Sequence[str]] = []
    for setting, measured in credit.items():
        cosine = _scores(measured, "cosine")
        for share in ("a quarter", "half"):
            pairs = [(cosine.get((name, f"exact, {share} in forks")), cosine.get((name, "exact"))) for name in READERS]
            gaps = [difference([forked], [plain]) if forked and plain else None for forked, plain in pairs]
            if any(gaps):
                rows.append([setting, share, *(f"{gap}: {told(gap)}" if gap else "" for gap in gaps)])
    title = (
        "**Forks**: cosine of an update with a part of the steps in forks less that without, at equal steps, by who "
        "reads the trees:"
    )
    return f"{title}\n\n{markdown([['setting', 'in forks', *READERS], *rows])}" if rows else ""


QUESTION = Accuracy()
