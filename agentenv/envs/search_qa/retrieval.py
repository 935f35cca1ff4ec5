"""What the environment asks of a search engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .corpus import Passage

__all__ = ["MAX_QUERY_CHARS", "Hit", "Retriever", "check_search", "rank"]

MAX_QUERY_CHARS = 10_000
"""Longest query that a retriever accepts, in characters."""


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
    if k < 1:
        msg = f"k must be at least 1, got {k}"
        raise ValueError(msg)
    for query in queries:
        if len(query) > MAX_QUERY_CHARS:
            msg = f"a query may have at most {MAX_QUERY_CHARS:,} characters, got {len(query):,}"
            raise ValueError(msg)


def rank(scores: NDArray[np.floating[Any]], candidates: NDArray[np.integer[Any]], k: int) -> NDArray[np.int64]:
    """Returns the `k` best candidates: by descending score, ties by ascending position.

    Args:
        scores: `[N]` score of every passage.
        candidates: `[C]` positions to choose from, ascending.
        k: how many, at least 1.

    Returns:
        `[min(k, C)]` positions. The order is total, so it never depends on the machine or on `k`.
    """
    values = scores[candidates]
    if len(candidates) > k:
        cut = len(candidates) - k
        keep = values >= np.partition(values, cut)[cut]
        candidates, values = candidates[keep], values[keep]
    return candidates[np.lexsort((candidates, -values))[:k]].astype(np.int64)
