"""The two models that people declare inside an environment, its state and its task, and how rows become tasks."""

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral  # numpy's integers are
from typing import Any, cast

import pydantic

from agentenv.errors import TaskError
from agentenv.fitting import fit_row
from agentenv.rows import as_mapping, is_mapping, parse_rows, shorten

__all__ = ["State", "Task", "read_task", "read_tasks"]


class State(pydantic.BaseModel):
    """Everything of an environment that changes during an episode. Subclass it inside the environment.

    Every field needs a default. Fields may hold anything that pickles.
    """

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, extra="forbid")


class Task(pydantic.BaseModel):
    """One problem, with its hidden reference. Subclass it inside the environment; it never changes.

    Attributes:
        id: names the task within its data set; a digest of the task where empty.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    id: str = ""


def read_task(
    value: Any,
    model: type[pydantic.BaseModel] | None,
    tasks: Sequence[Any] = (),
    *,
    name: str = "options['task']",
    remedy: str = "",
) -> Any:
    """Returns the task that `reset(options={"task": value})` means, or that an environment drew.

    Args:
        value: a task, a mapping that fits `model`, or an index into `tasks`, or the id of one of them.
        model: the environment's `Task`; `None` where tasks have no declared shape.
        tasks: what an index or an id points into.
        name: what the value is, for the message.
        remedy: what may be given instead; by default what `reset` takes.

    Raises:
        TaskError: the index is out of range, or the value does not fit; the message names field, rule, value and
            remedy.
    """
    if isinstance(value, Integral) and len(tasks):
        index = int(value)
        if not 0 <= index < len(tasks):
            msg = f"{name} must be an index in [0, {len(tasks)}), got {index}"
            raise TaskError(msg)
        value = tasks[index]
    if model is None or isinstance(value, model):
        return value
    row: Any = as_mapping(value)
    try:
        return model.model_validate(fit_row(row, model) if is_mapping(row) else row)
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'task'}: {e['msg']}" for e in error.errors(include_url=False)
        )
    except ValueError as error:
        problems = str(error)
    named = [task for task in tasks if _id_of(task) == value] if isinstance(value, str) and value else []
    if len(named) == 1:
        return read_task(named[0], model, name=f"the task {value!r}", remedy=remedy)
    if not remedy:
        which = f", or the index or the id of one of its {len(tasks)} tasks" if len(tasks) else ""
        none = "; there are no tasks= that it could be the index or the id of" * isinstance(value, str | Integral)
        remedy = f"give a {model.__qualname__} or a mapping of its fields{which or none}"
    msg = f"{name} does not fit {model.__qualname__}: {problems}; got {shorten(value, 200)}; {remedy}"
    raise TaskError(msg)


def _id_of(task: Any) -> str:
    """The id that a task gives itself, whatever form it is in; empty where it gives none."""
    return str((task.get("id") if is_mapping(task) else getattr(task, "id", None)) or "")


def read_tasks(source: Any, model: type[pydantic.BaseModel] | None) -> Sequence[Any]:
    """Returns the tasks that `tasks=source` means.

    Args:
        source: a sequence, kept as it is (its items are read when they are drawn); or whatever `agentenv.rows` reads,
            a file or a table, whose rows are read now; or an iterator, which is read to its end.
        model: the environment's `Task`; `None` where tasks have no declared shape.

    Raises:
        TaskError: it is none of these, there are none in it, or a row does not fit; the message names row, column, rule
            and value.
    """
    tasks = _tasks_of(source, model)
    if len(tasks) == 0:
        msg = f"tasks must hold at least one task, got {shorten(source)}; without it the environment has its own"
        raise TaskError(msg)
    return tasks


def _tasks_of(source: Any, model: type[pydantic.BaseModel] | None) -> Sequence[Any]:
    table = isinstance(cast("object", source), str | os.PathLike | Mapping) or hasattr(source, "columns")
    if not table and hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return source
    if isinstance(source, set | frozenset):
        msg = "tasks must have an order, got a set; pass a list"
        raise TaskError(msg)
    if not table and isinstance(source, Iterable):
        return [read_task(item, model, name="one of tasks") for item in cast("Iterable[Any]", source)]
    if model is None:
        return parse_rows(source, lambda row, _: row)
    return parse_rows(source, lambda row, _: model.model_validate(fit_row(row, model)))
