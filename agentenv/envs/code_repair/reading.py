"""Reading tasks from JSON lines and from rows of data sets."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from agentenv.errors import TaskError

from .humanevalfix import is_humanevalfix, read_humanevalfix
from .swebench import Repositories, is_swebench, read_swebench
from .tasks import RepairTask

__all__ = ["read_tasks"]


def read_tasks(
    source: str | Path | Iterable[Mapping[str, Any]], *, repositories: Repositories | None = None
) -> tuple[RepairTask, ...]:
    """Reads tasks from a file of JSON lines, or from rows such as those of a `datasets.Dataset`.

    Rows have the fields of `RepairTask`, those of HumanEvalFix (see `read_humanevalfix`), or those of SWE-bench (see
    `read_swebench`).

    Args:
        source: a file, or rows.
        repositories: clones or mirrors for rows of SWE-bench.

    Raises:
        TaskError: a row is no task; the message names the file, the line and the reason.
        OSError: the file cannot be read.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        rows = [
            (f"{path}, line {number}", line)
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if line.strip()
        ]
    else:
        rows = [(f"row {number}", row) for number, row in enumerate(source)]
    if not rows:
        msg = f"there are no rows in {source!r:.200}"
        raise TaskError(msg)
    return tuple(_read_row(row, where, repositories) for where, row in rows)


def _read_row(row: str | Mapping[str, Any], where: str, repositories: Repositories | None) -> RepairTask:
    try:
        fields = json.loads(row) if isinstance(row, str) else dict(row)
        if is_humanevalfix(fields):
            return read_humanevalfix(fields)
        if is_swebench(fields):
            return read_swebench(fields, repositories=repositories)
        return RepairTask.model_validate(fields)
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg']}" for e in error.errors(include_url=False)
        )
        msg = f"{where}: {problems}"
        raise TaskError(msg) from None
    except (ValueError, TypeError) as error:
        msg = f"{where}: {error}"
        raise TaskError(msg) from None
