"""Grading that cannot be talked round: the submission never meets what it is compared with.

1. `collect_submission` takes from the agent's sandbox what differs from the task's files: regular files that match
   `editable` and none of `PROTECTED`, within limits on number and size.
2. They are laid over a fresh sandbox made from the task's files, never from the agent's.
3. Each hidden case runs there in a process of its own, in that same state, and gets one input. What it answers is
   compared outside, by type and value.

Hidden test programs run in another fresh sandbox, which never holds the submission. A missing, late, doubled,
truncated or unauthenticated answer is a failed case. A sandbox that breaks raises `SandboxError`: no verdict.
"""

import functools
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from agentenv.errors import SandboxError, TaskError, VerifierError, WorkspaceError
from agentenv.protocols import ExecResult, Sandbox
from agentenv.sandboxes import SandboxSpec, open_sandbox
from agentenv.sandboxes.opening import origin_of

from .cases import Case, matches
from .tasks import PROTECTED, RepairTask, TestProgram

__all__ = ["Grade", "Grader", "OpenSandbox", "Submission", "collect_submission", "is_allowed", "spec_of"]

OpenSandbox = Callable[[SandboxSpec], Any]
"""Opens a `Sandbox`."""

_MAX_FILES = 200
_MAX_BYTES = 2 << 20
_MAX_DEPTH = 190
_ENV = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
_GUEST = (Path(__file__).parent / "guest.py").read_text(encoding="utf-8")
_TEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Submission:
    """What an agent hands in.

    Attributes:
        files: contents by path; only what differs from the task's files.
        deleted: files of the task that it removed.
        refused: why it cannot be graded and so fails; empty where it can.
    """

    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    deleted: tuple[str, ...] = ()
    refused: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what is graded."""
        content = sorted((path, hashlib.sha256(data).hexdigest()) for path, data in self.files.items())
        return hashlib.sha256(json.dumps([content, sorted(self.deleted)]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on a submission.

    Attributes:
        passed: cases that were right.
        total: cases there are; where grading stopped at the first failure, the rest counts as failed.
        reasons: why cases failed, in words that give nothing hidden away.
        digest: of the submission that was graded.
    """

    passed: int
    total: int
    reasons: tuple[str, ...] = ()
    digest: str = ""

    @property
    def solved(self) -> bool:
        """Whether every case was right."""
        return self.total > 0 and self.passed == self.total

    @property
    def fraction(self) -> float:
        """The share of cases that were right."""
        return self.passed / self.total if self.total else 0.0


def spec_of(task: RepairTask) -> SandboxSpec:
    """Returns the sandbox that a task starts in."""
    return SandboxSpec(base=task.workspace(), env=_ENV, image=task.image)


def is_allowed(path: str, task: RepairTask) -> bool:
    """Whether a file may be part of a submission."""
    return any(fnmatchcase(path, pattern) for pattern in task.editable) and not any(
        fnmatchcase(path, pattern) for pattern in PROTECTED
    )


def collect_submission(sandbox: Any, task: RepairTask) -> Submission:
    """Returns what the agent changed, of what it may hand in.

    Links, pipes and files in folders that became links are left out, as are all files that it may not change.

    Raises:
        SandboxError: the sandbox broke.
    """
    base = origin_of(spec_of(task))
    try:
        changes = [change for change in sandbox.changes(base) if is_allowed(change.path, task)]
    except SandboxError:
        if not _is_too_deep(sandbox):
            raise
        return Submission(refused="it has folders nested too deep to be collected")
    # a file that became a link or a folder is gone, as far as grading goes
    deleted = tuple(c.path for c in changes if c.kind != "added" and (c.kind == "deleted" or c.type != "file"))
    changed = [c for c in changes if c.kind != "deleted" and c.type == "file"]
    size = sum(change.size for change in changed)
    if len(changed) > _MAX_FILES or size > _MAX_BYTES:
        return Submission(
            refused=f"it has {len(changed)} changed files of {size} bytes together; "
            f"at most {_MAX_FILES} files and {_MAX_BYTES} bytes are graded"
        )
    files: dict[str, bytes] = {}
    for change in changed:
        try:
            files[change.path] = sandbox.read(change.path)
        except WorkspaceError as error:
            return Submission(refused=f"{change.path} cannot be read: {error.strerror}")
    return Submission(files, deleted)


def _is_too_deep(sandbox: Any) -> bool:
    """Whether the agent nested folders deeper than a sandbox lists them: its own doing, no broken sandbox."""
    deep = sandbox.exec(["find", ".", "-mindepth", str(_MAX_DEPTH), "-print", "-quit"])
    return bool(deep.stdout)


@dataclass(frozen=True)
class Grader:
    """Grades submissions in sandboxes of its own.

    Attributes:
        open: opens a sandbox.
        case_timeout_s: seconds on the clock for one case.
    """

    open: OpenSandbox = open_sandbox
    case_timeout_s: float = 10.0

    def grade(self, task: RepairTask, submission: Submission, *, stop_early: bool = True) -> Grade:
        """Returns the verdict of the hidden cases and the hidden test program.

        Args:
            task: the task.
            submission: what was handed in.
            stop_early: stop at the first failure.

        Raises:
            SandboxError: a sandbox broke; there is no verdict.
            TaskError: the task's test program fails on its own reference.
            VerifierError: the test program gave no answer.
        """
        noted = _record(self.open, task.program.model_dump_json()) if task.program else ()
        return self._grade(task, submission, task.hidden, noted, stop_early=stop_early)

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
        passed, reasons = 0, list[str]()
        with closing(self.open(spec_of(task))) as sandbox:
            if problem := _lay_over(sandbox, task, submission):
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


def _lay_over(sandbox: Sandbox, task: RepairTask, submission: Submission) -> str:
    """Puts the submission over the task's files; returns why that cannot be."""
    for path in (*submission.files, *submission.deleted):
        if not is_allowed(path, task):
            return f"{path} cannot be part of a submission"
    try:
        if submission.deleted:
            sandbox.exec(["rm", "-rf", "--", *submission.deleted])
        sandbox.upload(submission.files)
    except (WorkspaceError, ValueError) as error:
        return f"it cannot be laid over the task's files: {error}"
    return ""


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
    with closing(open_(SandboxSpec(env=_ENV))) as sandbox:
        request = {"nonce": nonce, "answers": answers, **program.model_dump()}
        return read_answer(_run_guest(sandbox, "test", request, _TEST_TIMEOUT_S), nonce)
