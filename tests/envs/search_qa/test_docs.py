"""The documentation's Python blocks run, and print what the text block after them shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "environments" / "search_qa.md"
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def squeeze(text):
    """Trailing spaces and blank lines at the end do not count."""
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


@pytest.mark.parametrize(("code", "output"), BLOCKS)
def test_block(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "docs"})
    assert squeeze(printed.getvalue()) == squeeze(output)


def test_there_are_blocks():
    assert len(BLOCKS) == 4
    assert sum(bool(output) for _, output in BLOCKS) == 3
