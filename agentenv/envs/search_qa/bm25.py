"""BM25 search with bm25s, over arrays that may be memory-mapped.

The score of passage `d` for query terms `t` (a term that the query repeats counts each time) is

    score(d) = sum over t of idf(t) * f(t, d) / (f(t, d) + k1 * (1 - b + b * |d| / mean |d|))

with `idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))`: the variant `lucene` of Kamphuis et al., "Which BM25 Do You
Mean?" (ECIR 2020), with k1 = 1.5 and b = 0.75 unless told otherwise. The library bm25s computes the scores in float32;
only the choice of the best ones is ours, because ties must come out in the same order everywhere.
"""

import importlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from .corpus import Passage, check_passages
from .retrieval import Hit, check_search, rank
from .string_table import StringTable, Texts
from .tokenizer import STOPWORDS, Tokenizer

__all__ = ["Bm25Retriever", "Bm25Settings", "PassageStore", "Postings", "compute_postings"]


@dataclass(frozen=True, slots=True)
class Bm25Settings:
    """How text becomes terms and terms become scores; written into every index.

    Attributes:
        method: name of the variant in bm25s.
        k1: how slowly repetition saturates, at least 0.
        b: how much long passages are discounted, in [0, 1].
        stopwords: terms that are dropped.
    """

    method: Literal["lucene", "robertson", "atire"] = "lucene"
    k1: float = 1.5
    b: float = 0.75
    stopwords: tuple[str, ...] = STOPWORDS

    def __post_init__(self) -> None:
        if self.method not in ("lucene", "robertson", "atire"):
            msg = f"method must be 'lucene', 'robertson' or 'atire', got {self.method!r}"
            raise ValueError(msg)
        if not self.k1 >= 0 or not 0 <= self.b <= 1:
            msg = f"k1 must be at least 0 and b in [0, 1], got k1={self.k1}, b={self.b}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Postings:
    """The scores of every term in every passage, by columns: `V` terms, `N` passages, `P` pairs.

    Attributes:
        data: `[P]` score of a term in a passage.
        indices: `[P]` the passage; ascending within a term.
        indptr: `[V + 1]` where each term begins.
        num_passages: `N`.
    """

    data: NDArray[np.float32]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int64]
    num_passages: int


@dataclass(frozen=True, slots=True)
class PassageStore:
    """The passages themselves, by position and by id or title.

    Attributes:
        ids: `[N]`, unique.
        titles: `[N]`.
        texts: `[N]`.
    """

    ids: StringTable
    titles: StringTable
    texts: Texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, position: int) -> Passage:
        return Passage(self.ids[position], self.titles[position], self.texts[position])

    def find(self, document: str) -> tuple[Passage, ...]:
        """Returns the passage with this id, or else those with this title (case ignored)."""
        positions = self.ids.find(document) or (self.titles.find(document) if document.strip() else ())
        return tuple(self[position] for position in positions)

    @classmethod
    def build(cls, passages: Sequence[Passage]) -> "PassageStore":
        """Lays out passages in memory."""
        return cls(
            StringTable.build(p.id for p in passages),
            StringTable.build((p.title for p in passages), folded=True),
            Texts.build(p.text for p in passages),
        )


def compute_postings(documents: list["array[int]"], vocabulary: dict[str, int], settings: Bm25Settings) -> Postings:
    """Computes the BM25 score of every term in every passage, with bm25s.

    Args:
        documents: `[N]` the term numbers of each passage.
        vocabulary: `[V]` the number of every term; the numbers are 0 to V - 1.
        settings: variant and constants.
    """
    if not vocabulary:  # bm25s cannot index a corpus without a single word
        empty = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64)
        return Postings(*empty, len(documents))
    engine = _engine(settings)
    engine.index((documents, vocabulary), create_empty_token=False, show_progress=False)
    scores = engine.scores
    return Postings(
        np.asarray(scores["data"], dtype=np.float32),
        np.asarray(scores["indices"], dtype=np.int32),
        np.asarray(scores["indptr"], dtype=np.int64),
        len(documents),
    )


def _engine(settings: Bm25Settings) -> Any:
    bm25s: Any = importlib.import_module("bm25s")  # a quarter of a second: paid by whoever searches, not by importers
    return bm25s.BM25(method=settings.method, k1=settings.k1, b=settings.b, csc_backend="scipy")


class Bm25Retriever:
    """Finds passages by BM25.

    Searching allocates one score per passage and changes nothing, so one retriever serves all environments and
    threads of a process; with memory-mapped arrays (`open_index`) all processes of a machine share one copy.
    """

    def __init__(self, postings: Postings, terms: StringTable, passages: PassageStore, settings: Bm25Settings) -> None:
        self.settings = settings
        self.postings = postings
        self.terms = terms
        self.passages = passages
        self._tokenizer = Tokenizer(frozenset(settings.stopwords))
        self._engine: Any = None

    @classmethod
    def build(cls, passages: Iterable[Passage], settings: Bm25Settings | None = None) -> Self:
        """Indexes passages in memory.

        Raises:
            CorpusError: there is no passage, or an id occurs twice.
        """
        settings = settings or Bm25Settings()
        kept = list(check_passages(passages))
        tokenizer = Tokenizer(frozenset(settings.stopwords))
        documents = [tokenizer.number(passage.contents) for passage in kept]
        postings = compute_postings(documents, tokenizer.vocabulary, settings)
        return cls(postings, StringTable.build(tokenizer.vocabulary), PassageStore.build(kept), settings)

    def __len__(self) -> int:
        return len(self.passages)

    def __repr__(self) -> str:
        return f"Bm25Retriever({len(self):,} passages, {len(self.terms):,} terms, {self.settings.method})"

    def scores(self, query: str) -> NDArray[np.float32]:
        """Returns the BM25 score of every passage, `[N]`; 0 for a passage without any term of the query."""
        numbers = [position for term in self._tokenizer.terms(query) for position in self.terms.find(term)]
        if not numbers:
            return np.zeros(len(self), dtype=np.float32)
        return np.asarray(self._bm25s().get_scores_from_ids(numbers), dtype=np.float32)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Returns at most `k` passages per query that share a term with it, best first, ties in corpus order."""
        check_search(queries, k)
        return [self._search(query, k) for query in queries]

    def find(self, document: str) -> tuple[Passage, ...]:
        """Returns the passage with this id, or else those with this title (case ignored)."""
        return self.passages.find(document)

    def _search(self, query: str, k: int) -> list[Hit]:
        scores = self.scores(query)
        return [Hit(self.passages[int(p)], float(scores[p])) for p in rank(scores, k, above=0.0)]

    def _bm25s(self) -> Any:
        if self._engine is None:
            engine = _engine(self.settings)
            engine.scores = {
                "data": self.postings.data,
                "indices": self.postings.indices,
                "indptr": self.postings.indptr,
                "num_docs": self.postings.num_passages,
            }
            engine.nonoccurrence_array = None
            self._engine = engine
        return self._engine
