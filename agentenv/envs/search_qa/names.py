"""Names for fictional worlds: pronounceable, distinct, and confusable on request."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from .scoring import normalize_answer

__all__ = ["NameMaker"]

T = TypeVar("T")

_ONSETS = ("b", "br", "c", "d", "dr", "f", "g", "gl", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "th",
           "tr", "v", "w", "z")  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u") * 2 + ("ae", "ia")
_CODAS = ("", "", "", "l", "m", "n", "r", "s", "v")
_WORD_ENDS = {
    "country": ("ia", "land", "mark", "ora", "estan"),
    "city": ("burg", "ford", "haven", "ita", "mouth", "polis", "stad", "ton"),
    "family": ("", "a", "ek", "er", "ov", "sen", "well"),
    "given": ("", "a", "e", "in", "is", "o"),
    "river": ("a", "e", "en", "is"),
    "money": ("al", "ek", "in", "o", "ar"),
}
_ADJECTIVES = ("Amber", "Bitter", "Borrowed", "Broken", "Burning", "Distant", "Forgotten", "Glass", "Hidden", "Hollow",
               "Iron", "Last", "Northern", "Paper", "Patient", "Quiet", "Salt", "Second", "Silver", "Sleeping", "Slow",
               "Stolen", "Twelfth", "Unwritten", "Velvet", "Winter")  # fmt: skip
_NOUNS = ("Archive", "Bell", "Bridge", "Cartographer", "Clock", "Compass", "Crown", "Daughter", "Ferry", "Garden",
          "Harbor", "Island", "Lantern", "Letter", "Lighthouse", "Map", "Mirror", "Mountain", "Orchard", "Promise",
          "River", "Road", "Season", "Shadow", "Tower", "Verdict", "Voyage", "Widow", "Window", "Witness")  # fmt: skip
_FIRMS = ("Books", "Brothers", "House", "Pictures", "Press", "Studios", "Works")
_SUFFIXES = ("Bridge", "Cross", "Falls", "Heights", "Junction", "Market", "Sands")


class NameMaker:
    """Draws names that never repeat, not even after an answer's normalization.

    Args:
        rng: where the randomness comes from.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._taken = set[str]()

    def country(self) -> str:
        """Returns a country's name."""
        return self._new(lambda: self._word("country"))

    def city(self, *, like: str = "") -> str:
        """Returns a city's name; with `like`, one that shares its first word."""
        if like:
            return self._new(lambda: self._confuse_city(like.split(maxsplit=1)[0]))
        return self._new(lambda: self._word("city"))

    def person(self, *, like: str = "") -> str:
        """Returns a given and a family name; with `like`, one of the two is shared."""
        if like:
            given, family = like.split()
            if self._rng.random() < 0.5:
                return self._new(lambda: f"{self._word('given')} {family}")
            return self._new(lambda: f"{given} {self._word('family')}")
        return self._new(lambda: f"{self._word('given')} {self._word('family')}")

    def firm(self, *, like: str = "") -> str:
        """Returns an organization's name; with `like`, one that shares its first word."""
        first = like.split(maxsplit=1)[0] if like else ""
        return self._new(lambda: f"{first or self._word('family')} {self._pick(_FIRMS)}")

    def title(self, *, like: str = "") -> str:
        """Returns the title of a work; with `like`, one that shares a word with it."""
        if like:
            word = like.split()[1]
            return self._new(lambda: f"The {word} {self._pick(_NOUNS)} of {self._word('city')}")
        return self._new(self._title)

    def money(self) -> str:
        """Returns the name of a currency, in lower case."""
        return self._new(lambda: self._word("money").lower())

    def river(self) -> str:
        """Returns the name of a river."""
        return self._new(lambda: self._word("river"))

    def language(self) -> str:
        """Returns the name of a language."""
        return self._new(lambda: self._word("given") + self._pick(("ese", "ic", "ish")))

    def _title(self) -> str:
        pattern = int(self._rng.integers(3))
        if pattern == 0:
            return f"The {self._pick(_ADJECTIVES)} {self._pick(_NOUNS)}"
        if pattern == 1:
            return f"The {self._pick(_NOUNS)} of {self._word('city')}"
        return f"A {self._pick(_ADJECTIVES)} {self._pick(_NOUNS)}"

    def _confuse_city(self, word: str) -> str:
        pattern = int(self._rng.integers(3))
        if pattern == 0:
            return f"{word} {self._pick(_SUFFIXES)}"
        if pattern == 1:
            return f"{word} on {self._word('river')}"
        return f"{self._pick(('East', 'New', 'Old', 'Port', 'West'))} {word}"

    def _word(self, kind: str) -> str:
        syllables = 1 + int(self._rng.random() < 0.6)
        parts = [self._pick(_ONSETS) + self._pick(_VOWELS) + self._pick(_CODAS) for _ in range(syllables)]
        return ("".join(parts) + self._pick(_WORD_ENDS[kind])).capitalize()

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._rng.integers(len(choices)))]

    def _new(self, draw: Callable[[], str]) -> str:
        name = draw()
        for attempt in range(1_000):
            key = normalize_answer(name)
            if len(key) > 3 and key not in self._taken:
                self._taken.add(key)
                return name
            # A short list of words runs out in a large world; a second given word never does.
            name = draw() if attempt < 50 else f"{draw()} {self._word('family')}"
        msg = f"no free name left after {len(self._taken):,}"
        raise RuntimeError(msg)
