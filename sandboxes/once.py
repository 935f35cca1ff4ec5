"""What holds for this process, not for those forked from it; and what it does once, whichever thread comes first."""

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["finalize_here", "once"]

P = ParamSpec("P")
T = TypeVar("T")


def once(function: Callable[P, T]) -> Callable[P, T]:
    """Returns a function that keeps its results, and that only one thread at a time computes."""
    found: dict[Any, T] = {}
    locks = [threading.Lock()]

    def renew() -> None:
        locks[0] = threading.Lock()  # another thread of the parent may have held it

    os.register_at_fork(after_in_child=renew)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        key = (args, tuple(sorted(kwargs.items())))
        with locks[0]:
            if key not in found:
                found[key] = function(*args, **kwargs)
            return found[key]

    return call


def finalize_here(thing: Any, free: Callable[..., Any], *arguments: Any) -> "weakref.finalize[..., Any]":
    """Has `free` called when `thing` is gone, as `weakref.finalize`, but not in a forked child: it owns none of it."""
    return weakref.finalize(thing, _unless_forked, os.getpid(), free, *arguments)


def _unless_forked(owner: int, free: Callable[..., Any], *arguments: Any) -> None:
    if os.getpid() == owner:
        free(*arguments)
