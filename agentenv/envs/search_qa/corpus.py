"""Passages, and reading them from JSONL files."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentenv.errors import CorpusError

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
        msg = f"{where}: a passage must be a JSON object with 'id', 'title' and 'text', got {_short(row)}"
        raise CorpusError(msg)
    fields = cast("Mapping[str, Any]", row)
    key = fields.get("id")
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    title, text = fields.get("title", ""), fields.get("text")
    if text is None and isinstance(fields.get("contents"), str):
        title, text = _split_contents(fields["contents"])
    for name, value in (("id", key), ("title", title), ("text", text)):
        if not isinstance(value, str):
            msg = f"{where}: field {name!r} must be text, got {_short(value)}"
            raise CorpusError(msg)
    passage = Passage(cast("str", key), cast("str", title).strip(), cast("str", text).strip())
    if not passage.id or not (passage.title or passage.text):
        msg = f"{where}: a passage needs a non-empty 'id' and a 'title' or a 'text', got {_short(dict(fields))}"
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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def read_corpus(path: str | Path) -> Iterator[Passage]:
    """Yields the passages of a JSONL file, one JSON object per line, in order; blank lines are skipped.

    Raises:
        CorpusError: the file is missing, is not UTF-8, a line is not JSON, or a passage is malformed. The message
            names the file and the line.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"corpus {str(path)!r} is not a file"
        raise CorpusError(msg)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row: object = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                msg = f"{where}: not UTF-8 ({error}); convert the file, e.g. with iconv"
                raise CorpusError(msg) from None
            except (ValueError, RecursionError) as error:
                msg = f"{where}: not JSON ({error}), got {_short(line[:100])}"
                raise CorpusError(msg) from None
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
