"""Strings in flat arrays that can be memory-mapped: by position, and by content."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

__all__ = ["StringTable", "Texts", "fold"]

Bytes = NDArray[np.uint8]


def fold(text: str) -> str:
    """Returns the text without differences of case, Unicode form or white space, for comparing titles."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True, slots=True)
class Texts:
    """`N` strings, one after the other.

    Attributes:
        data: `[B]` their UTF-8 bytes, concatenated.
        offsets: `[N + 1]` where each begins; the last entry is `B`.
    """

    data: Bytes
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, position: int) -> str:
        start, end = int(self.offsets[position]), int(self.offsets[position + 1])
        return self.data[start:end].tobytes().decode("utf-8")

    @classmethod
    def build(cls, strings: Iterable[str]) -> "Texts":
        """Lays out strings in memory."""
        encoded = [string.encode("utf-8") for string in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)


@dataclass(frozen=True, slots=True)
class StringTable:
    """`N` strings with a hash index: finding one costs a binary search and no memory of the process.

    Attributes:
        texts: the strings.
        hashes: `[N]` 64-bit hashes, ascending. Equal hashes are resolved by comparing the strings.
        order: `[N]` the position of the string of each hash, ascending among equal hashes.
        folded: strings are compared by `fold`, not exactly.
    """

    texts: Texts
    hashes: NDArray[np.uint64]
    order: NDArray[np.int64]
    folded: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, position: int) -> str:
        return self.texts[position]

    @classmethod
    def build(cls, strings: Iterable[str], *, folded: bool = False) -> "StringTable":
        """Lays out strings in memory and indexes them."""
        kept = list(strings)
        raw = np.fromiter((_hash(s, folded=folded) for s in kept), dtype=np.uint64, count=len(kept))
        order = np.argsort(raw, kind="stable").astype(np.int64)
        return cls(Texts.build(kept), raw[order], order, folded)

    def find(self, string: str) -> tuple[int, ...]:
        """Returns the positions of a string, ascending; `()` where it is not in the table."""
        key = np.array([_hash(string, folded=self.folded)], dtype=np.uint64)
        start, end = (int(np.searchsorted(self.hashes, key, side)[0]) for side in ("left", "right"))
        positions = (int(self.order[i]) for i in range(start, end))
        if self.folded:
            wanted = fold(string)
            return tuple(p for p in positions if fold(self.texts[p]) == wanted)
        return tuple(p for p in positions if self.texts[p] == string)


def _hash(string: str, *, folded: bool) -> int:
    data = (fold(string) if folded else string).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
