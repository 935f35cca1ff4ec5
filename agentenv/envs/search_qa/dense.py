"""Dense retrieval: passages and queries as vectors of a sentence-transformers model, ranked by inner product.

Search is exact: one matrix product over memory-mapped float32 vectors, no approximate index. It reads every vector, so
it is bound by memory bandwidth: 1.5 GB for a million passages of 384 dimensions. Batch queries where you can.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
from numpy.typing import NDArray

from agentenv.distribution import install_module
from agentenv.errors import CorpusError, MissingDependencyError

from .bm25 import PassageStore
from .corpus import Passage, check_passages, read_corpus, write_corpus
from .retrieval import Hit, check_search, rank

__all__ = ["DenseRetriever", "Encoder", "build_dense_index", "is_dense_index", "load_encoder", "open_dense_index"]

Encoder = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to vectors, `[n] -> [n, D]`, of length 1 where cosine similarity is meant."""

_FORMAT, _VERSION = "agentenv.dense", 1
_QUERIES = 32
"""Queries per matrix product: bounds the memory of one search."""


class DenseRetriever:
    """Finds passages whose vector has the largest inner product with the query's.

    Args:
        vectors: `[N, D]` one per passage.
        passages: `[N]`.
        encode: makes the vector of a query.

    Raises:
        ValueError: the numbers of vectors and passages differ.
    """

    def __init__(self, vectors: NDArray[Any], passages: PassageStore, encode: Encoder) -> None:
        if vectors.ndim != 2 or len(vectors) != len(passages):
            msg = f"vectors must be [{len(passages)}, D], one per passage, got shape {vectors.shape}"
            raise ValueError(msg)
        self.vectors = vectors
        self.passages = passages
        self._encode = encode

    @classmethod
    def build(
        cls, passages: Iterable[Passage], encode: Encoder, *, encode_query: Encoder | None = None
    ) -> "DenseRetriever":
        """Encodes passages in memory."""
        kept = list(check_passages(passages))
        return cls(encode([p.contents for p in kept]), PassageStore.build(kept), encode_query or encode)

    def __len__(self) -> int:
        return len(self.passages)

    def __repr__(self) -> str:
        return f"DenseRetriever({len(self):,} passages, {self.vectors.shape[1]} dimensions)"

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Returns the `k` nearest passages per query, best first, ties in corpus order."""
        check_search(queries, k)
        if not queries:
            return []
        wanted = np.asarray(self._encode(list(queries)), dtype=np.float32)
        return [hits for start in range(0, len(wanted), _QUERIES) for hits in self._rank(wanted[start:][:_QUERIES], k)]

    def find(self, document: str) -> tuple[Passage, ...]:
        """Returns the passage with this id, or else those with this title (case ignored)."""
        return self.passages.find(document)

    def _rank(self, wanted: NDArray[np.float32], k: int) -> list[list[Hit]]:
        scores = wanted @ self.vectors.T
        return [[Hit(self.passages[int(p)], float(row[p])) for p in rank(row, k)] for row in scores]


def load_encoder(model: str | Path, *, prefix: str = "", batch_size: int = 64, device: str = "cpu") -> Encoder:
    """Loads a sentence-transformers model from a folder and returns its encoder, with vectors of length 1.

    Args:
        model: the folder; nothing is downloaded.
        prefix: put before every text. E5 models want `"query: "` and `"passage: "`.
        batch_size: texts per forward pass.
        device: `"cpu"`, `"cuda"`, ...

    Raises:
        CorpusError: there is no such folder.
        MissingDependencyError: sentence-transformers is not installed.
    """
    if not Path(model).is_dir():
        msg = f"model must be a folder with a sentence-transformers model, got {str(model)!r}; nothing is downloaded"
        raise CorpusError(msg)
    try:
        library: Any = importlib.import_module("sentence_transformers")
    except ImportError as error:
        msg = f"dense retrieval needs sentence-transformers: {install_module('sentence_transformers')}"
        raise MissingDependencyError(msg) from error
    network = library.SentenceTransformer(str(model), device=device, local_files_only=True)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = network.encode(
            [prefix + text for text in texts],
            batch_size=batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(rows, dtype=np.float32)

    return encode


class _Manifest(pydantic.BaseModel):
    format: str
    version: int
    model: str
    query_prefix: str
    passages: int
    dimensions: int


def build_dense_index(
    passages: Iterable[Passage],
    out: str | Path,
    *,
    model: str | Path,
    query_prefix: str = "",
    passage_prefix: str = "",
    device: str = "cpu",
) -> DenseRetriever:
    """Encodes passages into a folder (vectors, passages, manifest) and opens it.

    Raises:
        CorpusError: no passage, an id that occurs twice, `out` exists, or there is no model.
        MissingDependencyError: sentence-transformers is not installed.
    """
    out = Path(out)
    if out.exists():
        msg = f"index folder {str(out)!r} exists already"
        raise CorpusError(msg)
    encode = load_encoder(model, prefix=passage_prefix, device=device)
    kept = list(check_passages(passages))
    blocks = [encode([p.contents for p in kept[i : i + 1024]]) for i in range(0, len(kept), 1024)]
    vectors = np.concatenate(blocks)
    manifest = _Manifest(
        format=_FORMAT,
        version=_VERSION,
        model=str(Path(model).resolve()),
        query_prefix=query_prefix,
        passages=len(kept),
        dimensions=vectors.shape[1],
    )
    out.mkdir(parents=True)
    write_corpus(kept, out / "passages.jsonl")
    np.save(out / "vectors.npy", vectors)
    (out / "dense.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return open_dense_index(out, device=device)


def is_dense_index(path: str | Path) -> bool:
    """Returns whether a folder is, or claims to be, a dense index."""
    return (Path(path) / "dense.json").is_file()


def open_dense_index(path: str | Path, *, model: str | Path | None = None, device: str = "cpu") -> DenseRetriever:
    """Opens a dense index with its vectors memory-mapped.

    Args:
        path: the folder that `build_dense_index` made.
        model: where the model lies now, if it has moved.
        device: where queries are encoded.

    Raises:
        CorpusError: it is no dense index, one of another version, or its parts do not fit together.
        MissingDependencyError: sentence-transformers is not installed.
    """
    path = Path(path)
    try:
        manifest = _Manifest.model_validate_json((path / "dense.json").read_bytes())
        vectors: NDArray[Any] = np.load(path / "vectors.npy", mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        msg = f"{str(path)!r} is not a readable dense index: {error}"
        raise CorpusError(msg) from error
    if (manifest.format, manifest.version) != (_FORMAT, _VERSION):
        msg = f"{str(path)!r} has format {manifest.format!r} version {manifest.version}, this release reads {_VERSION}"
        raise CorpusError(msg)
    store = PassageStore.build(list(read_corpus(path / "passages.jsonl")))
    if vectors.shape != (manifest.passages, manifest.dimensions) or len(store) != manifest.passages:
        msg = f"{str(path)!r} is damaged: {vectors.shape} vectors and {len(store)} passages, not {manifest.passages}"
        raise CorpusError(msg)
    encode = load_encoder(model or manifest.model, prefix=manifest.query_prefix, device=device)
    return DenseRetriever(vectors, store, encode)
