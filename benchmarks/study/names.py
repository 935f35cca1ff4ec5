"""Things by their names."""

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["named"]

T = TypeVar("T")


def named(kind: str, known: Mapping[str, T], name: str) -> T:
    """Returns the thing of a name.

    Args:
        kind: what it is, for the message.
        known: all that there are.
        name: of the one.

    Raises:
        ValueError: there is none of that name; the message lists the names.
    """
    if name not in known:
        msg = f"{kind} must be one of {', '.join(known)}, got {name!r}"
        raise ValueError(msg)
    return known[name]
