"""Values that were typed on a command line, read as what a parameter is annotated with."""

import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, cast

import pydantic
from pydantic.errors import PydanticUserError
from typing_extensions import TypeAliasType

__all__ = ["annotations_of", "in_words", "read_value"]

_WORDS: dict[Any, str] = {
    bool: "true or false",
    float: "a number",
    int: "an integer",
    list: "a JSON list",
    dict: "a JSON object",
    str: "text",
    type(None): "null",
}
_SPELLINGS: dict[str, Any] = {
    "True": True,
    "False": False,
    "None": None,
    **{sign + word: float(sign + word) for sign in ("", "+", "-") for word in ("inf", "Inf", "infinity", "Infinity")},
}
"""What people who write Python type for values that JSON spells otherwise or lacks."""

_CONFIG = pydantic.ConfigDict(arbitrary_types_allowed=True)


def read_value(text: str, annotation: Any) -> Any:
    """Reads a text as what an annotation allows: as JSON or as Python spells it where that fits, otherwise as text.

    Raises:
        ValueError: nothing that the text may mean fits; the message says what would.
    """
    try:
        adapter = pydantic.TypeAdapter[Any](annotation, config=_CONFIG)
    except PydanticUserError:  # it has a configuration of its own, or cannot be understood
        adapter = None
        with suppress(PydanticUserError):
            adapter = pydantic.TypeAdapter[Any](annotation)
    for value in _readings(text):
        if adapter is None:
            return value
        with suppress(pydantic.ValidationError):
            read = adapter.validate_json(json.dumps(value), strict=True)
            return value if isinstance(read, Iterator) else read
    msg = f"must be {in_words(annotation)}, got {text!r}"
    raise ValueError(msg)


def _readings(text: str) -> Iterator[Any]:
    """Yields what a text may mean, the most particular meaning first."""
    if text in _SPELLINGS:
        yield _SPELLINGS[text]
    with suppress(json.JSONDecodeError):
        value = json.loads(text)
        if isinstance(value, float) and math.isfinite(value) and value.is_integer():
            yield int(value)  # 1e3 where an integer is wanted
        yield value
    yield text


def annotations_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns a function's parameters, each annotation resolved by itself: one that cannot be spoils no other."""
    found = dict(inspect.signature(function).parameters)
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for name, parameter in found.items():
        if isinstance(parameter.annotation, str):
            try:
                annotation = eval(parameter.annotation, names)  # noqa: S307  the code's own, as inspect does
            except Exception:  # noqa: BLE001  a type that is imported for type checkers alone
                annotation = Any
            found[name] = parameter.replace(annotation=annotation)
        elif parameter.annotation is parameter.empty:
            found[name] = parameter.replace(annotation=Any)
    return found


def in_words(annotation: Any) -> str:
    """Returns what an annotation allows, as people say it: `an integer or null`."""
    words = list(dict.fromkeys(word for kind in _kinds(annotation) for word in _say(kind)))
    python = [word for word in words if word.startswith("a Python ")]
    typed = [word for word in words if word not in python]
    return " or ".join(typed) if typed else f"{' or '.join(python)}, which a command line cannot give"


def _say(kind: Any) -> list[str]:
    if typing.get_origin(kind) is typing.Literal:
        return list(map(repr, typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [repr(member.value) for member in kind]
    name: Any = getattr(cast("Any", kind), "__name__", "object")
    return [_WORDS.get(kind) or f"a Python {name}"]


def _kinds(annotation: Any) -> list[Any]:
    """Returns what an annotation allows: literals, types of JSON values, and others."""
    if isinstance(annotation, TypeAliasType):
        return _kinds(annotation.__value__)
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType}:
        return [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return [annotation]
    plain: Any = origin or annotation
    if isinstance(plain, type) and plain not in _WORDS:
        if issubclass(plain, Path):
            return [str]
        if plain is not object and issubclass(plain, Mapping):
            return [dict]
        if issubclass(plain, Sequence | set | frozenset):
            return [list]
    return [type(None) if plain is None else plain]
