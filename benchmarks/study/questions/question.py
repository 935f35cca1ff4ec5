"""What a question is: cells to run, and a section of the report to make of their results."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.study.cells import TUNING_SEED, Cell, Results, Runs
from benchmarks.study.figures import draw_curves, draw_intervals, draw_profiles
from benchmarks.study.methods import METHODS
from benchmarks.study.settings import QUICK, SETTINGS, Setting, setting_of
from benchmarks.study.sizes import size_of
from benchmarks.study.starts import recipe_of
from benchmarks.study.statistics import (
    NO_DIFFERENCE,
    TOO_FEW,
    Interval,
    difference,
    interval_of,
    iqm,
    median,
    probability_of_improvement,
    verdict,
)

__all__ = ["Question", "Scale", "Scores", "TrainingQuestion", "margin_of", "other_rate", "scores_of"]

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""A metric of every run, by method and setting."""

BY_RANKS = f"{NO_DIFFERENCE} by ranks"
COST = "steps, episodes, core seconds"
"""Of a run, measuring included."""

SECONDS_PER_TOKEN = {"table": 0.00025, "tiny": 0.0006, "20m": 0.02, "100m": 0.1}
"""Of one core: what the time left is first guessed from. That of 100m is not measured, nor is that of a GPU."""
GUESSED_ON_GPU = 0.0008


@dataclass(frozen=True)
class Scale:
    """How much of a question is run.

    Attributes:
        seeds: runs of every method in every setting.
        quick: tiny settings, to see that everything works.
        core: the most informative part alone.
        size: of the model, a name of `sizes.SIZES`.
        device: `cpu` or `cuda`.
    """

    seeds: int = 10
    quick: bool = False
    core: bool = False
    size: str = "tiny"
    device: str = "cpu"

    @property
    def elsewhere(self) -> bool:
        """Whether it is a run of its own, with another size or device; tables, which have no size, are left out."""
        return (self.size, self.device) != ("tiny", "cpu")

    @property
    def words(self) -> str:
        """What the command is told for it."""
        return f" --size {self.size} --device {self.device}" if self.elsewhere else ""

    @property
    def suffix(self) -> str:
        """Of the names of figures."""
        return f"_{self.size}_{self.device}" if self.elsewhere else ""

    def takes(self, setting: Setting) -> bool:
        """Whether it has a setting."""
        return bool(setting.plays) or not self.elsewhere

    def seeds_of(self, setting: Setting) -> int:
        """Returns the runs of every method in a setting: at most 5 where one takes more than a minute of a core."""
        return min(self.seeds, 5) if setting.long and not self.elsewhere else self.seeds

    def rates_of(self, setting: Setting) -> tuple[float, ...]:
        """Returns the learning rates that every method is tried with first."""
        return self._scaled(setting.rates)

    def ladder_of(self, setting: Setting) -> tuple[float, ...]:
        """Returns those rates and all that may be tried after them, by size."""
        return self._scaled(setting.ladder)

    def _scaled(self, rates: Sequence[float]) -> tuple[float, ...]:
        return tuple(size_of(self.size).rate(rate) for rate in rates)

    def cost_of(self, setting: Setting, tokens: int) -> float:
        """Guesses how many seconds a run takes."""
        kind = self.size if setting.plays else "table"
        return tokens * (SECONDS_PER_TOKEN[kind] if self.device == "cpu" else GUESSED_ON_GPU)


class Question(Protocol):
    """A question of the study."""

    number: int
    title: str
    asks: str

    def plan(self, results: Results, scale: Scale) -> list[Cell]:
        """Returns the cells that can be run now, in the order of their worth; more may follow from their results."""
        ...

    def report(self, results: Results, scale: Scale, images: Path) -> str:
        """Draws figures into a folder, and returns the section; empty where nothing was run yet."""
        ...

    def in_short(self, results: Results, scale: Scale) -> str:
        """Returns what the page begins with; empty where nothing was run yet."""
        ...


def scores_of(found: Runs, metric: str) -> dict[str, dict[str, list[float]]]:
    """Collects a metric by method and setting, in the order of the seeds."""
    table: dict[str, dict[str, list[float]]] = {}
    for cell, entry in sorted(found, key=lambda pair: pair[0].seed):
        if (value := entry["metrics"].get(metric)) is not None:
            table.setdefault(cell.method, {}).setdefault(cell.setting, []).append(value)
    return table


