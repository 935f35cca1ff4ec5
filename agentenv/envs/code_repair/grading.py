"""Grading that cannot be talked round: the submission never meets what it is compared with.

1. `collect_submission` takes from the agent's sandbox what differs from the task's files: regular files that match
   `editable` and none of `PROTECTED`, within limits on number and size.
2. They are laid over a fresh sandbox made from the task's files, never from the agent's.
3. Each hidden case runs there in a process of its own, in that same state, and gets one input. What it answers is
   compared outside, by type and value.

Hidden test programs run in another fresh sandbox, which never holds the submission. Hidden suites share an interpreter
with the submission, and are graded by `suite_grading.py`. A missing, late, doubled,
truncated or unauthenticated answer is a failed case. A sandbox that breaks raises `SandboxError`: no verdict.
"""

import functools
import json
import secrets
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from agentenv.errors import TaskError, VerifierError
from agentenv.protocols import ExecResult, Sandbox
from agentenv.sandboxes import SandboxSpec, open_sandbox

from .cases import Case, matches
from .submissions import ENV, OpenSandbox, Submission, lay_over, spec_of
from .suite_grading import SuiteGrader
from .tasks import RepairTask, TestProgram

__all__ = ["Grade", "Grader"]

_GUEST = (Path(__file__).parent / "guest.py").read_text(encoding="utf-8")
_TEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on a submission.

    Attributes:
        passed: cases that were right.
        total: cases there are; where grading stopped at the first failure, the rest counts as failed.
        reasons: why cases failed, in words that give nothing hidden away.
        digest: of the submission that was graded.
        tampered: it made a test pass that must fail; nothing else of it counts.
    """

    passed: int
    total: int
    reasons: tuple[str, ...] = ()
    digest: str = ""
    tampered: bool = False

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
        rounds: runs of a hidden suite's deciding tests, see `suite_grading.py`.
        secret: what is drawn for a suite depends on it; it must not be known to an agent.
    """

    open: OpenSandbox = open_sandbox
    case_timeout_s: float = 10.0
    rounds: int = 3
    secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def grade(self, task: RepairTask, submission: Submission, *, stop_early: bool = True) -> Grade:
        """Returns the verdict of the hidden cases, the hidden test program and the hidden suite.

        Args:
            task: the task.
            submission: what was handed in.
            stop_early: stop at the first failure.

        Raises:
            SandboxError: a sandbox broke; there is no verdict.
            TaskError: the task's test program or suite fails on its own reference.
            VerifierError: the test program gave no answer.
        """
        noted = _record(self.open, task.program.model_dump_json()) if task.program else ()
        grade = self._grade(task, submission, task.hidden, noted, stop_early=stop_early)
        if task.suite is None:
            return grade
        total = grade.total + len(task.suite.fail_to_pass) + len(task.suite.pass_to_pass)
        if submission.refused or (stop_early and grade.passed < grade.total):
            return replace(grade, total=total)
        grader = SuiteGrader(self.open, rounds=self.rounds, secret=self.secret)
        suite = grader.grade(task, task.suite, submission, stop_early=stop_early)
        passed = 0 if suite.tampered else grade.passed + suite.passed
        return Grade(passed, total, (*grade.reasons, *suite.reasons), submission.digest, suite.tampered)

    def grade_visible(self, task: RepairTask, submission: Submission) -> Grade:
        """Returns the verdict of the visible cases, run as the hidden ones are."""
        return self._grade(task, submission, task.visible, (), stop_early=False)

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
        passed, reasons = 0, list[str]()
        with closing(self.open(spec_of(task))) as sandbox:
            if problem := lay_over(sandbox, task, submission):
                return Grade(0, total, (problem,), submission.digest)
            flags = () if task.image else ("-S",)  # an image may bring packages
            runner = _Runner(sandbox, sandbox.snapshot(), task.setup, self.case_timeout_s, flags)
            for number, case in enumerate(cases, 1):
                answer = runner.ask({"call": case.call})
                right = case.accepts(answer)
                passed += right
                if not right:
                    reasons.append(f"case {number}: {_reason(answer)}")
                    if stop_early:
                        return Grade(passed, total, tuple(reasons), submission.digest)
            if task.program and noted:
                count, problem = self._run_program(task.program, runner, list(noted))
                passed += count
                reasons += [problem] if problem else []
        return Grade(passed, total, tuple(reasons), submission.digest)

    def _run_program(self, program: TestProgram, runner: "_Runner", noted: list[Any]) -> tuple[int, str]:
        """Has the submission answer the program's calls; returns how many were right, and what was wrong.

        As long as it answers as the reference does, the program goes on as it did with the reference. Only where an
        answer differs has the program itself to say whether it minds, and which call it makes next.
        """
        calls, answers = noted, list[Any]()
        right, diverged = 0, False
        while len(answers) <= 2 * len(noted) + 100:
            while len(answers) < len(calls):
                call, reference = calls[len(answers)]
                answer = runner.ask({"function": program.function, "args": call[0], "kwargs": call[1]})
                answers.append([call, answer])
                if reference is None or "value" not in answer or not matches(reference, answer["value"]):
                    break
                right += 1
            else:
                if not diverged:
                    return len(noted), ""
            diverged = True
            reply = _run_program(self.open, program, answers)  # none at all is the answers' fault: a failure
            if reply.get("status") == "passed":
                return len(noted), ""
            if reply.get("status") != "needs":
                break
            here, wanted = len(reply["calls"]) - 1, reply["calls"][-1]
            answers = answers[:here]
            if here >= len(calls) or calls[here][0] != wanted[0]:
                calls = [*calls[:here], wanted]
        return min(right, len(noted) - 1), f"call {len(answers)} of the test program: {_reason(answers[-1][1])}"


