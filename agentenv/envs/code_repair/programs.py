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
    differs has the program itself to say whether it minds, and which call it makes next.

    Args:
        open_: opens the program's sandbox.
        program: the program.
        image: its container image.
        noted: the calls with the reference's answers.
        ask: has the submission answer a request.
    """
    calls, answers = list(noted), list[Any]()
    right, diverged, outcome = 0, False, Outcome("died")
    while len(answers) <= 2 * len(noted) + 20:
        while len(answers) < len(calls):
            call, reference = calls[len(answers)]
            outcome = ask({"function": program.function, "script": _script(calls, len(answers))})
            if not outcome.record:
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


def _wrong(right: int, noted: tuple[Any, ...], at: int, wanted: Any, outcome: Outcome) -> tuple[int, str, str]:
    call, reference = wanted
    problem = f"call {at} of the test program: {outcome.reason}"
    args = json.dumps([call["args"], call["kwargs"]])[:200]
    answered = json.dumps(dict(outcome.record) or None)[:200]
    detail = f"{problem}: with {args} it gave {answered}, the reference {json.dumps(reference)[:200]}"
    return min(right, len(noted) - 1), problem, detail


def _script(calls: list[Any], position: int) -> list[Any]:
    """Returns a call with those that it builds on: a function or an iterator that one of them returned."""
    root = _root(calls, position)
    return [calls[number][0] for number in range(root, position + 1) if _root(calls, number) == root]


def _root(calls: list[Any], position: int) -> int:
    while (on := calls[position][0]["on"]) is not None:
        position = on[0]
    return position


def _run(
    open_: OpenSandbox, program: TestProgram, image: str | None, answers: list[Any] | None
) -> dict[str, Any] | str:
    """Runs the program; returns its reply, or why there is none."""
    nonce = secrets.token_hex(16)
    with closing(open_(SandboxSpec(env=ENV, image=image))) as sandbox:
        request = {"nonce": nonce, "answers": answers, **program.model_dump()}
        return read_record(run_guest(sandbox, "test", request, _TEST_TIMEOUT_S), nonce)