@dataclass(frozen=True)
class TrainingQuestion:
    """Methods trained from the same start until the same budget is spent.

    Attributes:
        number: of the question.
        title: of its section.
        asks: what it asks, in a sentence or two.
        baseline: the method that the others are compared with.
        methods: names of `METHODS`.
        settings: names of `SETTINGS`.
        core_methods: those of the core.
        core_settings: those of the core.
        metrics: further metrics with a column.
        config: more that the cells need.
    """

    number: int
    title: str
    asks: str
    baseline: str
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    core_methods: tuple[str, ...]
    core_settings: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    quarters: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    _made: dict[tuple[Any, ...], tuple[Cell, Setting, Any]] = field(
        default_factory=dict[tuple[Any, ...], tuple[Cell, Setting, Any]], init=False, repr=False, compare=False
    )

    def plan(self, results: Results, scale: Scale) -> list[Cell]:
        """Returns setting by setting the runs that tune, then those whose learning rate is known, seed by seed."""
        by_setting: dict[str, list[str]] = {}
        for setting, method in self._names(scale):
            by_setting.setdefault(setting, []).append(method)
        return [cell for name, methods in by_setting.items() for cell in self._block(results, name, methods, scale)]

    def _block(self, results: Results, name: str, methods: Sequence[str], scale: Scale) -> list[Cell]:
        tuning = {method: self.tuning(results, name, method, scale) for method in methods}
        rates = {method: self._rate(results, name, scale, tuning[method]) for method in methods}
        runs = [
            self.at(name, method, seed, rate, scale)
            for seed in range(scale.seeds_of(SETTINGS[name]))
            for method, rate in rates.items()
            if rate is not None
        ]
        return [cell for cells in tuning.values() for cell in cells] + runs

    def _names(self, scale: Scale) -> list[tuple[str, str]]:
        if scale.quick:
            settings = ([name for name in self.settings if name in QUICK] or list(QUICK)[:1])[:2]
            methods = tuple(dict.fromkeys([self.baseline, self.core_methods[-1]]))
        else:
            settings = self.core_settings if scale.core else self.settings
            methods = self.core_methods if scale.core else self.methods
        return [(name, method) for name in settings if scale.takes(SETTINGS[name]) for method in methods]

    def tuning(self, results: Results, name: str, method: str, scale: Scale) -> list[Cell]:
        """Returns the runs that the learning rate of a method is chosen by: half the budget, seeds of their own.

        While the best rate so far has a neighbour on the setting's ladder that was not tried, that one follows. Tables
        are tuned on more seeds: with two, a rate of which every fourth run fails is often taken for the best.
        """
        setting = setting_of(name, quick=scale.quick)
        seeds = range(TUNING_SEED, TUNING_SEED + (1 if scale.quick else 6 if setting.problem else 2))
        rates, ladder = scale.rates_of(setting), scale.ladder_of(setting)
        if len(rates) == 1:
            return []
        cells = [self._make(setting, method, seed, rate, scale, 2) for rate in rates for seed in seeds]
        tried = set(rates)
        while (best := _best_rate(cells, results)) is not None:
            at = ladder.index(best)
            further = [rate for rate in ladder[max(0, at - 1) : at + 2] if rate not in tried]
            if not further:
                break
            cells += [self._make(setting, method, seed, rate, scale, 2) for rate in further for seed in seeds]
            tried.update(further)
        return cells

    def _rate(self, results: Results, name: str, scale: Scale, tuning: Sequence[Cell]) -> float | None:
        """Returns the best learning rate; `None` while that is not known, or where runs broke at each."""
        if not tuning:
            return scale.rates_of(setting_of(name, quick=scale.quick))[0]
        return _best_rate(tuning, results)

    def cell(self, results: Results, name: str, method: str, seed: int, scale: Scale) -> Cell | None:
        """Returns a run at the best learning rate; `None` while that is not known, or where runs broke at each."""
        rate = self._rate(results, name, scale, self.tuning(results, name, method, scale))
        return None if rate is None else self.at(name, method, seed, rate, scale)

    def at(self, name: str, method: str, seed: int, rate: float, scale: Scale) -> Cell:
        """Returns a run at a rate that is given."""
        return self._make(setting_of(name, quick=scale.quick), method, seed, rate, scale, 1)

    def _make(self, setting: Setting, method: str, seed: int, rate: float, scale: Scale, part: int) -> Cell:
        """Makes a cell, once: plans are asked for after every run, and the key of a cell takes longest."""
        config = METHODS[method]
        what = (id(setting), id(config), seed, rate, scale.quick, scale.size, scale.device, part)
        if what not in self._made:
            more = {name: value for name, value in self.config.items() if part == 1}
            tokens = setting.tokens // part
            cell = Cell(
                "train", setting.name, method, seed, tokens, rate, config | more, recipe_of(setting, scale.size),
                scale.quick, scale.cost_of(setting, tokens), scale.size, scale.device,
            )  # fmt: skip
            self._made[what] = cell, setting, config  # kept, so that no other has their ids
        return self._made[what][0]

    def runs(self, results: Results, scale: Scale) -> list[tuple[Cell, dict[str, Any]]]:
        """Returns the runs that went through with their results, without those that tuned a learning rate."""
        return results.of(cell for cell in self.plan(results, scale) if cell.seed < TUNING_SEED)

    def report(self, results: Results, scale: Scale, images: Path) -> str:
        """Draws learning curves and profiles, and returns the section."""
        found = self._comparable(self.runs(results, scale))
        if not found:
            return ""
        stem = f"question_{self.number}{scale.suffix}"
        draw_curves(found, images / f"{stem}_curves")
        means = scores_of(found, "mean")
        draw_intervals(means, "mean of the curve", images / f"{stem}_intervals")
        draw_profiles(means, images / f"{stem}_profiles")
        parts = [
            f"![Learning curves](images/study/{stem}_curves.png)",
            f"![Means of the curves, medians with intervals](images/study/{stem}_intervals.png)",
            f"![Performance profiles](images/study/{stem}_profiles.png)",
            f"    python -m benchmarks.study {self.number} report{scale.words}",
            self._reading(found),
            self._across(found),
            self.more(found),
            *(self._table(found, name) for name in dict.fromkeys(cell.setting for cell, _ in found)),
        ]
        return "\n\n".join(filter(None, parts))

    def more(self, found: Runs) -> str:
        """Returns what a question says beside what all say."""
        del found
        return ""

    def _comparable(self, found: Runs) -> list[tuple[Cell, dict[str, Any]]]:
        """Leaves settings in which the baseline and another method were run."""
        pairs = {(cell.setting, cell.method) for cell, _ in found}
        others = {setting for setting, method in pairs if method != self.baseline}
        return [pair for pair in found if pair[0].setting in others and (pair[0].setting, self.baseline) in pairs]

    def _table(self, found: Runs, setting: str) -> str:
        here = [(cell, entry) for cell, entry in found if cell.setting == setting]
        if not here:
            return ""
        finals, means = scores_of(here, "final"), scores_of(here, "mean")
        extra = [(name, scores_of(here, name)) for name in self.metrics]
        base = means.get(self.baseline, {}).get(setting)
        start = here[0][1]["metrics"]["start"]
        head = ["method", "rate", "runs", "mean of the curve", "its IQM", "success at the end"]
        head += [*self.metrics, *(f"{name}, at the end" if _settles(name) else name for name in self.quarters), COST]
        lines = [[*head, f"P(better than {self.baseline})", "against it"]]
        for method, by in finals.items():
            heights = means[method][setting]
            chance = probability_of_improvement([heights], [base]) if base and method != self.baseline else None
            rates = {cell.rate for cell, _ in here if cell.method == method}
            lines.append(
                [
                    method,
                    ", ".join(f"{rate:g}" for rate in sorted(rates)),
                    str(len(heights)),
                    str(interval_of([[heights]], median)),
                    str(interval_of([[heights]], iqm)),
                    str(interval_of([[by[setting]]], median)),
                    *(str(interval_of([[t[method][setting]]], median)) if method in t else "" for _, t in extra),
                    *(_of_training(here, method, name) for name in self.quarters),
                    _cost(here, method),
                    str(chance or ""),
                    (verdict(chance, nothing=0.5) + other_rate(here, method, self.baseline)) if chance else "",
                ]
            )
        return f"**{setting}** (start {start:.2f}; {len(here)} runs)\n\n{markdown(lines)}"

    def _reading(self, found: Runs) -> str:
        """Says in words what the intervals of the probabilities of improvement show, setting by setting."""
        means, said = scores_of(found, "mean"), list[str]()
        for setting in dict.fromkeys(cell.setting for cell, _ in found):
            base = means.get(self.baseline, {}).get(setting)
            others = [m for m, by in means.items() if m != self.baseline and setting in by]
            if not base or not others:
                continue
            shown = {m: verdict(probability_of_improvement([means[m][setting]], [base]), nothing=0.5) for m in others}
            here = [pair for pair in found if pair[0].setting == setting]
            words = [
                f"{word}: {'; '.join(names)}"
                for word in ("better", "worse")
                if (names := [m + other_rate(here, m, self.baseline) for m, one in shown.items() if one == word])
            ]
            words += [
                f"{word} for {'all ' if rest == len(shown) else ''}{rest}"
                for word in (NO_DIFFERENCE, TOO_FEW)
                if (rest := sum(one == word for one in shown.values()))
            ]
            if same := _same(means, setting):
                words.append(f"equal curves: {'; '.join(same)}")
            said.append(f"- {setting}: {'. '.join(words)}.")
        return f"Learning faster or slower than {self.baseline}:\n\n" + "\n".join(said) if said else ""

    def in_short(self, results: Results, scale: Scale) -> str:
        """Returns what is shown over several settings in which a method and the baseline were run."""
        by_word: dict[str, list[str]] = {}
        for method, gap, settings in self._gaps(self._comparable(self.runs(results, scale))):
            if len(settings) > 1:
                by_word.setdefault(_told(gap), []).append(f"{method} {gap} in {len(settings)}")
        words = ("better", "worse", NO_DIFFERENCE, BY_RANKS)
        said = [f"{word}: {'; '.join(by_word[word])}" for word in words if word in by_word]
        return f"Beside {self.baseline}. {'. '.join(one[0].upper() + one[1:] for one in said)}." if said else ""

    def _across(self, found: Runs) -> str:
        """Says what holds over all settings that both methods were run in."""
        ends, said = scores_of(found, "final"), list[str]()
        for method, gap, shared in self._gaps(found):
            here = [pair for pair in found if pair[0].setting in shared]
            word = _told(gap) + other_rate(here, method, self.baseline)
            end = difference([ends[method][s] for s in shared], [ends[self.baseline][s] for s in shared])
            said.append(f"- {method}: {word}, {gap}; at the end {end} ({', '.join(shared)}; {gap.runs} runs)")
        head = f"Against {self.baseline}, difference of the medians of the mean of the curve, mean over settings:"
        return f"{head}\n\n" + "\n".join(said) if said else ""

    def _gaps(self, found: Runs) -> Iterator[tuple[str, Interval, list[str]]]:
        """Yields how far each method is above the baseline, and the settings that both were run in."""
        means = scores_of(found, "mean")
        base = means.get(self.baseline, {})
        for method, by in means.items():
            shared = [name for name in by if name in base and min(len(by[name]), len(base[name])) > 1]
            if method != self.baseline and shared:
                yield method, difference([by[s] for s in shared], [base[s] for s in shared]), shared


