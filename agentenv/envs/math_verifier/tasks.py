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
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pydantic

from agentenv.errors import TaskError
from agentenv.tasks import Task

from .answers import last_boxed

__all__ = ["MathTask", "read_tasks"]


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
        if not isinstance(value, Mapping) or "reference" in value:
            return cast("Any", value)
        row = {str(name).lower(): content for name, content in cast("Mapping[Any, Any]", value).items()}
        question = row.get("question", row.get("problem"))
        if question is None:
            msg = f"a row needs 'question' or 'problem', got the fields {sorted(row)}"
            raise ValueError(msg)
        kind, reference = _reference(row)
        level = str(row.get("level", "")).rsplit(maxsplit=1)
        return {
            "id": str(row.get("id") or row.get("unique_id") or ""),
            "question": question,
            "reference": reference,
            "kind": kind,
            "difficulty": int(level[-1]) if level and level[-1].isdecimal() else 0,
        }


def _reference(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the format's name and the reference answer of a row."""
    answer, solution = row.get("answer"), row.get("solution")
    given = "" if answer is None else str(answer).strip()
    if "####" in given:
        return "gsm8k", given.rsplit("####", 1)[1].strip()
    boxed = last_boxed(solution) if isinstance(solution, str) else None
    if given:
        return "math" if boxed is not None else "", given
    if boxed is None:
        msg = f"a row needs 'answer', or a 'solution' with \\boxed{{}}, got the fields {sorted(row)}"
        raise ValueError(msg)
    return "math", boxed.strip()


def read_tasks(path: str | Path) -> tuple[MathTask, ...]:
    """Reads a file of JSON lines, one row each. A file that has not changed is read once per process.

    Raises:
        TaskError: a line is no row, or there is none; the message names the file, the line and the reason.
        OSError: the file cannot be read.
    """
    path = Path(path).resolve()
    status = path.stat()
    return _read_file(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _read_file(path: Path, modified: int, size: int) -> tuple[MathTask, ...]:
    del modified, size  # they belong to the key
    tasks: list[MathTask] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                tasks.append(_read_line(line, f"{path}, line {number}"))
    if not tasks:
        msg = f"{path} has no rows"
        raise TaskError(msg)
    return tuple(tasks)


def _read_line(line: bytes, where: str) -> MathTask:
    try:
        return MathTask.model_validate(json.loads(line.decode()))
    except pydantic.ValidationError as error:
        details = error.errors(include_url=False)
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg']}" for e in details)
        msg = f"{where}: {problems}"
        raise TaskError(msg) from None
    except ValueError as error:  # not UTF-8, or not JSON
        msg = f"{where}: {error}"
        raise TaskError(msg) from None
