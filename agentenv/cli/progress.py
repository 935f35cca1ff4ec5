"""A bar that shows how many episodes have ended."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["show_progress"]


@contextmanager
def show_progress(episodes: int) -> Generator[Callable[[], None]]:
    """Shows a bar on stderr where that is a terminal; yields what moves it on by one episode."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .console import open_console

    console = open_console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        line = progress.add_task("episodes", total=episodes)
        yield lambda: progress.advance(line)
