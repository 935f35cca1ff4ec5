"""Values in the forms that a model declares: what rows and models mean, whatever they wrote it as."""

import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic

from agentenv.rows import as_text, decoded, is_list, is_mapping, plain

__all__ = ["fit_row"]

_NUMBERS = (bool, int, float)


def fit_row(row: Mapping[str, Any], model: type[pydantic.BaseModel]) -> dict[str, Any]:
    """Returns a row, or a call's arguments, with the forms that a model declares, as far as only the form differs.

    Numbers become text where text is declared, JSON text becomes a list or a mapping where one is declared, and a value
    that is missing is left out, so that a default takes its place. All else is for the model to judge.

    Raises:
        ValueError: text that should be a list or a mapping is none; the message names it.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    fitted: dict[str, Any] = {}
    for column, value in plain(row).items():
        field = fields.get(column)
        if value is None and not (field is not None and _takes_none(field.annotation)):
            continue
        try:
            fitted[column] = value if field is None else _fit(value, field.annotation)
        except ValueError as error:
            msg = f"{column}: {error}"
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
