"""Words of a text and their hash codes, as the predictor of success and the embedding of states read them."""

import hashlib
import re

__all__ = ["hash_code", "words_of"]

_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Returns the words and marks of a text, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def hash_code(name: str) -> int:
    """Returns 64 bits that belong to a name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest())
