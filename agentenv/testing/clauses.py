"""A contract as a list of laws, each tried on a subject: what `check_env` and `check_sandbox` share."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from agentenv.errors import CheckError

__all__ = ["Broken", "Clause", "ClauseResult", "Skipped", "require_kept", "try_clauses"]

Subject = TypeVar("Subject")


class Broken(Exception):
    """A law is broken: the likely cause, where one is known, and what was seen. Raised by the checks of clauses."""

    def __init__(self, cause: str | None, seen: str) -> None:
        super().__init__(f"{seen}. Likely cause: {cause}." if cause else seen)
        self.seen = seen


class Skipped(Exception):
    """Why a clause could not be tried. Raised by the checks of clauses."""


@dataclass(frozen=True, slots=True)
class Clause(Generic[Subject]):
    """One law of a contract, and how it is tried.

    Attributes:
        name: of the clause.
        law: what the contract says.
        check: tries it; raises `Broken` or `Skipped`.
    """

    name: str
    law: str
    check: Callable[[Subject], None]


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """The verdict on one law.

    Attributes:
        name: of the clause.
        law: what the contract says.
        outcome: `"passed"`, `"failed"`, or `"skipped"`.
        detail: what was seen and the likely cause, or why it was skipped.
    """

    name: str
    law: str
    outcome: Literal["passed", "failed", "skipped"]
    detail: str = ""


def try_clauses(
    subject: Subject,
    clauses: Sequence[Clause[Subject]],
    guess_cause: Callable[[Exception], str | None] = lambda _: None,
) -> list[ClauseResult]:
    """Tries every clause and returns the verdicts; a check that raises anything else is a broken law, too.

    Args:
        subject: what the checks are given.
        clauses: the laws to try.
        guess_cause: returns the likely cause of such an exception, `None` where none is known.
    """
    return [_try(clause, subject, guess_cause) for clause in clauses]


def _try(clause: Clause[Subject], subject: Subject, guess_cause: Callable[[Exception], str | None]) -> ClauseResult:
    try:
        clause.check(subject)
    except Skipped as why:
        return ClauseResult(clause.name, clause.law, "skipped", str(why))
    except Broken as finding:
        return ClauseResult(clause.name, clause.law, "failed", str(finding))
    except Exception as error:  # noqa: BLE001  a check reports on every law, whatever one of them raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        seen = f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        return ClauseResult(clause.name, clause.law, "failed", str(Broken(guess_cause(error), seen)))
    return ClauseResult(clause.name, clause.law, "passed")


def require_kept(results: Sequence[ClauseResult]) -> None:
    """Raises unless every law is kept.

    Raises:
        CheckError: laws are broken; the message quotes each and says what was seen.
    """
    if failed := [result for result in results if result.outcome == "failed"]:
        first = {result.detail: result.name for result in reversed(failed)}
        details = [r.detail if first[r.detail] == r.name else f"as for '{first[r.detail]}'" for r in failed]
        lines = (f"law '{r.name}' is broken: {r.law}\n    {d}" for r, d in zip(failed, details, strict=True))
        raise CheckError("\n".join(lines))
