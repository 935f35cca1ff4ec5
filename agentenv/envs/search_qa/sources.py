"""Opening whatever a corpus may be given as."""

from functools import lru_cache
from pathlib import Path

from agentenv.errors import CorpusError

from .bm25 import Bm25Retriever
from .corpus import read_corpus
from .dense import is_dense_index, open_dense_index
from .http_retriever import HttpRetriever
from .index_file import is_index, open_index
from .retrieval import Retriever
from .world import make_world

__all__ = ["Corpus", "open_retriever", "world_retriever"]

Corpus = Retriever | str | Path
"""A retriever; the URL of a retrieval server; the folder of an index; or a JSONL file of passages."""


def open_retriever(corpus: Corpus) -> Retriever:
    """Returns the retriever for a corpus. One process opens each index or file once and shares it.

    Args:
        corpus: a retriever (returned as it is); a URL; the folder of a BM25 or dense index; or a JSONL file, which is
            indexed in memory by BM25.

    Raises:
        CorpusError: it is none of these, or it cannot be used.
    """
    if not isinstance(corpus, str | Path):
        return corpus
    if str(corpus).startswith(("http://", "https://")):
        return HttpRetriever(str(corpus))
    path = Path(corpus).resolve()
    if is_index(path):
        return open_index(path)
    if is_dense_index(path):
        return _dense(path)
    if path.is_file():
        stat = path.stat()
        return _index_in_memory(path, stat.st_mtime_ns, stat.st_size)
    msg = f"corpus {str(corpus)!r} is neither a JSONL file, nor an index folder, nor a URL (http://host:port)"
    raise CorpusError(msg)


@lru_cache(maxsize=8)
def world_retriever(seed: int, people: int, distractors: int) -> Bm25Retriever:
    """Returns the BM25 retriever over a fictional world's documents, shared within the process."""
    return Bm25Retriever.build(make_world(seed, people=people, distractors=distractors).passages)


@lru_cache(maxsize=4)
def _dense(path: Path) -> Retriever:
    return open_dense_index(path)


@lru_cache(maxsize=4)
def _index_in_memory(path: Path, mtime_ns: int, size: int) -> Bm25Retriever:  # noqa: ARG001  a changed file is another
    return Bm25Retriever.build(read_corpus(path))
