"""Passages, and reading them from files and tables."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentenv.errors import CorpusError
from agentenv.rows import Source, as_text, read_rows, shorten

__all__ = ["Passage", "check_passages", "parse_passage", "read_corpus", "write_corpus"]


@dataclass(frozen=True, slots=True)
class Passage:
    """One document of a corpus.

    Attributes:
        id: unique within the corpus.
        title: what it is about; several passages may share a title.
        text: its body, without the title.
    """

    id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """Title and text in one string: what is indexed, and the form Search-R1 calls `contents`."""
        return f"{self.title}\n{self.text}" if self.title else self.text


def parse_passage(row: object, *, where: str = "passage") -> Passage:
    """Reads one passage from a mapping.

    Args:
        row: `{"id", "title", "text"}`, or Search-R1's `{"id", "contents"}` whose first line is the quoted title. The id
            is text or an integer.
        where: names the place in the message of an error.

    Raises:
        CorpusError: a field is missing, of the wrong type, or empty; or a text is not valid Unicode.
    """
    if not isinstance(row, Mapping):
        msg = f"{where}: a passage must be a JSON object with 'id', 'title' and 'text', got {shorten(row)}"
        raise CorpusError(msg)
    fields = cast("Mapping[str, Any]", row)
    key, title, text = (
        value if isinstance(value := fields.get(name), str) else as_text(value) for name in ("id", "title", "text")
    )
    title = "" if title is None else title
    if text is None and isinstance(fields.get("contents"), str):
        title, text = _split_contents(fields["contents"])
    for name, value in (("id", key), ("title", title), ("text", text)):
        if not isinstance(value, str):
            msg = f"{where}: field {name!r} must be text, got {shorten(value)}"
            raise CorpusError(msg)
    passage = Passage(cast("str", key), cast("str", title).strip(), cast("str", text).strip())
    if not passage.id or not (passage.title or passage.text):
        msg = f"{where}: a passage needs a non-empty 'id' and a 'title' or a 'text', got {shorten(dict(fields))}"
        raise CorpusError(msg)
    try:
        f"{passage.id}{passage.contents}".encode()
    except UnicodeEncodeError as error:
        msg = f"{where}: passage {passage.id!r} holds a lone surrogate, which is not valid Unicode: {error}"
        raise CorpusError(msg) from None
    return passage


def _split_contents(contents: str) -> tuple[str, str]:
    title, _, text = contents.partition("\n")
    title = title.strip()
    if len(title) >= 2 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text


def read_corpus(source: Source) -> Iterator[Passage]:
    """Yields the passages of a file (JSON lines, JSON, CSV, parquet), of a table or of an iterable, in order.

    Raises:
        CorpusError: the file is missing or cannot be read, or a passage is malformed. The message names the file and
            the line, or the row.
    """
    if isinstance(source, str | Path) and not Path(source).is_file():
        msg = f"corpus {str(source)!r} is not a file"
        raise CorpusError(msg)
    for where, row in read_rows(source, what="a passage", error=CorpusError):
        yield parse_passage(row, where=where)


def check_passages(passages: Iterable[Passage]) -> Iterator[Passage]:
    """Yields the passages unchanged.

    Raises:
        CorpusError: an id occurs twice, or there is no passage at all.
    """
    seen = set[str]()
    for passage in passages:
        if passage.id in seen:
            msg = f"passage id {passage.id!r} occurs twice; ids must be unique within a corpus"
            raise CorpusError(msg)
        seen.add(passage.id)
        yield passage
    if not seen:
        msg = "the corpus is empty; a corpus needs at least one passage"
        raise CorpusError(msg)


def write_corpus(passages: Iterable[Passage], path: str | Path) -> int:
    """Writes passages as JSONL and returns how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for passage in passages:
            row = {"id": passage.id, "title": passage.title, "text": passage.text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