def _best_rate(cells: Sequence[Cell], results: Results) -> float | None:
    """Returns the rate of the highest mean score, of those at which no run broke and whose scores are numbers.

    `None` while a run is missing, or where there is no such rate; of equals the smallest.
    """
    if not all(cell in results for cell in cells):
        return None
    found, planned = results.of(cells), Counter(cell.rate for cell in cells)
    scores = {rate: [entry["metrics"]["mean"] for cell, entry in found if cell.rate == rate] for rate in planned}
    means = {rate: float(np.mean(of)) for rate, of in scores.items() if len(of) == planned[rate]}
    return max(sorted(rate for rate in means if np.isfinite(means[rate])), key=lambda rate: means[rate], default=None)


def _told(gap: Interval) -> str:
    """Says what a difference shows, and where its interval alone would show more."""
    word = verdict(gap)
    return BY_RANKS if word == NO_DIFFERENCE and not gap.holds(0.0) else word


def margin_of(found: Runs, method: str, base: str, *settings: str) -> str:
    """Returns the difference of the mean medians of two methods, and what it shows; empty where a run is missing.

    Args:
        found: runs.
        method: the one.
        base: the other.
        settings: where both are compared.
    """
    here = [pair for pair in found if pair[0].setting in settings and pair[0].method in (method, base)]
    means = scores_of(here, "mean")
    ours, theirs = ([means.get(name, {}).get(setting, ()) for setting in settings] for name in (method, base))
    if not settings or not all([*ours, *theirs]):
        return ""
    gap = difference(ours, theirs)
    return f"{gap}: {_told(gap)}{other_rate(here, method, base)}"


