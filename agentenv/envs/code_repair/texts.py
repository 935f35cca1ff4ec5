r"""Source files as text: one way to split lines, and encodings and line endings that survive an edit.

A line ends at `\n`, for every tool, as for `grep` and `sed`; form feeds and Unicode's separators are part of lines. The
`\r` of Windows' line endings is not shown, and an edit need not name it. A file is UTF-8, or what its byte order mark
or its coding declaration says, or Latin-1, in which every file can be read and written back byte for byte.
"""

import codecs
import io
import re
import tokenize
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MOST_PLACES", "NotText", "Text", "find_all", "near", "split_lines"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class NotText(ValueError):
    """A file is binary, or a text cannot be written in the encoding of its file."""


def split_lines(text: str) -> list[str]:
    """Returns the lines of a text, without their ends."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


MOST_PLACES = 100


def find_all(text: str, part: str) -> list[tuple[int, int]]:
    """Returns where `part` occurs, overlapping places too, as start and end; its line ends match Windows' ones, too.

    It stops at `MOST_PLACES`: each may cost a look at all of a long part.
    """
    ends = [] if part.endswith("\r") else [end.start() - n for n, end in enumerate(re.finditer("\r\n", text))]
    plain, part = text.replace("\r\n", "\n") if ends else text, part.replace("\r\n", "\n")
    places, start = list[tuple[int, int]](), plain.find(part)
    while start >= 0 and len(places) < MOST_PLACES:
        end = start + len(part)
        places.append((start + bisect_left(ends, start), end + bisect_left(ends, end)))
        start = plain.find(part, start + 1)
    return places


def near(content: str, old: str) -> str:
    """Says where the first line of `old` would match if white space did not count."""
    first = next((line.strip() for line in split_lines(old) if line.strip()), "")
    numbers = [str(n) for n, line in enumerate(split_lines(content), 1) if first and line.strip() == first]
    return f"; its first line, but for white space, is line {', '.join(numbers[:4])}" if numbers else ""


@dataclass(frozen=True, slots=True)
class Text:
    """The content of a file.

    Attributes:
        content: the text.
        encoding: how it is written.
        mark: the byte order mark at its head.
    """

    content: str
    encoding: str = "utf-8"
    mark: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> "Text":
        """Returns the text of a file.

        Raises:
            NotText: it is binary.
        """
        for mark, encoding in _MARKS:
            if data.startswith(mark):
                try:
                    return cls(data[len(mark) :].decode(encoding), encoding, mark)
                except UnicodeDecodeError:
                    break
        if b"\0" in data:
            msg = f"is a binary file of {len(data)} bytes"
            raise NotText(msg)
        for encoding in _encodings(data):
            try:
                found = data.decode(encoding)
            except (UnicodeDecodeError, LookupError):
                continue
            if found.encode(encoding) == data:
                return cls(found, encoding)
        return cls(data.decode("latin-1"), "latin-1")

    @property
    def note(self) -> str:
        """What an edit has to know about the file; empty where it is UTF-8 with plain line ends."""
        ends = "its lines end in CRLF" if "\r\n" in self.content else ""
        if ends and self.content.count("\n") > self.content.count("\r\n"):
            ends = "some of its lines end in CRLF"
        encoded = f"its encoding is {self.encoding}" if self.encoding != "utf-8" else ""
        return " and ".join(filter(None, (encoded, ends)))

    def replace(self, place: tuple[int, int], new: str) -> "Text":
        """Returns the text with a part replaced; line ends become those of the part, or of the file."""
        start, end = place
        near = self.content[start:end] if "\n" in self.content[start:end] else self.content
        if "\r\n" in near and near.count("\r\n") * 2 >= near.count("\n"):
            new = re.sub("\r?\n", "\r\n", new)
        return Text(self.content[:start] + new + self.content[end:], self.encoding, self.mark)

    def write(self) -> bytes:
        """Returns the file.

        Raises:
            NotText: its encoding has no way to write some character.
        """
        try:
            return self.mark + self.content.encode(self.encoding)
        except UnicodeEncodeError as error:
            wrong = error.object[error.start]
            msg = f"is {self.encoding}, which cannot write {wrong!r} (U+{ord(wrong):04X}); use other characters"
            raise NotText(msg) from None


def _encodings(data: bytes) -> Iterator[str]:
    yield "utf-8"
    try:
        yield tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except (SyntaxError, UnicodeError):  # it declares none that Python knows
        return
