"""Canonical forms: what makes two states, or two actions, the same."""

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pydantic

__all__ = ["canonical", "digest"]

_LARGE = 64  # the entries of an array that is told by its bytes
_LONG_BITS = 2_000  # Python refuses to write integers of more than 4,300 digits, or, where it is told to, 640


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
        case int() if value.bit_length() > _LONG_BITS:
            return {"int": hex(value)}
        case None | str() | bool() | int() | float():
            return value
        case np.generic() | np.ndarray():
            array = np.asarray(cast("Any", value))
            if array.size > _LARGE and not array.dtype.hasobject:
                content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
                return {"array": str(array.dtype), "shape": list(array.shape), "content": content}
            return {"array": str(array.dtype), "values": canonical(array.tolist())}
        case _ if type(value).__repr__ is object.__repr__:  # which shows an address
            return {"object": type(value).__qualname__, "state": canonical(value.__getstate__())}
        case _:
            return _written(value)


def _written(value: object) -> dict[str, str]:
    try:
        return {"repr": repr(value)}
    except ValueError:  # it holds an integer of thousands of digits
        return {"pickle": pickle.dumps(value).hex()}


def digest(value: Any) -> str:
    """Returns 16 hexadecimal digits that are equal, for all practical purposes, exactly where `canonical` is."""
    text = json.dumps(canonical(value), ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
