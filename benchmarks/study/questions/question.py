"""What a question is: cells to run, and a section of the report to make of their results."""

from collections import Counter
from collections.abc import Sequence
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
    INCONCLUSIVE,
    NO_DIFFERENCE,
    TOO_FEW,
    difference,
    interval_of,
    iqm,
    probability_of_improvement,
)

from .comparing import (
    Gap,
    command,
    cost_of,
    equal_curves,
    gaps_of,
    markdown,
    median_of,
    of_training,
    other_rate,
    scores_of,
    settles,
    told,
)

__all__ = ["Question", "Scale", "TrainingQuestion"]

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

    _known: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False, compare=False)

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
        return _untuned(results.of(self.plan(results, scale)))

    def report(self, results: Results, scale: Scale, images: Path) -> str:
        """Draws learning curves and profiles, and returns the section."""
        tried = results.of(self.plan(results, scale))
        found = self._comparable(_untuned(tried))
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
            command("report", "draws them from the results that are kept")
            + "\n"
            + command(f"{self.number} report{scale.words}", "first runs what is left"),
            self._reading(found),
            self._across(found),
            self.more(found, tried),
            *(self._table(found, name) for name in dict.fromkeys(cell.setting for cell, _ in found)),
        ]
        return "\n\n".join(filter(None, parts))

    def more(self, found: Runs, tried: Runs) -> str:
        """Returns what a question says beside what all say.

        Args:
            found: runs that are compared.
            tried: all runs, those that tuned among them.
        """
        del found, tried
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
        head = ["method", "rate", "runs", "mean of the curve", "its IQM", "success at the end", "fell"]
        head += [*self.metrics, *(f"{name}, at the end" if settles(name) else name for name in self.quarters), COST]
        lines = [[*head, f"P(better than {self.baseline})", f"less {self.baseline}", "against it"]]
        for method, by in finals.items():
            heights = means[method][setting]
            against = [base] if base and method != self.baseline else None
            gap = difference([heights], against) if against else None
            rates = {cell.rate for cell, _ in here if cell.method == method}
            lines.append(
                [
                    method,
                    ", ".join(f"{rate:g}" for rate in sorted(rates)),
                    str(len(heights)),
                    median_of(heights),
                    str(interval_of([[heights]], iqm)),
                    median_of(by[setting]),
                    str(sum(end < start for end in by[setting])),
                    *(median_of(t[method][setting]) if method in t else "" for _, t in extra),
                    *(of_training(here, method, name) for name in self.quarters),
                    cost_of(here, method),
                    str(probability_of_improvement([heights], against)) if against else "",
                    str(gap or ""),
                    (told(gap) + other_rate(here, method, self.baseline)) if gap else "",
                ]
            )
        return f"**{setting}** (start {start:.2f}; {len(here)} runs)\n\n{markdown(lines)}"

    def _reading(self, found: Runs) -> str:
        """Says in words what the differences show, setting by setting."""
        means, said = scores_of(found, "mean"), list[str]()
        for setting in dict.fromkeys(cell.setting for cell, _ in found):
            base = means.get(self.baseline, {}).get(setting)
            others = [m for m, by in means.items() if m != self.baseline and setting in by]
            if not base or not others:
                continue
            shown = {m: told(difference([means[m][setting]], [base])) for m in others}
            here = [pair for pair in found if pair[0].setting == setting]
            words = [
                f"{word}: {'; '.join(names)}"
                for word in ("better", "worse")
                if (names := [m + other_rate(here, m, self.baseline) for m, one in shown.items() if one == word])
            ]
            words += [
                f"{word} for {'all ' if rest == len(shown) else ''}{rest}"
                for word in (NO_DIFFERENCE, INCONCLUSIVE, TOO_FEW)
                if (rest := sum(one == word for one in shown.values()))
            ]
            if same := equal_curves(means, setting):
                words.append(f"equal curves: {'; '.join(same)}")
            said.append(f"- {setting}: {'. '.join(words)}.")
        return f"Learning faster or slower than {self.baseline}:\n\n" + "\n".join(said) if said else ""

    def in_short(self, results: Results, scale: Scale) -> str:
        """Returns what is shown over several settings in which a method and the baseline were run."""
        by_word: dict[str, list[str]] = {}
        for gap in self.gaps(results, scale):
            said = f"{gap.method} {gap.found} in {len(gap.settings)}{gap.alone}"
            by_word.setdefault(told(gap.found), []).append(said)
        said = [f"{word}: {'; '.join(by_word[word])}" for word in ("better", "worse", NO_DIFFERENCE, INCONCLUSIVE)
                if word in by_word]  # fmt: skip
        return f"Beside {self.baseline}. {'. '.join(one[0].upper() + one[1:] for one in said)}." if said else ""

    def gaps(self, results: Results, scale: Scale) -> list[Gap]:
        """Returns how far each method is above the baseline over the settings of both, where these are several."""
        return [gap for gap in self._gaps(self._comparable(self.runs(results, scale))) if len(gap.settings) > 1]

    def _across(self, found: Runs) -> str:
        """Says what holds over all settings that both methods were run in."""
        ends, said = scores_of(found, "final"), list[str]()
        for gap in self._gaps(found):
            here = [pair for pair in found if pair[0].setting in gap.settings]
            word = told(gap.found) + gap.alone + other_rate(here, gap.method, self.baseline)
            end = difference(*([ends[name][s] for s in gap.settings] for name in (gap.method, self.baseline)))
            where = f"{', '.join(gap.settings)}; {gap.found.runs} runs"
            said.append(f"- {gap.method}: {word}, {gap.found}; at the end {end} ({where})")
        head = f"Against {self.baseline}, difference of the medians of the mean of the curve, mean over settings:"
        return f"{head}\n\n" + "\n".join(said) if said else ""

    def _gaps(self, found: Runs) -> list[Gap]:
        """Returns how far each method is above the baseline; once for the same runs, as the page asks twice."""
        what = tuple((cell.key, entry["metrics"]["mean"]) for cell, entry in found)
        if self._known.get("runs") != what:
            self._known.update(runs=what, gaps=list(gaps_of(scores_of(found, "mean"), self.baseline)))
        return self._known["gaps"]


def _untuned(found: Runs) -> list[tuple[Cell, dict[str, Any]]]:
    """Leaves runs that do not tune."""
    return [pair for pair in found if pair[0].seed < TUNING_SEED]


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


ALL = tuple(SETTINGS)
TINY = tuple(name for name, setting in SETTINGS.items() if setting.plays)
TABLES = tuple(name for name in SETTINGS if name not in TINY)
