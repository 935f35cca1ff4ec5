"""Reading tasks: rows of any library, files of rows, and folders."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from agentenv.errors import TaskError
from agentenv.rows import Source, decoded, is_list, is_mapping, parse_rows

from .folders import is_folder_of_tasks, read_folders
from .humanevalfix import is_humanevalfix, read_humanevalfix
from .swebench import Repositories, is_swebench, read_swebench
from .tasks import RepairTask

__all__ = ["read_tasks"]

_NESTED = ("files", "solution", "visible", "hidden", "removed", "editable", "executable", "program", "suite", "base")


def read_tasks(
    source: Source,
    *,
    repositories: Repositories | None = None,
    on_bad_row: Literal["raise", "skip"] = "raise",
) -> tuple[RepairTask, ...]:
    """Reads tasks from rows, from a file of rows, or from a folder.

    Rows have the fields of `RepairTask`, those of HumanEvalFix (see `read_humanevalfix`), or those of SWE-bench (see
    `read_swebench`).

    Args:
        source: a file or a table of any library, anything that yields rows (see `agentenv.rows`) or `RepairTask`s, a
            folder with one task, or one with a folder for each (see `read_folder`).
        repositories: clones or mirrors for rows of SWE-bench.
        on_bad_row: `"raise"` reports all rows that are no task in one error; `"skip"` leaves them out and warns.

    Raises:
        TaskError: a row or a folder is no task; the message names the file, the line and the reason.
    """
    if isinstance(source, str | os.PathLike) and is_folder_of_tasks(path := Path(cast("str", source))):
        return read_folders(path)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        given = cast("Sequence[Any]", source)
        if given and all(isinstance(task, RepairTask) for task in given):
            return tuple(given)

    def parse(row: Mapping[str, Any], where: str) -> RepairTask:
        if is_humanevalfix(row):
            return read_humanevalfix(row)
        if is_swebench(row):
            try:
                return read_swebench(row, repositories=repositories)
            except TaskError as error:
                msg = f"{where}: {error}"
                raise ValueError(msg) from None
        return RepairTask.model_validate(_fields(row))

    tasks = tuple(parse_rows(source, parse, on_bad_row=on_bad_row, what="a repair task"))
    if not tasks:
        msg = f"there are no rows in {source!r:.200}; tasks must hold at least one task"
        raise TaskError(msg)
    return tasks


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns that have a value; what tables of a library fill in for missing entries is left out."""
    return {
        name: _without_none(decoded(value)) if name in _NESTED else value
        for name, value in row.items()
        if value is not None
    }


def _without_none(value: Any) -> Any:
    if is_mapping(value):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if is_list(value) else value
