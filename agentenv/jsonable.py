"""Any value as JSON: what environments and tools of users return must not break an episode or a file."""

import dataclasses
import enum
import json
import math
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any, cast

import pydantic
import pydantic_core

from agentenv.rows import is_mapping, plain

__all__ = ["json_text", "json_value"]

_LONG_BITS = 2_000  # an integer with fewer has fewer digits than Python can be told to refuse to write


def json_value(value: Any) -> Any:
    """Returns a value as `None`, booleans, numbers, texts, lists and mappings with texts as keys.

    numpy's values become Python's, models and data classes mappings, sets sorted lists, NaN `None`. What JSON has no
    word for becomes text: infinities, integers of hundreds of digits (all of them), dates, objects (their `repr`), a
    value that holds itself.
    """
    try:
        return _json_value(value)
    except RecursionError:
        return f"a {type(value).__name__} that holds itself"


def json_text(value: Any) -> str:
    """Returns a value as JSON text; an integer of hundreds of digits alone, as its digits."""
    written = json_value(value)
    digits = isinstance(value, int) and isinstance(written, str)
    return written if digits else json.dumps(written, ensure_ascii=False, allow_nan=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return _json_value(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() < _LONG_BITS else f"{Decimal(value):f}"
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return _json_float(float(value))
    if is_mapping(value):
        return {_key(key): _json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_json_value(part) for part in cast("Iterable[Any]", value)]
        return parts if isinstance(value, list | tuple) else _sorted(parts)
    return _json_object(value)


def _json_float(value: float) -> float | str | None:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else json.dumps(value)


def _sorted(parts: list[Any]) -> list[Any]:
    try:
        return sorted(parts)
    except TypeError:
        return sorted(parts, key=repr)


def _json_object(value: Any) -> Any:
    if isinstance(value, pydantic.BaseModel):
        return _json_value(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    settled = plain(value)
    if type(settled) is not type(value):
        return _json_value(settled)
    with suppress(ValueError, TypeError):  # dates, paths, bytes, ...; of the others, what they say of themselves
        repr(value)
        return _json_value(pydantic_core.to_jsonable_python(value, fallback=repr))
    return _named(value)


def _key(key: Any) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    return key if isinstance(key, str) else str(_json_value(key)) if isinstance(key, int) else _named(key)


def _named(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # it holds an integer of thousands of digits
        return f"a {type(value).__name__} too long to write"
