"""Calls that are made ahead of time, one after another, in one thread."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import takewhile
from typing import Any, Generic, TypeVar

__all__ = ["Ahead"]

Result = TypeVar("Result")


class Ahead(Generic[Result]):
    """Makes calls in the order in which they are given, in a thread of its own, and hands out results in that order.

    Nothing is dropped: a call that takes long delays the others, and whoever takes its result waits for it.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._results: deque[Future[Result]] = deque()

    def __len__(self) -> int:
        """How many results are to come, those included that are there already."""
        return len(self._results)

    def call(self, function: Callable[[], Result]) -> None:
        """Has a function called after those before it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="agentenv-ahead")
        self._results.append(self._pool.submit(function))

    def take(self) -> Result:
        """Waits for the next result and returns it; raises what its call raised.

        Raises:
            IndexError: no call was made.
        """
        return self._results.popleft().result()

    def wait(self) -> list[Result]:
        """Waits for all calls and returns their results, up to the first that raised; all stay to be taken."""
        wait(self._results)
        return [future.result() for future in takewhile(_went_through, self._results)]

    def restore(self, results: Iterable[Result]) -> None:
        """Puts back results that `wait` returned, in place of all that is to come."""
        self.close()
        for result in results:
            future: Future[Result] = Future()
            future.set_result(result)
            self._results.append(future)

    def close(self) -> None:
        """Drops the calls that have not begun, waits for the one that has, and ends the thread. May be called twice."""
        self._results.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _went_through(future: Future[Any]) -> bool:
    return future.exception() is None
