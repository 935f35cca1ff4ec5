"""Checks of numbers that many functions take: the message names the argument, the rule and the value."""

import math

__all__ = ["check_finite", "check_whole", "is_whole"]


def is_whole(value: float) -> bool:
    """Tells whether a number is finite and whole, whatever its type."""
    return math.isfinite(value) and value == int(value)


def check_whole(name: str, value: float, minimum: int, *, why: str = "") -> int:
    """Returns a whole number; refuses one with a fraction, NaN, infinity and what is below the minimum."""
    if not is_whole(value) or value < minimum:
        msg = f"{name} must be at least {minimum} and a whole number{why}, got {value!r}"
        raise ValueError(msg)
    return int(value)


def check_finite(name: str, value: float, *, minimum: float = -math.inf) -> None:
    """Refuses NaN, infinity and what is below the minimum."""
    if not (math.isfinite(value) and value >= minimum):
        msg = f"{name} must be {'' if minimum == -math.inf else f'at least {minimum:g} and '}finite, got {value!r}"
        raise ValueError(msg)
