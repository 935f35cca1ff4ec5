"""A BM25 index as a folder of flat arrays: memory-mapped, versioned, checksummed.

    manifest.json    format and version; variant, constants and tokenizer; length, type and SHA-256 of every array
    NAME.bin         one array, little-endian, without a header

Opening one maps the arrays and reads nothing else, so processes share one copy in the page cache and an environment
adds nothing to it.
"""

import hashlib
import os
import shutil
import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from agentenv.errors import CorpusError

from .bm25 import Bm25Retriever, Bm25Settings, PassageStore, Postings, compute_postings
from .corpus import Passage, check_passages
from .string_table import StringTable, Texts
from .tokenizer import WORD_PATTERN, Tokenizer

__all__ = ["FORMAT", "VERSION", "IndexedRetriever", "Manifest", "build_index", "is_index", "open_index"]

FORMAT = "agentenv.bm25"
VERSION = 1
"""Raised whenever an index of the version before would be read wrongly."""

_MANIFEST = "manifest.json"
_ARRAYS = {
    "postings.data": "<f4",
    "postings.indices": "<i4",
    "postings.indptr": "<i8",
    **{
        f"{table}.{part}": dtype
        for table in ("terms", "ids", "titles")
        for part, dtype in (("data", "|u1"), ("offsets", "<i8"), ("hashes", "<u8"), ("order", "<i8"))
    },
    "texts.data": "|u1",
    "texts.offsets": "<i8",
}
_AGAIN = "build it again: agentenv index build CORPUS.jsonl --overwrite"
_open: "weakref.WeakValueDictionary[tuple[Path, str], IndexedRetriever]" = weakref.WeakValueDictionary()
_lock = threading.Lock()


class _Header(pydantic.BaseModel):
    format: str
    version: int


class Scoring(pydantic.BaseModel):
    """Who computed the scores, by which variant and constants."""

    library: str
    method: Literal["lucene", "robertson", "atire"]
    k1: float
    b: float


class Tokenization(pydantic.BaseModel):
    """How text became terms; a pattern that this release does not know is refused."""

    lowercase: Literal[True] = True
    pattern: Literal[r"(?u)\b\w\w+\b"] = WORD_PATTERN
    stopwords: tuple[str, ...]


class ArrayEntry(pydantic.BaseModel):
    """Type, length and checksum of one array."""

    dtype: str
    length: int = pydantic.Field(ge=0)
    sha256: str


class Manifest(_Header):
    """The content of `manifest.json`."""

    bm25: Scoring
    tokenizer: Tokenization
    counts: dict[str, int]
    arrays: dict[str, ArrayEntry]


class IndexedRetriever(Bm25Retriever):
    """A `Bm25Retriever` whose arrays are mapped from an index folder; it pickles as the folder's path.

    Attributes:
        path: the folder.
        fingerprint: SHA-256 of the manifest, and so of corpus, tokenizer, variant and constants.
        verified: the checksums have been compared.
    """

    path: Path
    fingerprint: str
    verified: bool

    def __reduce__(self) -> tuple[Any, ...]:
        return open_index, (str(self.path),)


def is_index(path: str | Path) -> bool:
    """Returns whether a folder is, or claims to be, an index."""
    return (Path(path) / _MANIFEST).is_file()