def _same(means: Scores, setting: str) -> list[str]:
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


def _cost(here: Runs, method: str) -> str:
    """Returns what the same tokens were beside, as medians over runs."""
    runs = [(e["ledger"]["steps"], e["ledger"]["episodes"], e["cpu_seconds"]) for c, e in here if c.method == method]
    return ", ".join(f"{number:.0f}" for number in np.median(runs, axis=0))


def _settles(name: str) -> bool:
    """Whether a metric of training is read when it has settled: what a critic or a predictor has learned."""
    return name.startswith(("critic/", "predictor/", "entropy"))


def _of_training(here: Runs, method: str, name: str) -> str:
    """Returns a metric of training: of its last quarter, if it settles, else of all of it.

    What is measured of groups falls as a policy learns: the last quarter would compare how far methods have come.
    """
    found = [entry["quarters"][name] for cell, entry in here if cell.method == method and name in entry["quarters"]]
    values = [quarters[-1] if _settles(name) else float(np.mean(quarters)) for quarters in found]
    return str(interval_of([[values]], median)) if values else ""


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table; the first line is its head."""
    head, *rest = lines
    rows = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


ALL = tuple(SETTINGS)
TINY = tuple(name for name, setting in SETTINGS.items() if setting.plays)
TABLES = tuple(name for name in SETTINGS if name not in TINY)
