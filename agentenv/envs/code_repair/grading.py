"""Grading that cannot be talked round: the submission never meets what it is compared with.

1. `collect_submission` takes from the agent's sandbox what differs from the task's files: regular files that match
   `editable` and none of `PROTECTED`, within limits on number and size.
2. They are laid over a fresh sandbox made from the task's files, never from the agent's.
3. Each hidden case runs there in a process of its own, in that same state, and gets one input. What it answers is
   compared outside, by type and value.

Hidden test programs run in another fresh sandbox, which never holds the submission. Hidden suites share an interpreter
with the submission, and are graded by `suite_grading.py`. A missing, late, doubled, truncated or unauthenticated answer
is a failed case.

A sandbox that breaks is the submission's fault where it breaks again, and not with the task's own code: then the
verdict is that it fails. Where the task's own code breaks it too, nobody is to blame, and `SandboxError` is raised.
"""

import functools
import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from agentenv.control import with_control
from agentenv.errors import AgentFault
from agentenv.protocols import Sandbox
from agentenv.sandboxes import open_sandbox

from .cases import Case
from .interpreter import contract
from .outcomes import Outcome, read_outcome
from .programs import answer_program, record_program, run_guest
from .script_grading import STEPS, grade_script
from .scripts import TestScript
from .submissions import OpenSandbox, Submission, lay_over, solution_of, spec_of
from .suite_grading import SuiteGrader
from .tasks import RepairTask

