"""What is found out about a hidden suite before it grades, and what the runs of a grading shall be."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentenv.errors import TaskError

from .submissions import OpenSandbox, lay_over, solution_of
from .suite_running import Report, Run, function_of, open_suite, run_suite
from .suites import TestSuite, read_id
from .tasks import RepairTask
from .twins import Edit, Site, find_sites

__all__ = ["Plan", "draw_runs", "make_plan"]

_SITES = 6
_SAMPLE = 8
_PREFERRED = ("value", "pair", "raises", "turned", "added")


@dataclass(frozen=True)
class Plan:
    """What is known of a suite before any grading.

    Attributes:
        deciding: the test functions of `fail_to_pass`.
        others: the other test functions.
        sites: for each function that can have twins, the places to choose from.
        dropped: for each place or function of `deciding` that cannot, why not.
        together: the functions of `deciding` are all real or all replaced: some of them fail beside a twin.
    """

    deciding: tuple[str, ...]
    others: tuple[str, ...]
    sites: Mapping[str, tuple[Site, ...]]
    dropped: tuple[str, ...] = ()
    together: bool = False

    @property
    def functions(self) -> tuple[str, ...]:
        """All functions."""
        return self.deciding + self.others

    def guess_rate(self, rounds: int) -> float:
        """Returns how likely guessing is right, in every run, on whether one test of `fail_to_pass` is a twin.

        `1 / (2^rounds - 2)`, for there are as many patterns; 1 where a test has no twin. Of `told_by_form`, knowing how
        tests are written is more than guessing.
        """
        return 1 / ((1 << rounds) - 2) if all(name in self.sites for name in self.deciding) else 1.0

    @property
    def told_by_form(self) -> tuple[str, ...]:
        """The functions of `deciding` whose twins all have a form that few tests have: `(x, 7)`, `not in`."""
        return tuple(name for name in self.deciding if name in self.sites and not _natural(self.sites[name]))

    @property
    def sampled(self) -> tuple[str, ...]:
        """The others that have twins."""
        return () if self.together else tuple(name for name in self.others if name in self.sites)


def draw_runs(plan: Plan, rounds: int, generator: np.random.Generator) -> list[Run]:
    """Returns the runs of one grading.

    The first has all tests, the others those of `fail_to_pass` and the others with twins. Every function with twins is
    real in some runs and replaced in some, which is drawn for itself: who makes a test pass has to guess all of it.
    """
    replaced: list[dict[str, Site]] = [{} for _ in range(rounds)]
    if plan.together:
        for number, twin in enumerate(_draw_pattern(rounds, generator)):
            able = {name: found for name, found in plan.sites.items() if name in plan.deciding}
            if twin and able:
                which = int(generator.integers(min(map(len, able.values()))))
                replaced[number] = {name: found[which] for name, found in able.items()}
    else:
        for name in plan.deciding + plan.sampled:
            for number, twin in enumerate(_draw_pattern(rounds, generator)):
                if twin and name in plan.sites:
                    replaced[number][name] = _draw_site(plan.sites[name], generator)
    functions = [plan.functions, *[plan.deciding + plan.sampled] * (rounds - 1)]
    return [Run(names, twins) for names, twins in zip(functions, replaced, strict=True)]


def _draw_pattern(rounds: int, generator: np.random.Generator) -> list[bool]:
    """Returns in which rounds there is a twin: in some, not in all."""
    number = int(generator.integers(1, (1 << rounds) - 1))
    return [bool(number >> place & 1) for place in range(rounds)]


def _draw_site(sites: tuple[Site, ...], generator: np.random.Generator) -> Site:
    """Returns one of the places: where there are such, one where the twin does not look like one."""
    chosen = _natural(sites) or sites
    return chosen[int(generator.integers(len(chosen)))]


def _natural(sites: tuple[Site, ...]) -> tuple[Site, ...]:
    """Returns the places whose twins cannot be told from a test by their form, as `(x, 7)` and `not in` can."""
    return tuple(site for site in sites if site.kind in {"value", "raises"})


def make_plan(open_: OpenSandbox, task: RepairTask, suite: TestSuite, *, seed: bytes = b"") -> Plan:
    """Returns what is to be known of a suite; its twins are tried on the task's solution, where there is one.

    Without a solution, only places are used of which it is certain that a right solution fails them.

    Args:
        open_: opens sandboxes.
        task: the task.
        suite: its suite.
        seed: what depends on it: how places are wrong that are wrong in one way only.

    Raises:
        TaskError: a file with tests is missing, or the solution does not pass.
    """
    deciding = tuple(dict.fromkeys(map(function_of, suite.fail_to_pass)))
    others = tuple(n for n in dict.fromkeys(map(function_of, suite.pass_to_pass)) if n not in deciding)
    sites, dropped = _find(task, suite, (*deciding, *_spread(others, _SAMPLE)))
    if not (task.solution or task.removed):
        for name, found in sites.items():
            sites[name] = tuple(site for site in found if site.sure)
        dropped |= {name: "no place is certain to fail it" for name, found in sites.items() if not found}
        return _plan(deciding, others, sites, dropped, together=False)
    with closing(open_suite(open_, task, suite)) as sandbox:
        _lay_solution(sandbox, task)
        trial = _Trial(sandbox, task, suite, np.random.default_rng([*seed]))
        real = trial.run(deciding + others, {})
        _require_pass(real, task, suite, deciding + others)
        part = (*deciding, *(name for name in others if name in sites))
        _require_pass(trial.run(part, {}), task, suite, part)
        sites = trial.sift(part, sites, real, dropped)
        together = not trial.stand_apart(part, sites, real)
        if together:
            sites = trial.sift_together(part, sites, real, dropped)
    return _plan(deciding, others, sites, dropped, together=together)


@dataclass(frozen=True)
class _Trial:
    """Twins on trial, on the task's own solution."""

    prepared: Any
    task: RepairTask
    suite: TestSuite
    generator: np.random.Generator

    def run(self, names: tuple[str, ...], twins: Mapping[str, Site]) -> Report:
        """Runs functions with these twins."""
        return run_suite(self.prepared, self.task, self.suite, Run(names, twins), self.generator)

    def sift(
        self,
        names: tuple[str, ...],
        sites: Mapping[str, tuple[Site, ...]],
        real: Report,
        dropped: dict[str, str],
    ) -> dict[str, tuple[Site, ...]]:
        """Returns the places whose twins fail wherever the test passes; notes in `dropped` why the others are not."""
        settled = {name: [_settled(site, self.generator) for site in found] for name, found in sites.items()}
        kept = {name: list[Site]() for name in sites}
        for number in range(max(map(len, settled.values()), default=0)):
            twins = {name: found[number] for name, found in settled.items() if number < len(found)}
            report = self.run(names, twins)
            for name, site in twins.items():
                if report.problem or _passes(real, report, name):
                    why = report.problem or "it passes on the solution"
                    dropped[f"{name}: twin {number + 1}, {site.kind}"] = why
                else:
                    kept[name].append(site)
        return {name: tuple(found) for name, found in kept.items()}

    def sift_together(
        self, names: tuple[str, ...], sites: Mapping[str, tuple[Site, ...]], real: Report, dropped: dict[str, str]
    ) -> dict[str, tuple[Site, ...]]:
        """Returns places of which the first ones fail together, the second ones, and so on, each wrong in one way."""
        deciding = {*map(function_of, self.suite.fail_to_pass)}
        able = {name: found for name, found in sites.items() if found and name in deciding}
        kept: dict[str, list[Site]] = {name: [] for name in able}
        for number in range(_SITES if able else 0):
            twins = {name: _fixed(found[number % len(found)], self.generator) for name, found in able.items()}
            report = self.run(names, twins)
            if report.problem or any(_passes(real, report, name) for name in twins):
                dropped[f"all together, {number + 1}"] = report.problem or "one passes on the solution"
                continue
            for name, site in twins.items():
                kept[name].append(site)
        return {name: tuple(found) for name, found in kept.items()}

    def stand_apart(self, names: tuple[str, ...], sites: Mapping[str, tuple[Site, ...]], real: Report) -> bool:
        """Whether no test fails because another is replaced. Every two are tried, each replaced beside the other."""
        able = [name for name in names if sites.get(name)]
        for bit in range((len(able) - 1).bit_length() if able else 0):
            for value in (0, 1):
                chosen = [name for number, name in enumerate(able) if number >> bit & 1 == value]
                report = self.run(names, {name: sites[name][0] for name in chosen})
                if any(report.words(name) != real.words(name) for name in names if name not in chosen):
                    return False
        return True


