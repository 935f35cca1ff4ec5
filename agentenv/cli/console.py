"""Where commands print: tables and colors on a terminal, plain lines of full length in a pipe or a file."""

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from agentenv.types import Message, message_text

__all__ = [
    "Cell",
    "open_console",
    "own_command",
    "print_fields",
    "print_json",
    "print_messages",
    "print_table",
    "say",
    "say_line",
    "visible",
]

Cell = str | Text

_UNLIMITED = 1_000_000
"""Columns of an output that is not a terminal: nothing is wrapped or cut."""

_ROLES = {"user": "bold", "system": "dim", "tool": "cyan", "assistant": "green"}


def open_console(*, stderr: bool = False) -> Console:
    """Returns a console for stdout, or for what accompanies the work on stderr."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, highlight=False, width=_UNLIMITED, no_color=True, color_system=None)


def own_command(*words: object, program: str = "agentenv", moved: bool = False) -> str:
    """Returns a call of `agentenv` as it can be copied from here into a shell.

    Args:
        words: its arguments; those that a shell would take apart are quoted.
        program: of this environment; by its name where a shell finds that one by it, else by its path.
        moved: the command is to be typed in another folder.
    """
    own, found = Path(sys.executable).with_name(program), shutil.which(program)
    called = str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) and not moved else own)
    if found and (not own.exists() or _is_found(own, Path(found))):
        called = program
    return shlex.join([called, *map(str, words)])


def _is_found(own: Path, found: Path) -> bool:
    """Whether both are one program; pythons of other environments, links to the same file, are told by their place."""
    return own.samefile(found) and (not own.is_symlink() or own.parent.samefile(found.parent))


def say(console: Console, text: Cell) -> None:
    """Prints a text as it is, without markup: wrapped at words on a terminal, in full lines elsewhere."""
    console.print(_plain(text), soft_wrap=not console.is_terminal)


def say_line(console: Console, text: str) -> None:
    """Prints a line that stays one line everywhere, so that a command or a path in it can be copied."""
    console.print(Text(text), soft_wrap=True)


def _plain(text: Cell) -> Text:
    """Returns text that rich prints as it stands: brackets are no markup, and `:smile:` is no picture."""
    return Text(text) if isinstance(text, str) else text


def print_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Prints a table; in a pipe, columns aligned by spaces and one line per row."""
    rows = [list(row) for row in rows]
    if console.is_terminal:
        heads = (Column(Text(name)) for name in columns)
        table = Table(*heads, box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for row in rows:
            table.add_row(*map(_plain, row))
        console.print(table)
        return
    lines = [list(columns), *([" ".join(str(cell).split()) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        console.print(Text(text.rstrip()), soft_wrap=True)


def print_fields(console: Console, fields: Mapping[str, Cell]) -> None:
    """Prints names and values, one pair a line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        say(console, Text.assemble((name.ljust(width + 2), "dim"), value))


def print_json(value: Any) -> None:
    """Prints a value as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_messages(console: Console, messages: Iterable[Message]) -> None:
    """Prints chat messages, each after its role."""
    for message in messages:
        name = f" {message['name']}" if "name" in message else ""
        label = f"[{message['role']}{name}] "
        text = Text.assemble((label, _ROLES.get(message["role"], "")), visible(message_text(message)))
        say(console, text)


def visible(text: str) -> str:
    """Returns text with control characters written out, so that what a model wrote cannot act on the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
