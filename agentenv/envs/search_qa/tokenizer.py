"""Words to term numbers, as bm25s does it by default: lower case, a word pattern, stop words dropped, no stemming."""

import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["STOPWORDS", "WORD_PATTERN", "Tokenizer"]

WORD_PATTERN: Final = r"(?u)\b\w\w+\b"
"""Words of two or more characters: the default of bm25s."""

# fmt: off
STOPWORDS = (
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was",
    "will", "with",
)
# fmt: on
"""Lucene's 33 English stop words: the default of bm25s."""


@dataclass(slots=True)
class Tokenizer:
    """Text to term numbers, for a growing vocabulary.

    Attributes:
        stopwords: terms that are dropped.
        vocabulary: the number of every term seen so far, in order of appearance.
    """

    stopwords: frozenset[str]
    vocabulary: dict[str, int] = field(default_factory=dict[str, int])
    _split: Callable[[str], list[str]] = re.compile(WORD_PATTERN).findall

    def terms(self, text: str) -> list[str]:
        """Returns the terms of a text: lower case, two or more characters, no stop words."""
        return [term for term in self._split(text.lower()) if term not in self.stopwords]

    def number(self, text: str) -> "array[int]":
        """Returns the terms of a text as numbers, new terms added to the vocabulary."""
        vocabulary = self.vocabulary
        return array("i", [vocabulary.setdefault(term, len(vocabulary)) for term in self.terms(text)])
