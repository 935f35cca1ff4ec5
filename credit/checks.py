"""Checks of numbers that many functions take: the message names the argument, the rule and the value."""

import math
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import as_number

__all__ = ["check_finite", "check_number", "check_weights", "check_whole", "is_whole"]


def is_whole(value: float | np.number) -> bool:
    """Tells whether a value is a number, finite and whole, whatever its type."""
    return math.isfinite(as_number(value)) and value == int(value)


def check_number(name: str, value: object) -> None:
    """Refuses what is no number: text, a list, `None`."""
    if math.isnan(as_number(value)) and not isinstance(value, Real):
        msg = f"{name} must be a number, got {value!r:.120}"
        raise ValueError(msg)


def check_whole(name: str, value: float | np.number, minimum: int, *, why: str = "") -> int:
    """Returns a whole number; refuses one with a fraction, NaN, infinity and what is below the minimum."""
    if not is_whole(value) or value < minimum:
        msg = f"{name} must be at least {minimum} and a whole number{why}, got {value!r}"
        raise ValueError(msg)
    return int(value)


def check_finite(name: str, value: float, *, minimum: float = -math.inf) -> None:
    """Refuses NaN, infinity and what is below the minimum."""
    check_number(name, value)
    if not (math.isfinite(value) and value >= minimum):
        msg = f"{name} must be {'' if minimum == -math.inf else f'at least {minimum:g} and '}finite, got {value!r}"
        raise ValueError(msg)


def check_weights(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Reads numbers that are finite and at least 0."""
    given = np.asarray(values, dtype=np.float64)
    bad = np.ravel(~(np.isfinite(given) & (given >= 0)))
    if bad.any():
        i = int(np.argmax(bad))
        msg = f"{name} must be finite and at least 0; {name}[{i}] is {given.ravel()[i]}"
        raise ValueError(msg)
    return given