def _passes(real: Report, twins: Report, name: str) -> bool:
    """Whether a test of a function passes as it is, and as a twin."""
    return ("passed", "passed") in zip(real.words(name), twins.words(name), strict=False)


def _settled(site: Site, generator: np.random.Generator) -> Site:
    """Returns a place that is wrong in one way only, where trying one way does not speak for another."""
    return site if site.sure else _fixed(site, generator)


def _fixed(site: Site, generator: np.random.Generator) -> Site:
    edits = site.make(generator)

    def same(_: np.random.Generator) -> tuple[Edit, ...]:
        return edits

    return replace(site, make=same)


def _plan(
    deciding: tuple[str, ...],
    others: tuple[str, ...],
    sites: Mapping[str, tuple[Site, ...]],
    dropped: Mapping[str, str],
    *,
    together: bool,
) -> Plan:
    kept = {name: found for name, found in sites.items() if found}
    return Plan(deciding, others, kept, tuple(f"{name}: {why}" for name, why in dropped.items()), together)


def _find(
    task: RepairTask, suite: TestSuite, functions: Iterable[str]
) -> tuple[dict[str, tuple[Site, ...]], dict[str, str]]:
    """Returns the places in test functions, and those that have none, with the reason."""
    sites, dropped, files = dict[str, tuple[Site, ...]](), dict[str, str](), dict[str, Any]()
    for function in functions:
        path, names, _ = read_id(function)
        if path not in files:
            files[path] = _read_sites(task, suite, path)
        found = sorted(files[path].get(names, ()), key=lambda site: _PREFERRED.index(site.kind))
        if found:
            sites[function] = tuple(found[:_SITES])
        else:
            dropped[function] = "it is not defined in its file, as far as can be read"
    return sites, dropped


