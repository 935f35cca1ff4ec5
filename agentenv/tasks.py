"""The two models that people declare inside an environment, its state and its task, and how rows become tasks."""

import os
import types
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral  # numpy's integers are
from typing import Annotated, Any, Union, cast, get_args, get_origin

import pydantic

from agentenv.errors import TaskError
from agentenv.rows import as_text, decoded, is_list, is_mapping, parse_rows, plain, shorten

__all__ = ["State", "Task", "fit_row", "read_task", "read_tasks"]

_NUMBERS = (bool, int, float)


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


def read_task(value: Any, model: type[pydantic.BaseModel] | None, tasks: Sequence[Any] = ()) -> Any:
    """Returns the task that `reset(options={"task": value})` means.

    Args:
        value: a task, a mapping that fits `model`, or an index into `tasks`.
        model: the environment's `Task`; `None` where tasks have no declared shape.
        tasks: what an index points into.

    Raises:
        TaskError: the index is out of range, or the value does not fit; the message names field, rule and value.
    """
    if isinstance(value, Integral) and len(tasks):
        index = int(value)
        if not 0 <= index < len(tasks):
            msg = f"options['task'] must be an index in [0, {len(tasks)}), got {index}"
            raise TaskError(msg)
        value = tasks[index]
    if model is None or isinstance(value, model):
        return value
    try:
        return model.model_validate(fit_row(value, model) if is_mapping(value) else value)
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'task'}: {e['msg']}" for e in error.errors(include_url=False)
        )
    except ValueError as error:
        problems = str(error)
    msg = f"options['task'] does not fit {model.__qualname__}: {problems}; got {shorten(value, 200)}"
    raise TaskError(msg)


def read_tasks(source: Any, model: type[pydantic.BaseModel] | None) -> Sequence[Any]:
    """Returns the tasks that `tasks=source` means.

    Args:
        source: a sequence, kept as it is (its items are read when they are drawn); or whatever `agentenv.rows` reads,
            a file or a table, whose rows are read now; or an iterator, which is read to its end.
        model: the environment's `Task`; `None` where tasks have no declared shape.

    Raises:
        TaskError: it is none of these, or a row does not fit; the message names row, column, rule and value.
    """
    table = isinstance(cast("object", source), str | os.PathLike | Mapping) or hasattr(source, "columns")
    if not table and hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return source
    if isinstance(source, set | frozenset):
        msg = "tasks must have an order, got a set; pass a list"
        raise TaskError(msg)
    if not table and isinstance(source, Iterable):
        return [read_task(item, model) for item in cast("Iterable[Any]", source)]
    if model is None:
        return parse_rows(source, lambda row, _: row)
    return parse_rows(source, lambda row, _: model.model_validate(fit_row(row, model)))


def fit_row(row: Mapping[str, Any], model: type[pydantic.BaseModel]) -> dict[str, Any]:
    """Returns a row whose values have the forms that a model declares, as far as only the form differs.

    Numbers become text where text is declared, JSON text becomes a list or a mapping where one is declared, and a value
    that is missing is left out, so that a default takes its place. All else is for the model to judge.

    Raises:
        ValueError: text that should be a list or a mapping is none; the message names the column.
    """
    fitted: dict[str, Any] = {}
    for column, value in plain(row).items():
        field = model.model_fields.get(column)
        if value is None and not (field is not None and _takes_none(field.annotation)):
            continue
        try:
            fitted[column] = value if field is None else _fit(value, field.annotation)
        except ValueError as error:
            msg = f"column {column!r}: {error}"
            raise ValueError(msg) from None
    return fitted


def _fit(value: Any, declared: Any) -> Any:
    origin, arguments = get_origin(declared) or declared, get_args(declared)
    if origin is Annotated:
        return _fit(value, arguments[0])
    if origin in {Union, types.UnionType}:
        choices = [choice for choice in arguments if choice is not type(None)]
        plain_text = str in choices and not any(choice in _NUMBERS for choice in choices)
        return _fit(value, choices[0]) if len(choices) == 1 else as_text(value) if plain_text else value
    if origin is str:
        return as_text(value)
    if not isinstance(origin, type):
        return value
    if issubclass(origin, pydantic.BaseModel):
        value = decoded(value)
        return fit_row(value, origin) if is_mapping(value) else value
    if issubclass(origin, Mapping):
        return _fit_mapping(decoded(value), arguments)
    if issubclass(origin, list | tuple | set | frozenset) or origin in {Sequence, Iterable}:
        return _fit_list(decoded(value), arguments)
    return value


def _fit_list(value: Any, arguments: tuple[Any, ...]) -> Any:
    if not is_list(value) or not arguments:
        return value
    each = arguments if len(arguments) > 1 and arguments[-1] is not Ellipsis else arguments[:1] * len(value)
    return (
        [_fit(part, declared) for part, declared in zip(value, each, strict=False)]
        if len(each) == len(value)
        else value
    )


def _fit_mapping(value: Any, arguments: tuple[Any, ...]) -> Any:
    if is_list(value) and all(is_list(pair) and len(pair) == 2 for pair in value):
        value = dict(value)  # arrow's maps
    if not is_mapping(value) or len(arguments) != 2:
        return value
    items = value.items()
    # a table gives every row the keys of all rows, with nothing behind those that the row has not
    return {key: _fit(part, arguments[1]) for key, part in items if part is not None or _takes_none(arguments[1])}


def _takes_none(declared: Any) -> bool:
    return declared is Any or type(None) in get_args(declared)
