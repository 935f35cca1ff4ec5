"""Grading by hidden test suites: in some runs, some tests are replaced by their twins.

Which, is drawn for each grading from a secret that never enters a sandbox. A test must pass in every run in which it is
real; one that passes and whose twin passes too is proof of tampering: the grade is 0. A report that is missing, late,
doubled or not authentic fails the suite.
"""

import functools
import hashlib
import json
import secrets
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from .submissions import OpenSandbox, Submission, lay_over
from .suite_planning import Plan, draw_runs, make_plan
from .suite_running import Report, Run, function_of, open_suite, run_suite
from .suites import TestSuite
from .tasks import RepairTask

__all__ = ["SuiteGrader", "SuiteVerdict", "plan_of"]


@dataclass(frozen=True)
class SuiteVerdict:
    """What a suite says of a submission.

    Attributes:
        passed: tests that passed.
        total: tests there are.
        reasons: what was wrong.
        tampered: a test passed that no right solution passes.
        guess_rate: how likely guessing is not found out, see `Plan.guess_rate`.
        details: what was wrong, for whoever wrote the task.
    """

    passed: int
    total: int
    reasons: tuple[str, ...] = ()
    tampered: bool = False
    guess_rate: float = 0.0
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class SuiteGrader:
    """Grades submissions by hidden test suites.

    Attributes:
        open: opens a sandbox.
        rounds: runs in which the tests with twins take part. Guessing which runs have the twin of one test is right in
            one case of `2 ** rounds - 2`: 1,022 with ten. Each run costs a sandbox and the tests' own time; only what
            passes comes to the last, for the first real test that fails, or twin that passes, ends it.
        secret: what is drawn depends on; equal gradings with an equal secret are equal.
    """

    open: OpenSandbox
    rounds: int = 10
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
        plan = plan_of(self.open, task, suite)
        names = suite.fail_to_pass + suite.pass_to_pass
        generator = self._generator(task, submission)
        tally = _Tally(names)
        with closing(open_suite(self.open, task, suite)) as sandbox:
            if problem := lay_over(sandbox, task, submission):
                return SuiteVerdict(0, len(names), (problem,), details=(problem,))
            for run in draw_runs(plan, self.rounds, generator):
                report = run_suite(sandbox, task, suite, run, generator)
                if problem := report.problem or tally.add(run, report):
                    details = (f"{problem} {report.detail}".strip(),)
                    return SuiteVerdict(0, len(names), (problem,), report.tampered, details=details)
                if stop_early and (tally.wrong or tally.is_tampered()):
                    break
        if not (tally.wrong and stop_early) and tally.is_tampered():
            why = "a test passed with a right expectation and with a wrong one: it was tampered with"
            return SuiteVerdict(0, len(names), (why,), tampered=True, details=(why,))
        wrong, details = tuple(tally.wrong.values()), tuple(f"{name}: {why}" for name, why in tally.wrong.items())
        guess_rate = plan.guess_rate(self.rounds)
        passed = len(tally.right - tally.wrong.keys())
        return SuiteVerdict(passed, len(names), wrong, guess_rate=guess_rate, details=details)

    def _generator(self, task: RepairTask, submission: Submission) -> np.random.Generator:
        text = json.dumps([self.secret, task.id, submission.digest])
        return np.random.default_rng([*hashlib.sha256(text.encode()).digest()])


class _Tally:
    """What the runs of one grading came to.

    Args:
        names: the tests that decide.

    Attributes:
        right: those that passed.
        wrong: those that did not in some run, with what is said of them.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.right: set[str] = set()
        self.wrong: dict[str, str] = {}
        self._names = names
        self._real: dict[str, list[tuple[str, ...]]] = {}
        self._twins: dict[str, list[tuple[str, ...]]] = {}

    def add(self, run: Run, report: Report) -> str:
        """Takes a report in; returns why it cannot be one, where functions have another number of tests than before."""
        for function in run.functions:
            into = self._twins if function in run.twins else self._real
            into.setdefault(function, []).append(report.words(function))
        for number, name in enumerate(self._names, 1):
            if (function := function_of(name)) in run.functions and function not in run.twins:
                self.right.add(name)
                if (word := report.outcome(name)) != "passed":
                    self.wrong[name] = f"test {number}: {word}"
        for function in run.functions:
            seen = self._real.get(function, []) + self._twins.get(function, [])
            if len({len(words) for words in seen}) > 1:
                return "a test function had more tests in one run than in another"
        return ""

    def is_tampered(self) -> bool:
        """Whether a test passed as it is, in every run so far, and also with a wrong expectation.

        Wrong code may pass one of them.

        The parameters of a function are told apart by their place: a twin's may have other names.
        """
        return any(
            set(real) == {"passed"} and "passed" in replaced
            for function, twins in self._twins.items()
            for real, replaced in zip(
                zip(*self._real.get(function, []), strict=True), zip(*twins, strict=True), strict=False
            )
        )


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
    return make_plan(open_, keyed.task, keyed.suite, seed=keyed.digest)


def plan_of(open_: OpenSandbox, task: RepairTask, suite: TestSuite) -> Plan:
    """Returns what is to be known of a suite, which is found out once.

    Raises:
        SandboxError: a sandbox broke.
        TaskError: the task's own solution does not pass.
    """
    return _plan_of(open_, _Keyed(task, suite))
