"""What the environment asks of a search engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import check_count

from .corpus import Passage

__all__ = ["MAX_QUERY_CHARS", "Hit", "Retriever", "check_search", "rank"]

MAX_QUERY_CHARS = 10_000
"""Longest query that a retriever accepts, in characters."""


_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage found by a search.

    Attributes:
        passage: the passage.
        score: larger is better; comparable within one query only.
    """

    passage: Passage
    score: float


@runtime_checkable
class Retriever(Protocol):
    """A search engine over a fixed corpus: the same query always gives the same answer.

    It is shared, read-only, by every environment and thread of a process.
    """

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Returns at most `k` hits per query, best first; ties in the order of the corpus.

        Raises:
            ValueError: `k < 1`, or a query is longer than `MAX_QUERY_CHARS`.
            RetrieverError: the engine could not answer, which is not the agent's fault.
        """
        ...

    def find(self, document: str) -> tuple[Passage, ...]:
        """Returns the passage whose id is `document`, or else all whose title is (case ignored); none is `()`."""
        ...


def check_search(queries: Sequence[str], k: int) -> None:
    """Checks the arguments of a search.

    Raises:
        ValueError: `queries` is one text instead of a sequence, `k < 1`, or a query is too long.
    """
    if isinstance(queries, str):
        msg = f"queries must be a sequence of texts, got the text {queries[:80]!r}; write [query]"
        raise ValueError(msg)
    check_count("k", k, least=1)
    for query in queries:
        if len(query) > MAX_QUERY_CHARS:
            msg = f"a query may have at most {MAX_QUERY_CHARS:,} characters, got {len(query):,}"
            raise ValueError(msg)


def rank(scores: NDArray[np.floating[Any]], k: int, *, above: float = -np.inf) -> NDArray[np.int64]:
    """Returns the positions of the `k` largest scores: by descending score, ties by ascending position.

    The maximum of each block of passages is found first. The `k`-th largest of those maxima is reached by at least `k`
    passages, so nothing below it can be among the best, and only what is left, a few dozen, is sorted.

    Args:
        scores: `[N]` one per passage, no NaN.
        k: how many, at least 1.
        above: only scores greater than this count.

    Returns:
        At most `k` positions. The order is total, so it depends neither on the machine nor on `k`.
    """
    floor = _reached_by(scores, k)
    chosen = np.flatnonzero(scores >= floor if floor > above else scores > above)
    values = scores[chosen]
    if len(chosen) > k:
        worst = np.partition(values, len(chosen) - k)[len(chosen) - k]
        better = values > worst
        ties = chosen[values == worst][: k - int(better.sum())]
        chosen = np.sort(np.concatenate([chosen[better], ties]))
        values = scores[chosen]
    return chosen[np.argsort(-values, kind="stable")].astype(np.int64)


def _reached_by(scores: NDArray[np.floating[Any]], k: int) -> float:
    """Returns a value that at least `k` scores reach; minus infinity where blocks are too few to tell."""
    blocks = len(scores) // _BLOCK
    if blocks < k:
        return -np.inf
    tops = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return float(np.partition(tops, blocks - k)[blocks - k])
