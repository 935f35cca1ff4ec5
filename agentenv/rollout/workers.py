"""Threads that do blocking work, and that nobody has to wait for: what hangs is left behind."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from threading import Condition, Lock, Thread
from typing import Any, Generic, TypeVar

from agentenv.arrays import check_count

__all__ = ["Job", "Workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Job(Generic[Result]):
    """A call that a worker makes.

    Attributes:
        result: what it returned, once `done`.
        error: what it raised instead.
        done: whether it has returned or raised.
        left: whether nobody waits for it any more.
        began: when it started, on the monotonic clock; `None` while it waits for a thread.
    """

    def __init__(self, call: Callable[[], Result], on_done: "Callable[[Job[Result]], None] | None" = None) -> None:
        self.call = call
        self.on_done = on_done
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.done = self.left = False
        self.began: float | None = None

    def overdue(self, limit: float) -> bool:
        """Whether it has been running for longer than `limit` seconds."""
        return not self.done and self.began is not None and time.monotonic() - self.began >= limit


class Workers:
    """A bounded number of daemon threads.

    A job that takes longer than its limit is left: its thread goes on until the call returns, another takes its place,
    and the interpreter does not wait for it at its end.

    Args:
        most: threads at most; they start when they are needed.
    """

    def __init__(self, most: int) -> None:
        check_count("workers", most, least=1)
        self.most = most
        self._jobs: deque[Job[Any]] = deque()
        self._ready = Condition(Lock())
        self._threads = self._idle = 0
        self._closed = False

    def submit(self, jobs: "Sequence[Job[Any]]") -> None:
        """Queues jobs."""
        with self._ready:
            self._closed = False
            self._jobs.extend(jobs)
            self._ready.notify(len(jobs))
            for _ in range(min(len(self._jobs) - self._idle, self.most - self._threads)):
                self._start()

    def _start(self) -> None:
        self._threads += 1
        Thread(target=self._work, name="rollout", daemon=True).start()

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, limit: float | None = None
    ) -> "Generator[tuple[Item, Job[Result]]]":
        """Calls a function for every item; yields items and jobs as they are done, or left after `limit` seconds."""
        done: SimpleQueue[Job[Result]] = SimpleQueue()
        jobs = {Job(lambda item=item: function(item), done.put): item for item in items}
        self.submit([*jobs])
        while jobs:
            try:
                job = done.get(timeout=limit and limit / 8)
            except Empty:
                late = [job for job in self.leave_overdue([*jobs], limit or math.inf) if job.left]
            else:
                late = [job]
            for job in late:
                if job in jobs:  # one that was left may still end
                    yield jobs.pop(job), job

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, limit: float | None = None
    ) -> "list[Job[Result]]":
        """Calls a function for every item, and waits until all have returned or run for longer than `limit` seconds.

        Returns:
            The jobs, in order. Those that are not done are left.
        """
        jobs = {
            index: job
            for (index, _), job in self.each(lambda pair: function(pair[1]), [*enumerate(items)], limit=limit)
        }
        return [jobs[index] for index in range(len(items))]

    def leave_overdue(self, jobs: "Sequence[Job[Result]]", limit: float) -> "Sequence[Job[Result]]":
        """Leaves those jobs that have been running for longer than `limit` seconds; returns all."""
        with self._ready:
            for job in jobs:
                if not job.left and job.overdue(limit):
                    job.left = True
                    self._threads -= 1  # its thread counts no more, so that another may start
                    if self._jobs and self._threads < self.most:
                        self._start()
        return jobs

    def close(self) -> None:
        """Lets the threads end; jobs that wait for one are dropped. `submit` starts new ones."""
        with self._ready:
            self._closed = True
            self._jobs.clear()
            self._ready.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.result = job.call()
            except BaseException as error:  # noqa: BLE001  who waits for the job raises it
                job.error = error
            with self._ready:
                job.done = True
                left = job.left
            if job.on_done is not None:
                job.on_done(job)
            if left:
                return
            del job  # a thread that waits keeps nothing alive

    def _next(self) -> "Job[Any] | None":
        with self._ready:
            while not self._jobs:
                if self._closed:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
            job = self._jobs.popleft()
            job.began = time.monotonic()
            return job
