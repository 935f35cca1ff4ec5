"""When to send: a rate per minute, how long to wait after a failure, and how long a server asks to wait."""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Backoff", "Pace", "retry_after_seconds"]


class Pace:
    """Spreads requests or tokens over time: the generic cell rate algorithm (a leaky bucket that keeps one number).

    Every amount is due when those before it have had their time, `amount / rate` each; what was not used for `burst`
    seconds may be used at once. May be shared by threads and event loops.

    Args:
        per_minute: the rate, above 0.
        burst: seconds' worth that may go out at once after a pause.
        clock: seconds; monotonic.
    """

    def __init__(self, per_minute: float, *, burst: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._free = clock()
        self._lock = threading.Lock()

    def reserve(self, amount: float = 1.0) -> float:
        """Takes an amount, and returns the seconds until it is due."""
        with self._lock:
            now = self._clock()
            due = max(self._free, now - self._burst)
            self._free = due + amount / self._rate
            return max(0.0, due - now)

    def correct(self, amount: float) -> None:
        """Takes more, or gives back (below 0), once it is known what a reservation really used."""
        with self._lock:
            self._free += amount / self._rate


class Backoff:
    """Waiting times between attempts: `min(most, first * 2^n)` times a uniform number in [0.5, 1].

    Args:
        first: seconds after the first failure.
        most: seconds at most.
    """

    def __init__(self, first: float = 0.5, most: float = 30.0) -> None:
        self.first = first
        self.most = most
        self._random = random.Random()  # noqa: S311  spreads requests, decides nothing

    def seconds(self, failures: int) -> float:
        """Returns how long to wait after so many failures in a row, at least 1."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, 60)) * self._random.uniform(0.5, 1.0)


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Returns how long a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date.

    `None` where it does not say, or says what cannot be read; a moment that has passed is 0.
    """
    if (wait := _number(headers.get("retry-after-ms"))) is not None:
        return wait / 1000
    value = headers.get("retry-after")
    if value is None or (wait := _number(value)) is not None:
        return wait
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)  # as RFC 9110 has it: always GMT
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
