"""Canonical forms: what makes two states, or two actions, the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pydantic

__all__ = ["canonical", "digest"]


def canonical(value: Any) -> Any:
    """Returns `value` as JSON values that are equal exactly where the values are: sorted keys, sorted sets.

    Numbers keep their type (`1`, `1.0` and `True` differ), as do texts and bytes, lists and sets.
    """
    match value:
        case pydantic.BaseModel():
            return {"model": type(value).__qualname__, "fields": canonical(dict(value))}
        case Mapping():
            items = cast("Mapping[Any, Any]", value).items()
            return {"mapping": sorted(([canonical(k), canonical(v)] for k, v in items), key=json.dumps)}
        case set() | frozenset():
            return {"set": sorted((canonical(v) for v in cast("set[Any]", value)), key=json.dumps)}
        case list() | tuple():
            return [canonical(v) for v in cast("Sequence[Any]", value)]
        case None | str() | bool() | int() | float():
            return value
        case np.generic() | np.ndarray():
            array = np.asarray(cast("Any", value))
            return {"array": str(array.dtype), "values": canonical(array.tolist())}
        case _ if type(value).__repr__ is object.__repr__:  # which shows an address
            return {"object": type(value).__qualname__, "state": canonical(value.__getstate__())}
        case _:
            return {"repr": repr(value)}


def digest(value: Any) -> str:
    """Returns 16 hexadecimal digits that are equal, for all practical purposes, exactly where `canonical` is."""
    text = json.dumps(canonical(value), ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
