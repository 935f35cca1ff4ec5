"""Question 7: defaults, read off the results of the others; of its own it runs rates beyond those of the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.cells import TUNING_SEED, Cell, Results, Runs
from benchmarks.study.figures import draw_intervals
from benchmarks.study.methods import ENTROPY, SMOOTHING, smoothed
from benchmarks.study.settings import SETTINGS
from benchmarks.study.statistics import difference, interval_of, mean

from . import allocation, closed_loop, critic, estimators, forking
from .comparing import command, margin_of, markdown, other_rate, scores_of, told
from .question import Scale

FloatArray = NDArray[np.float64]
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
BEYOND_METHODS = ("RTMC", "graph values", "GRPO", "RLOO", "step reward")
AT_ONE_RATE = (
    ("RTMC", "GRPO"),
    ("graph values", "GRPO"),
    ("graph values", "RTMC"),
    ("step reward", "GRPO"),
    ("step reward", "RTMC"),
)
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
        runs: dict[tuple[str, str, int], tuple[Cell, dict[str, Any]]] = {}
        for module in _OTHERS:
            for cell, entry in module.QUESTION.runs(results, scale):  # what two questions ask for counts once
                runs.setdefault((cell.setting, cell.method, cell.seed), (cell, entry))
        found = list(runs.values())
        table = scores_of(found, "mean")
        lines: list[Sequence[str]] = [["setting", "first", "second", "third", "better than RTMC", "worse than RTMC"]]
        decided, drawn = False, dict[str, dict[str, list[float]]]()
        for setting in dict.fromkeys(setting for by in table.values() for setting in by):
            here = {method: by[setting] for method, by in table.items() if len(by.get(setting, [])) > 1}
            best = sorted(here, key=lambda method: -float(np.median(here[method])))[:3]
            if len(best) < 3:
                continue
            base = here.get(DEFAULT)
            for method in [*best, DEFAULT] if base else best:
                drawn.setdefault(method, {})[setting] = here[method]
            shown = {m: told(difference([runs], [base])) for m, runs in here.items() if m != DEFAULT and base}
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
        stem = f"question_7_best{scale.suffix}"
        draw_intervals(drawn, "mean of the curve", images / stem)
        picture = f"![The three best and the default, medians with intervals](images/study/{stem}.png)"
        ranks = f"{markdown(lines)}\n\nRanks alone claim nothing. {CHANGE if decided else STAY}"
        shown = command("report", "draws it from the results that are kept")
        more = [] if scale.quick else [at_one_rate(results), beyond(results)]
        return "\n\n".join(filter(None, [picture, shown, ranks, _one_by_one(found), _rates(found), *more]))

    def in_short(self, results: Results, scale: Scale) -> str:
        """Returns nothing: what follows for the defaults is no number."""
        del results, scale
        return ""


def _one_by_one(found: Runs) -> str:
    """Returns what each default is worth beside its alternatives, over all settings that both were run in."""
    table = scores_of(found, "mean")
    lines: list[Sequence[str]] = [["default", "of it", "instead", "instead less default", "settings"]]
    for said, default, others in ONE_BY_ONE:
        for other in others:
            shared = sorted(set(table.get(default, {})) & set(table.get(other, {})))
            gap = margin_of(found, other, default, *shared)
            lines.append([said, default, other, gap or "not run", ", ".join(shared)])
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


def _by_rate(results: Results) -> dict[tuple[str, str], dict[float, dict[int, float]]]:
    """Collects means of curves in tables by setting and method, at the largest rate and beyond, by seed."""
    at: dict[tuple[str, str], dict[float, dict[int, float]]] = {}
    for entry in results:
        if (
            entry["rate"] in {LARGEST, BEYOND}
            and "error" not in entry
            and entry["seed"] < TUNING_SEED
            and SETTINGS[entry["setting"]].problem
        ):
            by = at.setdefault((entry["setting"], entry["method"]), {LARGEST: {}, BEYOND: {}})
            by[entry["rate"]][entry["seed"]] = entry["metrics"]["mean"]
    return at


def at_one_rate(results: Results) -> str:
    """Returns what is left of differences in tables where all take the largest rate, whatever they were tuned to."""
    at = _by_rate(results)
    lines: list[Sequence[str]] = [["setting", *(f"{one} less {base}" for one, base in AT_ONE_RATE)]]
    for setting in BEYOND_SETTINGS:
        row = [setting]
        for pair in AT_ONE_RATE:
            ours, theirs = (at.get((setting, method), {}).get(LARGEST, {}) for method in pair)
            shared = sorted(ours.keys() & theirs.keys())
            gap = difference([[ours[s] for s in shared]], [[theirs[s] for s in shared]]) if len(shared) > 1 else None
            row.append(f"{gap}: {told(gap)}" if gap else "")
        lines.append(row)
    title = (
        f"A verdict between methods of different rates may be one between the rates. At {LARGEST:g}, which most "
        "were tuned to, runs of one rate differ by (median of the mean of the curve):"
    )
    return f"{title}\n\n{markdown(lines)}" if any(any(row[1:]) for row in lines[1:]) else ""


def beyond(results: Results) -> str:
    """Returns what tables do at a rate at which one update decides an action for good: of all that was run at both."""
    lines: list[Sequence[str]] = [["setting", "method", "runs", f"mean at {LARGEST:g}", f"mean at {BEYOND:g}", "gap"]]
    for (setting, method), by in sorted(_by_rate(results).items()):
        if len(shared := sorted(by[LARGEST].keys() & by[BEYOND].keys())) >= 5:
            low, high = ([by[rate][seed] for seed in shared] for rate in (LARGEST, BEYOND))
            gap = interval_of([[high], [low]], _mean_gap, paired=True)
            lines.append(
                [setting, method, str(len(shared)), *(str(interval_of([[x]], mean)) for x in (low, high)), str(gap)]
            )
    if len(lines) == 1:
        return ""
    tried, best = _tuned_beyond(results)
    title = (
        f"Tables are tuned with rates up to {LARGEST:g}, at which an update moves a logit by 1. That end was set after "
        f"results had been seen: of {tried} pairs of setting and method whose tuning once went on, {best} were best "
        f"beyond it. At {BEYOND:g} one update decides an action for good, and runs of a method are a gamble (mean over "
        "runs of the mean of the curve, as medians do not show what is lost; all that was run at both rates, 5 runs "
        "and more):"
    )
    return f"{title}\n\n{markdown(lines)}"


def _mean_gap(ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> FloatArray:
    return mean(ours) - mean(theirs)


def _tuned_beyond(results: Results) -> tuple[int, int]:
    """Counts pairs of setting and method that were tuned beyond the largest rate, and those that were best there."""
    at: dict[tuple[str, str], dict[float, list[float]]] = {}
    for entry in results:
        if (
            entry["kind"] == "train"
            and "error" not in entry
            and entry["seed"] >= TUNING_SEED
            and SETTINGS[entry["setting"]].problem
        ):
            by = at.setdefault((entry["setting"], entry["method"]), {})
            by.setdefault(entry["rate"], []).append(entry["metrics"]["mean"])
    means = [{rate: np.mean(runs) for rate, runs in by.items()} for by in at.values() if max(by) > LARGEST]
    return len(means), sum(max(by, key=lambda rate: by[rate]) > LARGEST for by in means)


QUESTION = Defaults()
