"""What holds for this process, not for those forked from it; and what it does once, whichever thread comes first."""

import atexit
import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

__all__ = ["Helpers", "finalize_here", "once"]

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


class _Helper(Protocol):
    @property
    def alive(self) -> bool: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


H = TypeVar("H", bound=_Helper)


class Helpers(Generic[H]):
    """Helper processes, one for each set of extra read-only folders; closed at exit, abandoned by forked children.

    Args:
        start: starts one.
    """

    def __init__(self, start: Callable[[tuple[str, ...]], H]) -> None:
        self._start = start
        self._running: dict[tuple[str, ...], H] = {}
        self._lock = threading.Lock()
        atexit.register(self._close)
        os.register_at_fork(after_in_child=self._abandon)

    def get(self, readonly: tuple[str, ...]) -> H:
        """Returns the helper for these folders, starting it unless it runs."""
        with self._lock:
            helper = self._running.get(readonly)
            if helper is None or not helper.alive:
                helper = self._running[readonly] = self._start(readonly)
            return helper

    def _close(self) -> None:
        for helper in self._running.values():
            helper.close()
        self._running.clear()

    def _abandon(self) -> None:
        for helper in self._running.values():
            helper.abandon()
        self._running.clear()
        self._lock = threading.Lock()  # another thread of the parent may have held it


def finalize_here(thing: Any, free: Callable[..., Any], *arguments: Any) -> "weakref.finalize[..., Any]":
    """Has `free` called when `thing` is gone, as `weakref.finalize`, but not in a forked child: it owns none of it."""
    return weakref.finalize(thing, _unless_forked, os.getpid(), free, *arguments)


def _unless_forked(owner: int, free: Callable[..., Any], *arguments: Any) -> None:
    if os.getpid() == owner:
        free(*arguments)
