"""How a module of `guest` is started as a process of its own, without the SDK around it."""

import sys
from pathlib import Path

__all__ = ["guest_argv"]


def guest_argv(module: str) -> list[str]:
    """Returns the command that runs `main` of a module of `guest`.

    The folder is appended to `sys.path`, never put first: its other modules have names of the standard library.
    """
    here = str(Path(__file__).resolve().parent)
    code = f"import sys; sys.path.append({here!r}); from guest.{module} import main; main()"
    return [sys.executable, "-I", "-S", "-c", code]
