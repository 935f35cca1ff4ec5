"""`Verifier`: whether an answer equals a reference, by math-verify in worker processes."""

import functools
import threading
from collections import OrderedDict
from typing import Any

from agentenv.errors import TaskError

from .answers import plain_value, quote
from .pool import RequestError, WorkerPool

__all__ = ["MAX_ANSWER", "Verifier", "shared_verifier"]

MAX_ANSWER = 2_000
"""Characters of an answer; a longer one is wrong."""


class Verifier:
    """Compares answers with references.

    Two plain numbers are compared here and now (`plain_value`), anything else by math-verify in worker processes, once:
    verdicts are kept. May be used from any thread.

    The three outcomes of `check`:

    - `True` or `False`: math-verify's verdict. An answer is also wrong that nobody can parse, that is too long, or that
      needs more processor time or memory than allowed.
    - `VerifierError`: the processes failed for another reason. Neither right nor wrong.
    - `TaskError`: the reference itself cannot be parsed within the limits.

    Args:
        pool: where math-verify runs; by default a pool of this verifier's own, started when first needed.
        cache_size: verdicts that are kept.
    """

    def __init__(self, pool: WorkerPool | None = None, *, cache_size: int = 16_384) -> None:
        self.pool = WorkerPool() if pool is None else pool
        self._cache_size = cache_size
        self._verdicts: OrderedDict[tuple[str, str, bool], bool] = OrderedDict()
        self._lock = threading.Lock()

    def check_reference(self, reference: str) -> None:
        """Makes sure that math-verify can read a reference.

        Raises:
            TaskError: it cannot.
            VerifierError: the processes failed.
        """
        if plain_value(reference) is not None or self._recall((reference, "", False)) is not None:
            return
        try:
            readable = bool(self.pool.call({"op": "parse", "text": quote(reference)})["parsed"])
            reason = "math-verify cannot parse it"
        except RequestError as error:
            readable, reason = False, f"parsing it needs {error}" if "than" in str(error) else str(error)
        if not readable:
            msg = f"a task's reference must be a number, a word or LaTeX; {reason}: {reference!r:.200}"
            raise TaskError(msg)
        self._remember((reference, "", False), right=False)  # an empty answer equals no reference

    def check(self, reference: str, answer: str, *, value_only: bool = False) -> bool:
        """Returns whether the answer equals the reference.

        Args:
            reference: the right answer, without words around it.
            answer: a number, an expression, LaTeX, or a sentence that holds one.
            value_only: an answer that is a calculation still to be done (`3 + 4 * 2` for `11`) is wrong. math-verify
                alone would find it right.

        Raises:
            TaskError: the reference cannot be parsed.
            VerifierError: the processes failed: no verdict.
        """
        expected, given = plain_value(reference), plain_value(answer)
        if expected is not None and given is not None:
            return expected == given
        if len(answer) > MAX_ANSWER or not answer.strip():
            return False
        key = (reference, answer, value_only)
        known = self._recall(key)
        if known is not None:
            return known
        self.check_reference(reference)
        try:
            request = {"gold": quote(reference), "answer": quote(answer), "value_only": value_only}
            right = bool(self.pool.call({"op": "verify", **request})["right"])
        except RequestError:
            right = False
        self._remember(key, right=right)
        return right

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_verifier, (self.pool, self._cache_size)

    def close(self) -> None:
        """Ends the worker processes; the next check starts new ones."""
        self.pool.close()

    def _recall(self, key: tuple[str, str, bool]) -> bool | None:
        with self._lock:
            if key not in self._verdicts:
                return None
            self._verdicts.move_to_end(key)
            return self._verdicts[key]

    def _remember(self, key: tuple[str, str, bool], *, right: bool) -> None:
        with self._lock:
            self._verdicts[key] = right
            while len(self._verdicts) > self._cache_size:
                self._verdicts.popitem(last=False)


def _make_verifier(pool: WorkerPool, cache_size: int) -> Verifier:
    return Verifier(pool, cache_size=cache_size)


@functools.cache
def shared_verifier() -> Verifier:
    """Returns the verifier that all environments of this process share."""
    return Verifier()
