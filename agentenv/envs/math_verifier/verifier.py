"""`Verifier`: whether an answer says what a reference says; computer algebra runs in worker processes."""

import functools
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeVar

from agentenv.errors import TaskError

from .answers import plain_value
from .comparison import NeedsSympy, is_value, leaves, same
from .pool import RequestError, WorkerPool
from .reading import Reading, UnreadableError, read

__all__ = ["MAX_ANSWER", "Verdict", "Verifier", "shared_verifier"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
MAX_ANSWER = 2_000
"""Characters of an answer; a longer one is wrong."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an answer.

    Attributes:
        right: whether it says what the reference says.
        reason: why there was nothing to compare: the answer cannot be read, or breaks the limits; empty otherwise.
        broke: whether the answer overran a limit or broke the worker that compared it.
    """

    right: bool
    reason: str = ""
    broke: bool = False


class Verifier:
    """Compares answers with references.

    Both are read (`read`) and compared here and now where numbers, words, and lists of them are all there is; where
    computer algebra is needed, in worker processes, once: verdicts are kept. May be used from any thread.

    The three outcomes of `check`:

    - `True` or `False`. An answer is also wrong that says nothing or several things, that is too long, that needs more
      processor time or memory than allowed, or that breaks the workers where another request does not.
    - `VerifierError`: the processes fail with any request. Neither right nor wrong.
    - `TaskError`: the reference itself cannot be read.

    Args:
        pool: where sympy runs; by default a pool of this verifier's own, started when first needed.
        cache_size: verdicts that are kept, and as many readings of references.
    """

    def __init__(self, pool: WorkerPool | None = None, *, cache_size: int = 16_384) -> None:
        self.pool = WorkerPool() if pool is None else pool
        self._cache_size = cache_size
        self._verdicts: OrderedDict[tuple[str, str, bool], Verdict] = OrderedDict()
        self._references: OrderedDict[str, Reading] = OrderedDict()
        self._lock = threading.Lock()

    def check_reference(self, reference: str) -> None:
        """Makes sure that a reference can be read.

        Raises:
            TaskError: it cannot; the message says why.
            VerifierError: the processes failed.
        """
        if plain_value(reference) is None:
            self._read_reference(reference)

    def _read_reference(self, reference: str) -> Reading:
        known = self._recall(self._references, reference)
        if known is not None:
            return known
        try:
            reading = read(reference)
            reason = self._unmakeable(reading)
        except UnreadableError as error:
            reading, reason = [], str(error)
        except RequestError as error:
            reading, reason = [], f"reading it needs {error}" if "than" in str(error) else str(error)
        if reason:
            msg = f"a task's reference must be a number, a word or LaTeX; {reason}: {reference!r:.200}"
            raise TaskError(msg)
        self._remember(self._references, reference, reading)
        return reading

    def _unmakeable(self, reading: Reading) -> str:
        """Returns why sympy cannot make what a reading holds; empty where it can."""
        if all(leaf[0] not in {"tree", "latex"} for leaf in leaves(reading)):
            return ""
        reply = self.pool.call({"op": "parse", "reading": reading})
        return "" if reply["parsed"] else f"math-verify's parser cannot read it ({reply['reason']})"

    def check(self, reference: str, answer: str, *, value_only: bool = False) -> bool:
        """Returns whether the answer says what the reference says.

        Args:
            reference: the right answer, without words around it.
            answer: a number, an expression, LaTeX, or a sentence that states one.
            value_only: an answer that is a calculation still to be done (`3 + 4 * 2` for `11`) is wrong.

        Raises:
            TaskError: the reference cannot be read.
            VerifierError: the processes failed: no verdict.
        """
        return self.judge(reference, answer, value_only=value_only).right

    def judge(self, reference: str, answer: str, *, value_only: bool = False) -> Verdict:
        """Returns the verdict with its reason; arguments and errors are those of `check`."""
        expected, given = plain_value(reference), plain_value(answer)
        if expected is not None and given is not None:
            return Verdict(expected == given)
        if len(answer) > MAX_ANSWER:
            return Verdict(right=False, reason=f"longer than {MAX_ANSWER} characters")
        key = (reference, answer, value_only)
        known = self._recall(self._verdicts, key)
        if known is None:
            known = self._judge(self._read_reference(reference), answer, value_only)
            self._remember(self._verdicts, key, known)
        return known

    def _judge(self, gold: Reading, answer: str, value_only: bool) -> Verdict:
        try:
            given = read(answer)
        except UnreadableError as error:
            return Verdict(right=False, reason=str(error))
        if value_only and not is_value(given):
            return Verdict(right=False, reason="a calculation, not a value")
        try:
            return Verdict(same(gold, given, _ask))
        except NeedsSympy:
            pass
        try:
            return Verdict(bool(self.pool.call({"op": "verify", "gold": gold, "answer": given})["right"]))
        except RequestError as error:
            return Verdict(right=False, reason=str(error), broke=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_verifier, (self.pool, self._cache_size)

    def close(self) -> None:
        """Ends the worker processes; the next check starts new ones."""
        self.pool.close()

    def _recall(self, cache: OrderedDict[_Key, _Value], key: _Key) -> _Value | None:
        with self._lock:
            if key not in cache:
                return None
            cache.move_to_end(key)
            return cache[key]

    def _remember(self, cache: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
        with self._lock:
            cache[key] = value
            while len(cache) > self._cache_size:
                cache.popitem(last=False)


def _ask(gold: Reading, answer: Reading) -> bool:
    del gold, answer
    raise NeedsSympy


def _make_verifier(pool: WorkerPool, cache_size: int) -> Verifier:
    return Verifier(pool, cache_size=cache_size)


@functools.cache
def shared_verifier() -> Verifier:
    """Returns the verifier that all environments of this process share."""
    return Verifier()