def _read_sites(task: RepairTask, suite: TestSuite, path: str) -> Mapping[tuple[str, ...], tuple[Site, ...]]:
    try:
        data = suite.files[path] if path in suite.files else task.read(path)
    except KeyError:
        msg = f"the suite of task {task.id!r} has tests in {path}, which is neither in its files nor in the workspace"
        raise TaskError(msg) from None
    try:
        return find_sites(data.decode())
    except (SyntaxError, ValueError):
        return {}


def _spread(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Returns up to `count` names, evenly spread."""
    return names[:: max(1, -(-len(names) // count))]


def _lay_solution(sandbox: Any, task: RepairTask) -> None:
    if problem := lay_over(sandbox, task, solution_of(task)):
        msg = f"the solution of task {task.id!r} cannot be graded: {problem}"
        raise TaskError(msg)


def _require_pass(report: Report, task: RepairTask, suite: TestSuite, functions: tuple[str, ...]) -> None:
    names = [name for name in suite.fail_to_pass + suite.pass_to_pass if function_of(name) in functions]
    failed = [f"{name}: {word}" for name in names if (word := report.outcome(name)) != "passed"]
    if report.problem or failed:
        why = f"{report.problem} {report.detail}".strip() or ", ".join(failed[:5])
        msg = f"the solution of task {task.id!r} does not pass its suite: {why}"
        raise TaskError(msg)
