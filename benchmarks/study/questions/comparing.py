"""How methods are compared: one rule for every verdict of the page, and what has to be said beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.study.cells import Runs
from benchmarks.study.statistics import INCONCLUSIVE, NO_DIFFERENCE, Interval, difference, interval_of, median, verdict

__all__ = [
    "Gap", "Scores", "command", "cost_of", "equal_curves", "gaps_of", "margin_of", "markdown",
    "median_of", "of_training", "other_rate", "scores_of", "settles", "told",
]  # fmt: skip

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""A metric of every run, by method and setting."""


@dataclass(frozen=True)
class Gap:
    """By how much a method is above another over settings.

    Attributes:
        method: the one.
        found: difference of the medians, mean over the settings.
        settings: in which both were run.
        rests: settings of three and more without any one of which the verdict would not stand.
    """

    method: str
    found: Interval
    settings: tuple[str, ...]
    rests: tuple[str, ...] = ()

    @property
    def alone(self) -> str:
        """Says on which single settings the verdict rests; empty where on none."""
        return f" (not without {' or '.join(self.rests)})" if self.rests else ""


def scores_of(found: Runs, metric: str) -> dict[str, dict[str, list[float]]]:
    """Collects a metric by method and setting, in the order of the seeds."""
    table: dict[str, dict[str, list[float]]] = {}
    for cell, entry in sorted(found, key=lambda pair: pair[0].seed):
        if (value := entry["metrics"].get(metric)) is not None:
            table.setdefault(cell.method, {}).setdefault(cell.setting, []).append(value)
    return table


def told(gap: Interval) -> str:
    """Says what a difference shows."""
    word = verdict(gap)
    return INCONCLUSIVE if word == NO_DIFFERENCE and not gap.holds(0.0) else word


def gaps_of(means: Scores, baseline: str) -> Iterator[Gap]:
    """Yields how far each method is above the baseline."""
    base = means.get(baseline, {})
    for method, by in means.items():
        shared = tuple(name for name in by if name in base and min(len(by[name]), len(base[name])) > 1)
        if method != baseline and shared:
            found = _over(by, base, shared)
            yield Gap(method, found, shared, _rests(by, base, shared, told(found)))


def _over(by: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]], settings: Sequence[str]) -> Interval:
    return difference([by[one] for one in settings], [base[one] for one in settings])


def _rests(
    by: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]], settings: Sequence[str], word: str
) -> tuple[str, ...]:
    if word not in {"better", "worse"} or len(settings) < 3:
        return ()
    return tuple(one for one in settings if told(_over(by, base, [s for s in settings if s != one])) != word)


def margin_of(found: Runs, method: str, base: str, *settings: str, metric: str = "mean") -> str:
    """Returns the difference of the mean medians of two methods, and what it shows; empty where a run is missing.

    Args:
        found: runs.
        method: the one.
        base: the other.
        settings: where both are compared.
        metric: what of a run; by default the mean of its curve.
    """
    here = [pair for pair in found if pair[0].setting in settings and pair[0].method in (method, base)]
    means = scores_of(here, metric)
    if not settings or not all(means.get(name, {}).get(setting) for name in (method, base) for setting in settings):
        return ""
    gap = _over(means[method], means[base], settings)
    rests = _rests(means[method], means[base], settings, told(gap))
    return f"{gap}: {told(gap)}{Gap(method, gap, settings, rests).alone}{other_rate(here, method, base)}"


def equal_curves(means: Scores, setting: str) -> list[str]:
    """Returns which methods had equal curves in a setting, so that what they differ in changed nothing there."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for method, by in means.items():
        if len(runs := by.get(setting, ())) > 1:
            groups.setdefault(tuple(runs), []).append(method)
    return [" = ".join(group) for group in groups.values() if len(group) > 1]


def other_rate(here: Runs, method: str, base: str) -> str:
    """Says that a method took another learning rate than the one it is compared with: then that may be the difference.

    Args:
        here: runs.
        method: the one.
        base: the other.
    """
    rates: dict[str, dict[str, set[float]]] = {method: {}, base: {}}
    for cell, _ in here:
        if cell.method in rates:
            rates[cell.method].setdefault(cell.setting, set()).add(cell.rate)
    shared = rates[method].keys() & rates[base].keys()
    others = sorted(setting for setting in shared if rates[method][setting] != rates[base][setting])
    where = f" in {', '.join(others)}" if len(shared) > 1 else ""
    return f" (at another rate{where})" if others else ""


def cost_of(here: Runs, method: str) -> str:
    """Returns what the same tokens were beside, as medians over runs."""
    runs = [(e["ledger"]["steps"], e["ledger"]["episodes"], e["cpu_seconds"]) for c, e in here if c.method == method]
    return ", ".join(f"{number:.0f}" for number in np.median(runs, axis=0))


def settles(name: str) -> bool:
    """Whether a metric of training is read when it has settled: what a critic or a predictor has learned."""
    return name.startswith(("critic/", "predictor/", "entropy"))


def of_training(here: Runs, method: str, name: str) -> str:
    """Returns a metric of training: of its last quarter, if it settles, else of all of it.

    What is measured of groups falls as a policy learns: the last quarter would compare how far methods have come.
    """
    found = [entry["quarters"][name] for cell, entry in here if cell.method == method and name in entry["quarters"]]
    values = [quarters[-1] if settles(name) else float(np.mean(quarters)) for quarters in found]
    return median_of(values) if values else ""


def median_of(values: Sequence[float]) -> str:
    """Returns the median of runs with its interval, as the page writes it."""
    return str(interval_of([[values]], median))


def command(words: str, does: str) -> str:
    """Returns a line of the page that can be copied into a shell, and what it does."""
    return f"    python -m benchmarks.study {words:9s}  # {does}"


def markdown(lines: Sequence[Sequence[Any]]) -> str:
    """Returns a table; the first line is its head."""
    head, *rest = lines
    rows = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
