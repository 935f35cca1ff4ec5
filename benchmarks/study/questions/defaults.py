"""Question 7: defaults, read off the results of the others; of its own it runs rates beyond those of the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.cells import Cell, Results, Runs
from benchmarks.study.methods import ENTROPY, SMOOTHING, smoothed
from benchmarks.study.settings import SETTINGS
from benchmarks.study.statistics import interval_of, mean, probability_of_improvement, verdict

from . import allocation, closed_loop, critic, estimators, forking
from .question import Scale, margin_of, markdown, other_rate, scores_of

_WEIGHTS = ("occupancy", "counts", "unique")
_OTHERS = (forking, estimators, allocation, closed_loop, critic)

ONE_BY_ONE = (
    ("estimator", "RTMC", ("GRPO", "step reward", "GiGPO", "RLOO", "CRBC", "graph values")),
    ("smoothing of 2", smoothed(2.0), tuple(smoothed(n) for n in SMOOTHING if n != 2.0)),
    ("discount of 0.99", "RTMC", (smoothed(2.0),)),
    ("no entropy bonus", "RTMC", (ENTROPY,)),
    ("8 episodes a task", "RTMC", ("RTMC, groups of 4", "RTMC, groups of 16")),
    ("no continuations", "RTMC", ("RTMC, TRACE, a quarter",)),
    ("allocator of forks", "TRACE, a quarter", ("random, a quarter", "TRACE unseen, a quarter")),
    ("weights of forked steps", "TRACE, a quarter", tuple(f"TRACE, a quarter, {w}" for w in _WEIGHTS)),
    ("k and decay of SR-PPO", "SR-PPO, k = 1", ("SR-PPO, k adaptive", "SR-PPO, lambda 0.5", "SR-PPO, lambda 1")),
    ("no warm-up of the critic", "SR-PPO, no warm-up", ("SR-PPO, k = 1",)),
    ("no warm-up of the critic", "closed loop, no warm-up", ("closed loop",)),
)
"""What a default is, a method that has it, and methods that differ from that in it alone."""

LARGEST, BEYOND = SETTINGS["decisive"].ladder[-1], 10.0
"""Learning rates: the largest that tables are tuned with, and one that is not, to see what that withholds."""
BEYOND_METHODS = ("RTMC", "graph values")
BEYOND_SETTINGS = ("decisive-short", "decisive-hard", "decisive-long", "decisive-rare", "irrecoverable-hard")

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
        """Returns runs of tables at the largest rate that they are tuned with, and at one beyond."""
        del results
        if scale.quick or scale.elsewhere:
            return []
        return [
            estimators.QUESTION.at(setting, method, seed, rate, scale)
            for seed in range(scale.seeds)
            for setting in BEYOND_SETTINGS
            for method in BEYOND_METHODS
            for rate in (LARGEST, BEYOND)
        ]

    def report(self, results: Results, scale: Scale, images: Path) -> str:
        """Returns a table of the three best methods by setting, and what is shown better or worse than the default."""
        del images
        runs: dict[tuple[str, str, int], tuple[Cell, dict[str, Any]]] = {}
        for module in _OTHERS:
            for cell, entry in module.QUESTION.runs(results, scale):  # what two questions ask for counts once
                runs.setdefault((cell.setting, cell.method, cell.seed), (cell, entry))
        found = list(runs.values())
        table = scores_of(found, "mean")
        lines: list[Sequence[str]] = [["setting", "first", "second", "third", "better than RTMC", "worse than RTMC"]]
        decided = False
        for setting in dict.fromkeys(setting for by in table.values() for setting in by):
            here = {method: by[setting] for method, by in table.items() if len(by.get(setting, [])) > 1}
            best = sorted(here, key=lambda method: -float(np.median(here[method])))[:3]
            if len(best) < 3:
                continue
            shown = {m: _against(runs, here[DEFAULT]) for m, runs in here.items() if m != DEFAULT and DEFAULT in here}
            pairs = [pair for pair in found if pair[0].setting == setting]
            sides = [
                "; ".join(m + other_rate(pairs, m, DEFAULT) for m, one in shown.items() if one == side)
                for side in ("better", "worse")
            ]
            decided = decided or bool(sides[0])
            names = [f"{method} {np.median(here[method]):.2f}" for method in best]
            lines.append([setting, *names, *(side or ("none shown" if shown else "not run") for side in sides)])
        if len(lines) == 1:
            return ""
        ranks = f"{markdown(lines)}\n\nRanks alone claim nothing. {CHANGE if decided else STAY}"
        beyond = _beyond(results.of(self.plan(results, scale)))
        return "\n\n".join(filter(None, [ranks, _one_by_one(found), _rates(found), beyond]))


def _one_by_one(found: Runs) -> str:
    """Returns what each default is worth beside its alternatives, over all settings that both were run in."""
    table = scores_of(found, "mean")
    lines: list[Sequence[str]] = [["default", "of it", "instead", "instead less default", "settings"]]
    for said, default, others in ONE_BY_ONE:
        for other in others:
            shared = sorted(set(table.get(default, {})) & set(table.get(other, {})))
            if gap := margin_of(found, other, default, *shared):
                lines.append([said, default, other, gap, ", ".join(shared)])
    if len(lines) == 1:
        return ""
    title = "Default by default (difference of the medians of the mean of the curve, mean over settings):"
    return f"{title}\n\n{markdown(lines)}"


def _rates(found: Runs) -> str:
    """Says which learning rates were the best, and how often."""
    chosen: dict[str, dict[str, float]] = {}
    for cell, _ in found:
        chosen.setdefault(cell.setting, {})[cell.method] = cell.rate
    said: list[str] = []
    for setting, by in chosen.items():
        counts = sorted(Counter(by.values()).items())
        said.append(f"{setting} {', '.join(f'{rate:g} ({count})' for rate, count in counts)}")
    return f"Learning rates that were the best, with the number of methods: {'; '.join(said)}."


def _beyond(found: Runs) -> str:
    """Returns what tables do at a rate at which one update decides an action for good."""
    lines: list[Sequence[str]] = [["setting", "method", "runs", f"mean at {LARGEST:g}", f"mean at {BEYOND:g}"]]
    for setting in BEYOND_SETTINGS:
        for method in BEYOND_METHODS:
            at: dict[float, dict[int, float]] = {LARGEST: {}, BEYOND: {}}
            for cell, entry in found:
                if (cell.setting, cell.method) == (setting, method):
                    at[cell.rate][cell.seed] = entry["metrics"]["mean"]
            if len(shared := sorted(at[LARGEST].keys() & at[BEYOND].keys())) > 1:
                means = [str(interval_of([[[at[rate][seed] for seed in shared]]], mean)) for rate in (LARGEST, BEYOND)]
                lines.append([setting, method, str(len(shared)), *means])
    if len(lines) == 1:
        return ""
    title = (
        f"Tables are tuned with rates up to {LARGEST:g}, at which an update moves a logit by 1. At {BEYOND:g} one "
        "update decides an action for good: episodes that are long or seldom succeed are learned sooner, others are "
        "lost more often (mean over runs of the mean of the curve, as medians do not show what is lost):"
    )
    return f"{title}\n\n{markdown(lines)}"


def _against(runs: Sequence[float], default: Sequence[float]) -> str:
    return verdict(probability_of_improvement([runs], [default]), nothing=0.5)


QUESTION = Defaults()
