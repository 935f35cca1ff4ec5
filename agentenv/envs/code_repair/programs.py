"""Hidden test programs: they run in a sandbox of their own, and every call they make is answered out of process."""

import functools
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from agentenv.errors import TaskError, VerifierError
from agentenv.protocols import ExecResult, Sandbox
from agentenv.sandboxes import SandboxSpec

from .interpreter import ENV, guest_argv, guest_env, guest_source
from .outcomes import Outcome, read_record
from .submissions import OpenSandbox
from .tasks import TestProgram

__all__ = ["answer_program", "record_program", "run_guest"]

_GUEST = guest_source("entering", "functions", "wire", "guest")
_TEST_TIMEOUT_S = 60.0
_MOST_ASKED = 200


def run_guest(
    sandbox: Sandbox, mode: str, request: dict[str, Any], timeout_s: float, env: Mapping[str, str] = ENV
) -> ExecResult:
    """Runs the guest program on a request; `env` has the variables of the sandbox where the visible tests run."""
    argv = guest_argv(_GUEST, mode)
    return sandbox.exec(argv, stdin=json.dumps(request), timeout_s=timeout_s, env=guest_env(env))


@functools.lru_cache(maxsize=512)
def record_program(open_: OpenSandbox, program_json: str, image: str | None) -> tuple[Any, ...]:
    """Returns the calls that a test program makes, with the answers of its reference.

    Raises:
        TaskError: the program fails on the reference, never calls it, or a value cannot be carried.
        VerifierError: it gave no verdict.
    """
    program = TestProgram.model_validate_json(program_json)
    reply = _run(open_, program, image, None)
    if isinstance(reply, str):
        msg = f"the test program of {program.function!r} gave no verdict on its reference: {reply}"
        raise VerifierError(msg)
    calls: list[Any] = reply["calls"]
    if reply["status"] != "passed" or not calls:
        where = f" in call {len(calls)}" if calls else ""
        why = reply["error"] or "it never calls it"
        msg = f"the test program of {program.function!r} does not accept its reference{where}: {why}"
        raise TaskError(msg)
    return tuple(calls)


def answer_program(
    open_: OpenSandbox,
    program: TestProgram,
    image: str | None,
    noted: tuple[Any, ...],
    ask: Callable[[dict[str, Any]], Outcome],
) -> tuple[int, str, str]:
    """Has the submission answer the program's calls; returns how many were right, what was wrong, and more on that.

    As long as it answers as the reference does, the program goes on as it did with the reference. Only where an answer
    differs has the program itself to say whether it minds, and which call it makes next. It is not asked of an
    exception where the reference returned: many a loop takes one for its end (`zip(map(f, inputs), outputs)`).

    Args:
        open_: opens the program's sandbox.
        program: the program.
        image: its container image.
        noted: the calls with the reference's answers.
        ask: has the submission answer a request.
    """
    calls, answers = list(noted), list[Any]()
    right, diverged, outcome = 0, False, Outcome("died")
    talk = _Talk(open_, program, image, ask)
    while len(answers) <= 2 * len(noted) + 20:
        while len(answers) < len(calls):
            call, reference = calls[len(answers)]
            outcome = talk.answer(calls, answers)
            if not outcome.record or _ends_loops(outcome, reference):
                return _wrong(right, noted, len(answers) + 1, calls[len(answers)], outcome)
            answers.append([call, outcome.record])
            if outcome.record != reference:
                break
            right += 1
        else:
            if not diverged:
                return len(noted), "", ""
        diverged = True
        reply = _run(open_, program, image, answers)
        if isinstance(reply, str):
            break  # no verdict: the answers' fault
        if reply.get("status") == "passed":
            return len(noted), "", ""
        if reply.get("status") != "needs":
            break
        here, wanted = len(reply["calls"]) - 1, reply["calls"][-1]
        answers = answers[:here]
        if here >= len(calls) or calls[here][0] != wanted[0]:
            calls = [*calls[:here], wanted]
    at = max(len(answers), 1)
    return _wrong(right, noted, at, calls[at - 1], outcome)


def _ends_loops(outcome: Outcome, reference: Any) -> bool:
    """Whether a call raised and the reference did not; of a call that it never got, only what ends loops is known."""
    if reference is None:
        return not {"StopIteration", "StopAsyncIteration", "GeneratorExit"}.isdisjoint(outcome.names)
    return outcome.kind == "raised" and "raised" not in reference


def _wrong(right: int, noted: tuple[Any, ...], at: int, wanted: Any, outcome: Outcome) -> tuple[int, str, str]:
    call, reference = wanted
    problem = f"call {at} of the test program: {outcome.reason}"
    args = json.dumps([call["args"], call["kwargs"]])[:200]
    answered = json.dumps(dict(outcome.record) or None)[:200]
    detail = f"{problem}: with {args} it gave {answered}, the reference {json.dumps(reference)[:200]}"
    return min(right, len(noted) - 1), problem, detail


class _Talk:
    """Carries questions of the submission about the program's functions to the program, and the answers back.

    The submission's process ends with a question, and is started again with the answer: each side has a sandbox of its
    own, and runs from its begin.
    """

    def __init__(
        self, open_: OpenSandbox, program: TestProgram, image: str | None, ask: Callable[[dict[str, Any]], Outcome]
    ) -> None:
        self._run = functools.partial(_run, open_, program, image)
        self._function, self._ask = program.function, ask
        self._given: list[Any] = []
        self._left = _MOST_ASKED

    def answer(self, calls: list[Any], answers: list[Any]) -> Outcome:
        """Returns what became of the call that follows `answers`."""
        position = len(answers)
        self._given = [*self._given[:position], {"called": [], "read": []}]
        while True:
            outcome = self._ask({"function": self._function, "script": self._script(calls, position)})
            if not outcome.asks or not self._left:
                return outcome
            self._left -= 1
            reply = self._run(answers, asked=outcome.asks)
            new = None if isinstance(reply, str) else reply["given"]
            if new is None:
                return Outcome("died", why="it called a function of the program as that cannot be called")
            known = self._given[position]
            self._given[position] = {"called": new["called"], "read": [*known["read"], *new["read"]]}

    def _script(self, calls: list[Any], position: int) -> list[Any]:
        """Returns a call with those that it builds on: a function or an iterator that one of them returned."""
        root = _root(calls, position)
        numbers = [number for number in range(root, position + 1) if _root(calls, number) == root]
        return [[calls[number][0], self._given[number]] for number in numbers]


def _root(calls: list[Any], position: int) -> int:
    while (on := calls[position][0]["on"]) is not None:
        position = on[0]
    return position


def _run(
    open_: OpenSandbox, program: TestProgram, image: str | None, answers: list[Any] | None, asked: Any = None
) -> dict[str, Any] | str:
    """Runs the program; returns its reply, or why there is none."""
    nonce = secrets.token_hex(16)
    with closing(open_(SandboxSpec(env=ENV, image=image))) as sandbox:
        request = {"nonce": nonce, "answers": answers, "asked": asked, **program.model_dump()}
        return read_record(run_guest(sandbox, "test", request, _TEST_TIMEOUT_S), nonce)