def build_index(
    passages: Iterable[Passage],
    out: str | Path,
    *,
    settings: Bm25Settings | None = None,
    overwrite: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> IndexedRetriever:
    """Indexes passages into a folder and opens it.

    The folder appears only when it is complete: it is written next to its place and moved there at the end. Texts
    go straight to the disk; term numbers stay in memory, 4 bytes per word.

    Args:
        passages: read once, in order; their order breaks ties in every ranking.
        out: the folder to make.
        settings: variant, constants and stop words.
        overwrite: replace an index that is already there. Nothing but an index is ever replaced.
        on_stage: called with the name of each stage as it begins.

    Raises:
        CorpusError: no passage, an id that occurs twice, or `out` exists.
    """
    out, settings, stage = Path(out), settings or Bm25Settings(), on_stage or _silent
    if out.exists() and not (overwrite and is_index(out)):
        what = "is an index; pass overwrite=True (--overwrite) to replace it" if is_index(out) else "exists already"
        msg = f"index folder {str(out)!r} {what}"
        raise CorpusError(msg)
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(partial, passages, settings, stage)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    stage("checking")
    return open_index(out)


def open_index(path: str | Path, *, verify: bool = True) -> IndexedRetriever:
    """Maps an index; the same folder opened twice in one process is the same object.

    Args:
        path: the folder that `build_index` made.
        verify: compare the checksum of every array (about a second per gigabyte, once per process). Without it only
            versions, types and sizes are checked.

    Raises:
        CorpusError: it is no index, one of another version, or damaged; the message names the file.
    """
    path = Path(path).resolve()
    raw = _read_manifest(path)
    fingerprint = hashlib.sha256(raw).hexdigest()
    manifest = _check_manifest(path, raw)
    with _lock:
        retriever = _open.get((path, fingerprint))
        if retriever is None:
            retriever = _assemble({name: _map(path, name, manifest.arrays) for name in _ARRAYS}, manifest)
            retriever.path, retriever.fingerprint, retriever.verified = path, fingerprint, False
        if verify and not retriever.verified:
            _check_sums(path, manifest.arrays)
            retriever.verified = True
        _open[path, fingerprint] = retriever
        return retriever


def _silent(_: str) -> None:
    pass


def _write(folder: Path, passages: Iterable[Passage], settings: Bm25Settings, stage: Callable[[str], None]) -> None:
    tokenizer = Tokenizer(frozenset(settings.stopwords))
    documents, ids, titles = list["array[int]"](), list[str](), list[str]()
    offsets, end = array("q", [0]), 0
    stage("reading")
    with (folder / "texts.data.bin").open("wb") as texts:
        for passage in check_passages(passages):
            documents.append(tokenizer.number(passage.contents))
            ids.append(passage.id)
            titles.append(passage.title)
            end += texts.write(passage.text.encode("utf-8"))
            offsets.append(end)
    stage("scoring")
    words = sum(map(len, documents))
    postings = compute_postings(documents, tokenizer.vocabulary, settings)
    counts = {
        "passages": len(ids),
        "terms": len(tokenizer.vocabulary),
        "postings": len(postings.data),
        "words": words,
    }
    del documents
    stage("writing")
    arrays: dict[str, NDArray[Any]] = {
        "postings.data": postings.data,
        "postings.indices": postings.indices,
        "postings.indptr": postings.indptr,
        "texts.offsets": np.frombuffer(offsets, dtype=np.int64),
    }
    arrays |= dict(_table_arrays("terms", StringTable.build(tokenizer.vocabulary)))
    arrays |= dict(_table_arrays("ids", StringTable.build(ids)))
    arrays |= dict(_table_arrays("titles", StringTable.build(titles, folded=True)))
    for name, values in arrays.items():
        np.ascontiguousarray(values, dtype=_ARRAYS[name]).tofile(folder / f"{name}.bin")
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        bm25=Scoring(library=f"bm25s {library_version('bm25s')}", method=settings.method, k1=settings.k1, b=settings.b),
        tokenizer=Tokenization(stopwords=settings.stopwords),
        counts=counts,
        arrays={name: _describe(folder / f"{name}.bin", dtype) for name, dtype in _ARRAYS.items()},
    )
    (folder / _MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _table_arrays(name: str, table: StringTable) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{name}.data", table.texts.data
    yield f"{name}.offsets", table.texts.offsets
    yield f"{name}.hashes", table.hashes
    yield f"{name}.order", table.order


def _describe(file: Path, dtype: str) -> ArrayEntry:
    length = file.stat().st_size // np.dtype(dtype).itemsize
    return ArrayEntry(dtype=dtype, length=length, sha256=_sha256(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_manifest(path: Path) -> bytes:
    try:
        return (path / _MANIFEST).read_bytes()
    except OSError as error:
        msg = f"{str(path)!r} is not an index ({error.strerror}: {_MANIFEST}); make one: agentenv index build"
        raise CorpusError(msg) from None


def _check_manifest(path: Path, raw: bytes) -> Manifest:
    try:
        found = _Header.model_validate_json(raw)
        if (found.format, found.version) == (FORMAT, VERSION):
            return Manifest.model_validate_json(raw)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        msg = f"{path / _MANIFEST} is damaged at {'.'.join(map(str, first['loc']))!r}: {first['msg']}; {_AGAIN}"
        raise CorpusError(msg) from None
    msg = (
        f"index {str(path)!r} has format {found.format!r} version {found.version!r}, this release reads {FORMAT!r} "
        f"version {VERSION}; {_AGAIN}"
    )
    raise CorpusError(msg)


def _check_sums(path: Path, arrays: Mapping[str, ArrayEntry]) -> None:
    for name in _ARRAYS:
        if _sha256(file := path / f"{name}.bin") != arrays[name].sha256:
            msg = f"{file} does not match its checksum: the index is damaged; {_AGAIN}"
            raise CorpusError(msg)


def _map(path: Path, name: str, arrays: Mapping[str, ArrayEntry]) -> NDArray[Any]:
    file, entry = path / f"{name}.bin", arrays.get(name)
    if entry is None or entry.dtype != _ARRAYS[name]:
        msg = f"{path / _MANIFEST} does not describe the array {name!r}; {_AGAIN}"
        raise CorpusError(msg)
    dtype = np.dtype(entry.dtype)
    size, wanted = file.stat().st_size if file.is_file() else None, entry.length * dtype.itemsize
    if size != wanted:
        found = "missing" if size is None else f"{size:,} bytes long"
        msg = f"{file} is {found}, must have {wanted:,} bytes: the index is truncated; {_AGAIN}"
        raise CorpusError(msg)
    if not entry.length:
        return np.zeros(0, dtype=dtype)
    # A view of the plain type: slicing a memmap costs three times as much.
    return np.memmap(file, dtype=dtype, mode="r", shape=(entry.length,)).view(np.ndarray)


def _assemble(arrays: Mapping[str, NDArray[Any]], manifest: Manifest) -> IndexedRetriever:
    def texts(name: str) -> Texts:
        return Texts(arrays[f"{name}.data"], arrays[f"{name}.offsets"])

    def table(name: str, *, folded: bool = False) -> StringTable:
        return StringTable(texts(name), arrays[f"{name}.hashes"], arrays[f"{name}.order"], folded)

    bm25 = manifest.bm25
    settings = Bm25Settings(bm25.method, bm25.k1, bm25.b, manifest.tokenizer.stopwords)
    passages = PassageStore(table("ids"), table("titles", folded=True), texts("texts"))
    postings = Postings(arrays["postings.data"], arrays["postings.indices"], arrays["postings.indptr"], len(passages))
    return IndexedRetriever(postings, table("terms"), passages, settings)
