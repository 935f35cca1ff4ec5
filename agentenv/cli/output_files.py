"""Files that commands write: tried before the work begins, and never over what is of another kind."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .command_line import blame, refuse

__all__ = ["make_folder", "output_file"]

_HEAD_BYTES = 4096


def output_file(argument: str, path: Path, *, ours: Callable[[bytes], bool], what: str) -> Path:
    """Returns the file that a name leads to, once it is known that it can be written; a link stays a link.

    Args:
        argument: that names it.
        path: the name; its folder is made.
        ours: whether a file that is there, of which it gets the first bytes, may be replaced or added to.
        what: such a file is.

    Raises:
        typer.BadParameter: it is a folder, a device or a pipe, holds something else, or cannot be written.
    """
    if not path.name:
        refuse(argument, f"must be a file, got the folder {str(path)!r}")
    if wrong := next((place for place in path.absolute().parents if place.exists() and not place.is_dir()), None):
        refuse(argument, f"must be a file in a folder, got {str(path)!r}: {str(wrong)!r} is none")
    with blame(argument, OSError):
        real = path.resolve()
        if real.exists() and not real.is_file():
            kind = "a folder" if real.is_dir() else "a device or a pipe"
            refuse(argument, f"must be a file, {str(path)!r} is {kind}: choose another name")
        if real.exists():
            with real.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            if head and not ours(head):
                refuse(argument, f"must be {what} or a new file, {str(path)!r} is neither: choose another name")
            if not os.access(real, os.W_OK):
                refuse(argument, f"must be a file that can be written, {str(path)!r} cannot: choose another name")
    make_folder(argument, real.parent)
    return real


def make_folder(argument: str, folder: Path) -> None:
    """Makes a folder, and tries now whether it can be written to.

    Args:
        argument: that names what is written there.
        folder: the folder.

    Raises:
        typer.BadParameter: it cannot be made, or written to.
    """
    with blame(argument, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
