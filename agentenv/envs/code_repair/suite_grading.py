"""Grading by hidden test suites: in some runs, some tests are replaced by their twins.

Which, is drawn for each grading from a secret that never enters a sandbox. A test must pass in every run in which it is
real; one that passes and whose twin passes too is proof of tampering: the grade is 0. A report that is missing, late,
doubled or not authentic fails the suite.
"""

import functools
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agentenv.errors import TaskError

from .submissions import OpenSandbox, Submission, lay_over, solution_of
from .suite_running import Report, Run, function_of, open_suite, run_suite
from .suites import TestSuite, read_id
from .tasks import RepairTask
from .twins import Edit, Site, find_sites

__all__ = ["Plan", "SuiteGrader", "SuiteVerdict", "draw_runs", "make_plan"]

_SITES = 6
_SAMPLE = 20
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

    @property
    def sampled(self) -> tuple[str, ...]:
        """The others that have twins."""
        return () if self.together else tuple(name for name in self.others if name in self.sites)


@dataclass(frozen=True)
class SuiteVerdict:
    """What a suite says of a submission.

    Attributes:
        passed: tests that passed.
        total: tests there are.
        reasons: what was wrong.
        tampered: a test passed that no right solution passes.
    """

    passed: int
    total: int
    reasons: tuple[str, ...] = ()
    tampered: bool = False


@dataclass(frozen=True)
class SuiteGrader:
    """Grades submissions by hidden test suites.

    Attributes:
        open: opens a sandbox.
        rounds: runs in which the tests of `fail_to_pass` take part.
        secret: what is drawn depends on; equal gradings with an equal secret are equal.
    """

    open: OpenSandbox
    rounds: int = 3
    secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def __post_init__(self) -> None:
        if self.rounds < 2:
            msg = f"rounds must be at least 2, for each test is real in one and replaced in one, got {self.rounds}"
            raise ValueError(msg)

    def grade(self, task: RepairTask, suite: TestSuite, submission: Submission, *, stop_early: bool) -> SuiteVerdict:
        """Returns the verdict on a submission.

        Raises:
            SandboxError: a sandbox broke; there is no verdict.
            TaskError: the task's own solution does not pass.
        """
        plan = _plan_of(self.open, _Keyed(task, suite))
        names = suite.fail_to_pass + suite.pass_to_pass
        generator = self._generator(task, submission)
        right, wrong, fooled, counts = set[str](), dict[str, str](), set[str](), dict[str, int]()
        with closing(open_suite(self.open, task, suite)) as sandbox:
            if problem := lay_over(sandbox, task, submission):
                return SuiteVerdict(0, len(names), (problem,))
            state = sandbox.snapshot()
            for run in draw_runs(plan, self.rounds, generator):
                report = run_suite(sandbox, state, task, suite, run, generator)
                if problem := report.problem or _miscounted(report, run, counts):
                    return SuiteVerdict(0, len(names), (problem,), report.tampered)
                fooled |= {function_of(name) for name, word in report.outcomes.items() if word == "passed"} & {
                    *run.twins
                }
                for number, name in enumerate(names, 1):
                    if (function := function_of(name)) in run.functions and function not in run.twins:
                        right.add(name)
                        if (word := report.outcome(name)) != "passed":
                            wrong[name] = f"test {number}: {word}"
                if wrong and stop_early:
                    return SuiteVerdict(len(right - wrong.keys()), len(names), tuple(wrong.values()))
        # wrong code may pass a twin, but not also the test
        if fooled - {function_of(name) for name in wrong}:
            why = "a test passed with a right expectation and with a wrong one: it was tampered with"
            return SuiteVerdict(0, len(names), (why,), tampered=True)
        return SuiteVerdict(len(right - wrong.keys()), len(names), tuple(wrong.values()))

    def _generator(self, task: RepairTask, submission: Submission) -> np.random.Generator:
        text = json.dumps([self.secret, task.id, submission.digest])
        return np.random.default_rng([*hashlib.sha256(text.encode()).digest()])


def _miscounted(report: Report, run: Run, counts: dict[str, int]) -> str:
    """Says so where a function did not have as many tests as in earlier runs, which are noted in `counts`."""
    found = dict.fromkeys(run.functions, 0)
    for name in report.outcomes:
        found[function_of(name)] += 1
    differ = any(counts.setdefault(function, count) != count for function, count in found.items())
    return "a test function had more tests in one run than in another" if differ else ""


