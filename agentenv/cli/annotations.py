"""Type annotations and values that were read from a command line."""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["fits", "in_words"]

_WORDS: dict[Any, str] = {
    bool: "true or false",
    float: "a number",
    int: "an integer",
    list: "a JSON list",
    dict: "a JSON object",
    str: "text",
    type(None): "null",
}


def _kinds(annotation: Any) -> list[Any]:
    """Returns what an annotation allows: literals, types of JSON values, and others."""
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType}:
        return [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
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


def fits(value: Any, annotation: Any) -> bool:
    """Whether a JSON value can stand for what a parameter is annotated with; true where that is not known."""
    return any(_is(value, kind) for kind in _kinds(annotation))


def _is(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind not in _WORDS:
        return not isinstance(kind, type) or kind in {object, inspect.Parameter.empty, Any}
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def in_words(annotation: Any) -> str:
    """Returns what an annotation allows, as people say it: `an integer or null`."""
    words: list[str] = []
    for kind in _kinds(annotation):
        if typing.get_origin(kind) is typing.Literal:
            words += map(repr, typing.get_args(kind))
        else:
            words.append(_WORDS.get(kind) or inspect.formatannotation(kind))
    return " or ".join(dict.fromkeys(words))