__all__ = ["Grade", "Grader"]


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on a submission.

    Attributes:
        passed: cases that were right.
        total: cases there are; where grading stopped at the first failure, the rest counts as failed.
        reasons: why cases failed, in words that give nothing hidden away.
        digest: of the submission that was graded.
        tampered: it made a test pass that must fail; nothing else of it counts.
        blamed: it broke the sandbox that graded it, twice, which the task's own code does not.
        guess_rate: 1 where a script decides, which a submission can talk to; otherwise how likely a submission that
            makes one deciding test pass by guessing in each run whether it is a twin is not found out; 0 where only
            cases and programs decide, 1 where a deciding test has no twin.
        details: why, for whoever wrote the task: they give away what is hidden.
    """

    passed: int
    total: int
    reasons: tuple[str, ...] = ()
    digest: str = ""
    tampered: bool = False
    blamed: bool = False
    guess_rate: float = 0.0
    details: tuple[str, ...] = field(default=(), repr=False)

    @property
    def solved(self) -> bool:
        """Whether every case was right."""
        return self.total > 0 and self.passed == self.total

    @property
    def fraction(self) -> float:
        """The share of cases that were right."""
        return self.passed / self.total if self.total else 0.0


@dataclass(frozen=True)
class Grader:
    """Grades submissions in sandboxes of its own.

    Attributes:
        open: opens a sandbox.
        case_timeout_s: seconds on the clock for one case.
        rounds: runs of a hidden suite's tests, see `suite_grading.py`; a test and its twins can be told apart by
            guessing in one case of `2 ** rounds - 2`.
        secret: what is drawn for a suite depends on it; it must not be known to an agent.
    """

    open: OpenSandbox = open_sandbox
    case_timeout_s: float = 10.0
    rounds: int = 10
    secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def grade(self, task: RepairTask, submission: Submission, *, stop_early: bool = True) -> Grade:
        """Returns the verdict of the hidden cases, the hidden test program and the hidden suite.

        Args:
            task: the task.
            submission: what was handed in.
            stop_early: stop at the first failure.

        Raises:
            SandboxError: a sandbox broke, with the task's own code, too; there is no verdict.
            TaskError: the task's test program or suite fails on its own reference.
            VerifierError: the test program gave no answer on its own reference.
        """

        def judge(handed_in: Submission) -> Grade:
            return self._grade_all(task, handed_in, stop_early=stop_early)

        return _judged_with_control(judge, task, submission, lambda: _total(task, self._noted(task)))

    def _grade_all(self, task: RepairTask, submission: Submission, *, stop_early: bool) -> Grade:
        if task.script is not None:
            return self._grade_script(task, task.script, submission)
        noted = self._noted(task)
        grade = self._grade(task, submission, task.hidden, noted, stop_early=stop_early)
        if task.suite is None:
            return grade
        total = _total(task, noted)
        if submission.refused or (stop_early and grade.passed < grade.total):
            return replace(grade, total=total)
        grader = SuiteGrader(self.open, rounds=self.rounds, secret=self.secret)
        suite = grader.grade(task, task.suite, submission, stop_early=stop_early)
        passed = 0 if suite.tampered else grade.passed + suite.passed
        reasons, details = (*grade.reasons, *suite.reasons), (*grade.details, *suite.details)
        return Grade(
            passed,
            total,
            reasons,
            submission.digest,
            tampered=suite.tampered,
            guess_rate=suite.guess_rate,
            details=details,
        )

    def _grade_script(self, task: RepairTask, script: TestScript, submission: Submission) -> Grade:
        if submission.refused:
            return Grade(0, STEPS, (submission.refused,), guess_rate=1.0)
        passed, why, detail = grade_script(self.open, task, script, submission)
        reasons = (why,) if why else ()
        return Grade(passed, STEPS, reasons, submission.digest, guess_rate=1.0, details=(detail,) if why else ())

    def _noted(self, task: RepairTask) -> tuple[Any, ...]:
        return record_program(self.open, task.program.model_dump_json(), task.image) if task.program else ()

    def grade_visible(self, task: RepairTask, submission: Submission) -> Grade:
        """Returns the verdict of the visible cases, run as the hidden ones are; raises as `grade` does."""

        def judge(handed_in: Submission) -> Grade:
            return self._grade(task, handed_in, task.visible, (), stop_early=False)

        return _judged_with_control(judge, task, submission, lambda: len(task.visible))

    def _grade(
        self,
        task: RepairTask,
        submission: Submission,
        cases: tuple[Case, ...],
        noted: tuple[Any, ...],
        *,
        stop_early: bool,
    ) -> Grade:
        total = len(cases) + len(noted)
        if submission.refused:
            return Grade(0, total, (submission.refused,))
        if not total:
            return Grade(0, 0, (), submission.digest)
        passed, reasons, details = 0, list[str](), list[str]()
        with closing(self.open(spec_of(task))) as sandbox:
            if problem := lay_over(sandbox, task, submission):
                return Grade(0, total, (problem,), submission.digest, details=(problem,))
            runner = _Runner(sandbox, sandbox.snapshot(), task, self.case_timeout_s)
            for number, case in enumerate(cases, 1):
                outcome, right = self._judge(runner, task, case)
                passed += right
                if not right:
                    reasons.append(f"case {number}: {outcome.reason}")
                    details.append(f"case {number}, {case.explain(outcome)}")
                    if stop_early:
                        return Grade(passed, total, tuple(reasons), submission.digest, details=tuple(details))
            if task.program and noted:
                count, problem, detail = answer_program(
                    self.open, task.program, task.image, noted, runner.ask_of_program
                )
                passed += count
                reasons += [problem] if problem else []
                details += [detail] if detail else []
        return Grade(passed, total, tuple(reasons), submission.digest, details=tuple(details))

    def _judge(self, runner: "_Runner", task: RepairTask, case: Case) -> tuple[Outcome, bool]:
        """Returns what became of a case, and whether that is right."""
        outcome = runner.ask({"call": case.asked})
        if case.accepts(outcome):
            return outcome, True
        if case.may_derive(outcome):
            return outcome, case.accepts(outcome, _reference(self.open, task.model_dump_json(), case.call))
        if not case.compares_objects(outcome):
            return outcome, False
        if task.solution or task.removed:  # what is plain there has to be plain here
            reference = _reference(self.open, task.model_dump_json(), case.asked)
            if not case.compares_objects(reference):
                return outcome, False
        outcome = runner.ask({"call": case.call})
        return outcome, case.accepts_value(outcome)


def _judged_with_control(
    judge: Callable[[Submission], Grade], task: RepairTask, submission: Submission, total: Callable[[], int]
) -> Grade:
    """Returns the verdict on a submission; where judging breaks, the task's own code is judged, and it once more.

    Raises:
        InfrastructureError: the task's own code breaks it, too.
    """
    try:
        # the control is the untouched code where there is no solution
        return with_control(lambda: judge(submission), lambda: judge(solution_of(task)))
    except AgentFault as fault:
        why = "its grading broke, twice, and that of the task's own code did not"
        return Grade(0, total(), (why,), submission.digest, blamed=True, details=(f"{why}: {fault}",))


def _total(task: RepairTask, noted: Sequence[Any]) -> int:
    if task.script is not None:
        return STEPS
    suite = task.suite
    tests = len(suite.fail_to_pass) + len(suite.pass_to_pass) if suite else 0
    return len(task.hidden) + len(noted) + tests


@dataclass(frozen=True)
class _Runner:
    """Runs calls on a submission, each in the same state of the same sandbox."""

    sandbox: Sandbox
    state: Any
    task: RepairTask
    timeout_s: float

    def ask(self, request: dict[str, Any], *, of_program: bool = False) -> Outcome:
        """Returns what became of a call."""
        self.sandbox.restore(self.state)
        nonce = secrets.token_hex(16)
        env = spec_of(self.task).env
        whole = {"nonce": nonce, "setup": self.task.setup, "contract": contract(env), **request}
        return read_outcome(run_guest(self.sandbox, "case", whole, self.timeout_s, env), nonce, of_program=of_program)

    def ask_of_program(self, request: dict[str, Any]) -> Outcome:
        """Returns what became of a test program's call."""
        return self.ask(request, of_program=True)


@functools.lru_cache(maxsize=512)
def _reference(open_: OpenSandbox, task_json: str, call: str) -> Outcome:
    """Returns what becomes of a call on the task's own solution."""
    task = RepairTask.model_validate_json(task_json)
    with closing(open_(spec_of(task))) as sandbox:
        lay_over(sandbox, task, solution_of(task))
        return _Runner(sandbox, sandbox.snapshot(), task, 60.0).ask({"call": call})
