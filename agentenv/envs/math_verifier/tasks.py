r"""What a problem is, and how the rows of known data sets become problems.

| format | fields | reference |
|---|---|---|
| ours | `question`, `reference`, ... | as it stands |
| GSM8K | `question`, `answer` ending in `#### number` | the number |
| MATH | `problem`, `solution`, and perhaps `answer`, `level`, `type` | `answer`, or the solution's last `\boxed{}` |
| AIME | `problem` or `question`, and `answer` | `answer` |

Upper and lower case of field names make no difference. `id`, `unique_id` or `ID` names the task where it is there.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pydantic

from agentenv.errors import TaskError
from agentenv.rows import Source, as_text, decoded, is_list, parse_rows, plain, shorten
from agentenv.tasks import Task

from .answers import last_boxed, plain_value
from .verifier import Verifier, shared_verifier

__all__ = ["CheckedTasks", "MathTask", "read_tasks"]

OnBadRow = Literal["raise", "skip"]


class MathTask(Task):
    """One problem. Rows of the data sets above validate into it too.

    Attributes:
        question: what the agent reads.
        reference: the right answer: a number, LaTeX, or what else math-verify understands. An answer alone, without
            words around it.
        numbers: where not empty, the answer is not a value but an expression of these numbers, each used once, that
            has the value `reference`.
        value_only: an answer that is a calculation still to be done (`3 + 4 * 2` for `11`) is wrong.
        kind: where the problem comes from: a generator's name, or a data set's.
        difficulty: the generator's dial, or the data set's level; 0 where unknown.
    """

    question: str = pydantic.Field(min_length=1)
    reference: str = pydantic.Field(min_length=1)
    numbers: tuple[int, ...] = ()
    value_only: bool = False
    kind: str = ""
    difficulty: int = 0

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_row(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = cast("Mapping[Any, Any]", plain(value))
        if "reference" in given:
            fields = {**given, "reference": _answer_text(given["reference"], "reference")}
            return fields | ({"numbers": decoded(given["numbers"]) or ()} if "numbers" in given else {})
        row = {str(name).lower(): content for name, content in given.items()}
        question = row.get("question") if row.get("question") is not None else row.get("problem")
        if question is None:
            msg = f"a row needs 'question' or 'problem', got the fields {sorted(row)}"
            raise ValueError(msg)
        kind, reference = _reference(row)
        level = str(row.get("level") or "").rsplit(maxsplit=1)
        return {
            "id": str(as_text(row.get("id") or row.get("unique_id") or "")),
            "question": question,
            "reference": reference,
            "kind": kind,
            "difficulty": int(level[-1]) if level and level[-1].isdecimal() else 0,
        }


def _reference(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the format's name and the reference answer of a row."""
    solution = row.get("solution")
    given = str(_answer_text(row.get("answer"), "answer") or "").strip()
    if "####" in given:
        return "gsm8k", given.rsplit("####", 1)[1].strip()
    boxed = last_boxed(solution) if isinstance(solution, str) else None
    if given:
        return "math" if boxed is not None else "", given
    if boxed is None:
        msg = f"a row needs 'answer', or a 'solution' with \\boxed{{}}, got the fields {sorted(row)}"
        raise ValueError(msg)
    return "math", boxed.strip()


def _answer_text(value: Any, column: str) -> Any:
    """Returns an answer as text: of a number, or of a list with one answer, which may be written as JSON."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        value = decoded(value)
    if is_list(value):
        if len(value) != 1:
            msg = (
                f"{column} must be one answer, got {len(value)} in {shorten(value)}; "
                "write a list of solutions as one text, such as '2, 3'"
            )
            raise ValueError(msg)
        value = value[0]
    return str(value) if isinstance(value, bool) else as_text(value)


class CheckedTasks(tuple[MathTask, ...]):
    """Tasks whose references have been read."""

    __slots__ = ()


def read_tasks(source: Source, *, on_bad_row: OnBadRow = "raise", verifier: Verifier | None = None) -> CheckedTasks:
    """Reads problems, and makes sure that every reference can be graded. A file that has not changed is read once.

    Args:
        source: a file, a table of any library, or anything that yields rows (see `agentenv.rows`) or `MathTask`s.
        on_bad_row: `"raise"` reports all rows that cannot be used in one error; `"skip"` leaves them out and warns.
        verifier: reads the references; by default the one that all environments of the process share.

    Raises:
        TaskError: rows cannot be used, or there is none; the message names each row, its reference and the reason.
        VerifierError: the processes that read references failed.
    """
    verifier = shared_verifier() if verifier is None else verifier
    if isinstance(source, CheckedTasks):
        return source
    if not isinstance(source, str | os.PathLike):
        return _read(source, on_bad_row, verifier)
    path = Path(cast("str", source)).resolve()
    if not path.is_file():
        return _read(path, on_bad_row, verifier)
    status = path.stat()
    return _read_file(path, status.st_mtime_ns, status.st_size, on_bad_row, verifier)


@functools.lru_cache(maxsize=8)
def _read_file(path: Path, modified: int, size: int, on_bad_row: OnBadRow, verifier: Verifier) -> CheckedTasks:
    del modified, size  # they belong to the key
    return _read(path, on_bad_row, verifier)


def _read(source: Source, on_bad_row: OnBadRow, verifier: Verifier) -> CheckedTasks:
    def parse(row: Mapping[str, Any], where: str) -> MathTask:
        del where
        task = MathTask.model_validate(row)
        if task.numbers:
            if plain_value(task.reference) is None:
                msg = f"the reference of a task with numbers must be a plain number, got {task.reference!r:.200}"
                raise ValueError(msg)
        else:
            verifier.check_reference(task.reference)
        return task

    tasks = CheckedTasks(parse_rows(source, parse, on_bad_row=on_bad_row, what="a problem"))
    if not tasks:
        msg = f"{source} has no rows" if isinstance(source, str | os.PathLike) else "tasks must hold at least one task"
        raise TaskError(msg)
    return tasks