@dataclass(frozen=True)
class _Runner:
    """Runs calls on a submission, each in the same state of the same sandbox."""

    sandbox: Sandbox
    state: Any
    setup: str
    timeout_s: float
    flags: tuple[str, ...]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the answer; one without `value` and `raised` where there is none that counts."""
        self.sandbox.restore(self.state)
        nonce = secrets.token_hex(16)
        result = _run_guest(
            self.sandbox, "case", {"nonce": nonce, "setup": self.setup, **request}, self.timeout_s, self.flags
        )
        return read_answer(result, nonce)


def read_answer(result: ExecResult, nonce: str) -> dict[str, Any]:
    """Returns the one record that a guest printed; `{"nothing": why}` where it is not exactly that."""
    if result.timed_out:
        return {"nothing": "timed out"}
    if result.oom:
        return {"nothing": "ran out of memory"}
    if result.truncated:
        return {"nothing": "its output was too long"}
    if result.exit_code != 0 or not result.stdout.endswith("\n") or result.stdout.count("\n") != 1:
        return {"nothing": f"it ended with exit code {result.exit_code} and without exactly one answer"}
    try:
        answer: object = json.loads(result.stdout)
    except (ValueError, RecursionError):
        return {"nothing": "its answer was not readable"}
    if not isinstance(answer, dict):
        return {"nothing": "its answer was not readable"}
    record = cast("dict[str, Any]", answer)
    if record.pop("nonce", None) != nonce:
        return {"nothing": "its answer was not authentic"}
    return record


def _run_guest(
    sandbox: Sandbox, mode: str, request: dict[str, Any], timeout_s: float, flags: Sequence[str] = ("-S",)
) -> ExecResult:
    return sandbox.exec(
        ["python3", "-I", "-B", *flags, "-c", _GUEST, mode], stdin=json.dumps(request), timeout_s=timeout_s
    )


def _reason(answer: dict[str, Any]) -> str:
    if "nothing" in answer:
        return str(answer["nothing"])
    for key, text in (("broken", "its modules could not be imported"), ("raised", "it raised")):
        if isinstance(answer.get(key), list) and answer[key]:
            return f"{text}: {answer[key][0]!s:.80}"
    return "wrong value"


# ------------------------------------------------------------------ hidden test programs


@functools.lru_cache(maxsize=512)
def _record(open_: OpenSandbox, program_json: str) -> tuple[Any, ...]:
    """Returns the calls that a test program makes, with the reference's answers.

    Raises:
        TaskError: the program fails on the reference, or never calls it.
    """
    program = TestProgram.model_validate_json(program_json)
    reply = _run_program(open_, program, None)
    if "status" not in reply:
        msg = f"the test program of {program.function!r} gave no verdict on its reference: {_reason(reply)}"
        raise VerifierError(msg)
    if reply["status"] != "passed" or not reply["calls"]:
        msg = f"the test program of {program.function!r} does not accept its reference: {reply.get('error', 'no call')}"
        raise TaskError(msg)
    return tuple(reply["calls"])


def _run_program(open_: OpenSandbox, program: TestProgram, answers: list[Any] | None) -> dict[str, Any]:
    nonce = secrets.token_hex(16)
    with closing(open_(SandboxSpec(env=ENV))) as sandbox:
        request = {"nonce": nonce, "answers": answers, **program.model_dump()}
        return read_answer(_run_guest(sandbox, "test", request, _TEST_TIMEOUT_S), nonce)