def draw_runs(plan: Plan, rounds: int, generator: np.random.Generator) -> list[Run]:
    """Returns the runs of one grading.

    The first has all tests, the others those of `fail_to_pass`, and the second also the others with twins. Every
    function with twins is real at least once and replaced at least once; beyond that each is drawn for itself.
    """
    replaced: list[dict[str, Site]] = [{} for _ in range(rounds)]
    common = _draw_pattern(rounds, generator)
    for name in plan.deciding:
        for number, twin in enumerate(common if plan.together else _draw_pattern(rounds, generator)):
            if twin and name in plan.sites:
                replaced[number][name] = _draw_site(plan.sites[name], generator)
    for name in plan.sampled:
        replaced[int(generator.integers(2))][name] = _draw_site(plan.sites[name], generator)
    functions = [plan.functions, plan.deciding + plan.sampled, *[plan.deciding] * (rounds - 2)]
    return [Run(names, twins) for names, twins in zip(functions, replaced, strict=True)]


def _settled(site: Site, generator: np.random.Generator) -> Site:
    """Returns a place that is wrong in one way only, where trying one way does not speak for another."""
    if site.sure:
        return site
    edits = site.make(generator)

    def same(_: np.random.Generator) -> tuple[Edit, ...]:
        return edits

    return replace(site, make=same)


def _draw_pattern(rounds: int, generator: np.random.Generator) -> list[bool]:
    """Returns in which rounds there is a twin: in some, not in all."""
    number = int(generator.integers(1, (1 << rounds) - 1))
    return [bool(number >> place & 1) for place in range(rounds)]


def _draw_site(sites: tuple[Site, ...], generator: np.random.Generator) -> Site:
    """Returns one of the places, more often one where the twin does not look like one."""
    natural = [site for site in sites if site.kind not in {"turned", "added"}]
    chosen = natural if natural and generator.integers(4) else sites
    return chosen[int(generator.integers(len(chosen)))]


# ------------------------------------------------------------------ planning


@dataclass(frozen=True, eq=False)
class _Keyed:
    """A task and its suite, equal where their content is."""

    task: RepairTask
    suite: TestSuite

    @functools.cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(f"{self.task.model_dump_json()}{self.suite.model_dump_json()}".encode()).digest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.digest == other.digest


@functools.lru_cache(maxsize=256)
def _plan_of(open_: OpenSandbox, keyed: _Keyed) -> Plan:
    return make_plan(open_, keyed.task, keyed.suite)


def make_plan(open_: OpenSandbox, task: RepairTask, suite: TestSuite) -> Plan:
    """Returns what is to be known of a suite; its twins are tried on the task's solution, where there is one.

    Without a solution, only places are used of which it is certain that a right solution fails them.

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
    generator = np.random.default_rng(0)
    with closing(open_suite(open_, task, suite)) as sandbox:
        state = _with_solution(sandbox, task)

        def run(names: tuple[str, ...], twins: Mapping[str, Site]) -> Report:
            return run_suite(sandbox, state, task, suite, Run(names, twins), generator)

        _require_pass(run(deciding + others, {}), task, suite, deciding + others)
        part = (*deciding, *(name for name in others if name in sites))
        _require_pass(run(part, {}), task, suite, part)
        sites = {name: tuple(_settled(site, generator) for site in found) for name, found in sites.items()}
        tried = {name: list[Site]() for name in sites}
        for number in range(max(map(len, sites.values()), default=0)):
            twins = {name: found[number] for name, found in sites.items() if number < len(found)}
            report = run(part, twins)
            passed = {function_of(name) for name, word in report.outcomes.items() if word == "passed"}
            for name, site in twins.items():
                if report.problem or name in passed:
                    why = report.problem or "it passes on the solution"
                    dropped[f"{name}: twin {number + 1}, {site.kind}"] = why
                else:
                    tried[name].append(site)
        sites = {name: tuple(found) for name, found in tried.items()}
        plan = _plan(deciding, others, sites, dropped, together=False)
        together = any(
            report.outcome(name) != "passed"
            for one in draw_runs(plan, 2, generator)
            for report in (run(one.functions, one.twins),)
            for name in suite.fail_to_pass
            if function_of(name) not in one.twins
        )
    return _plan(deciding, others, sites, dropped, together=together)


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


def _with_solution(sandbox: Any, task: RepairTask) -> Any:
    if problem := lay_over(sandbox, task, solution_of(task)):
        msg = f"the solution of task {task.id!r} cannot be graded: {problem}"
        raise TaskError(msg)
    return sandbox.snapshot()


def _require_pass(report: Report, task: RepairTask, suite: TestSuite, functions: tuple[str, ...]) -> None:
    names = [name for name in suite.fail_to_pass + suite.pass_to_pass if function_of(name) in functions]
    failed = [
        f"{name}: {report.outcomes.get(name, 'missing')}" for name in names if report.outcomes.get(name) != "passed"
    ]
    if report.problem or failed:
        why = f"{report.problem} {report.detail}".strip() or ", ".join(failed[:5])
        msg = f"the solution of task {task.id!r} does not pass its suite: {why}"
        raise TaskError(msg)
