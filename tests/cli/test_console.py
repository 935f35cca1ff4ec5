"""What is printed: the same words on a terminal and in a pipe, and nothing in them is obeyed."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from agentenv.cli.console import print_fields, print_messages, print_table, say, say_line, visible
from agentenv.types import Message


def printed(show, *, terminal, width=40):
    file = io.StringIO()
    show(
        Console(
            file=file, force_terminal=terminal, width=width if terminal else 10**6, color_system=None, highlight=False
        )
    )
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_brackets_are_text_and_not_markup(terminal):
    words = "pip install '.[vllm]' [bold]x[/bold] :smile:"
    assert words in printed(lambda console: print_table(console, ["[a]"], [[words]]), terminal=terminal, width=80)
    assert words in printed(lambda console: say(console, words), terminal=terminal, width=80)
    assert words in printed(lambda console: print_fields(console, {"a": words}), terminal=terminal, width=80)
    assert words in printed(lambda console: say_line(console, words), terminal=terminal, width=20)
    message: Message = {"role": "tool", "name": "f", "content": words}
    assert f"[tool f] {words}" in printed(lambda c: print_messages(c, [message]), terminal=terminal, width=80)


def test_a_table_in_a_pipe_has_a_line_per_row_aligned_and_without_trailing_spaces():
    rows = [["a", Text("yes", "green"), "x " * 200], ["long name", "no", "two\nlines"], ["b", "no", ""]]
    lines = printed(lambda console: print_table(console, ["name", "good", "text"], rows), terminal=False).splitlines()
    assert lines == [
        "name       good  text",
        "a          yes   " + ("x " * 200).strip(),
        "long name  no    two lines",
        "b          no",
    ]


def test_a_terminal_wraps_at_words():
    text = printed(lambda console: say(console, "word " * 30), terminal=True)
    assert max(map(len, text.splitlines())) <= 40
    assert all(line.split()[0] == "word" for line in text.splitlines())


def test_control_characters_are_written_out():
    assert visible("a\x1b[2Jb\tc\nd\r\x07é漢") == "a\\x1b[2Jb\tc\nd\\r\\x07é漢"
