"""Which folder a run goes to, never over another run; and how to go on with one that was stopped."""

import os
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from agentenv.checkpoints import whole_checkpoints

from .command_line import refuse
from .console import open_console, say_line

__all__ = ["choose_run_folder", "tell_when_stopped"]


def choose_run_folder(given: Path | None, name: str, *, resume: bool | None = None) -> Path:
    """Returns the folder of a run: the one given, or the first free one of runs/NAME, runs/NAME-2, ...

    It is tried at once whether it can be made and written to. Nothing is left of that: whoever trains makes it.

    Args:
        given: what was asked for.
        name: of the run.
        resume: whether to go on with the run in it; None where a command cannot.

    Raises:
        typer.BadParameter: it holds something, has nothing to resume from, or cannot be written to.
    """
    if resume and given is None:
        refuse("--resume", "needs --run-folder, the folder of the run to go on with")
    folder = _first_free(name) if given is None else given
    try:
        _refuse_what_is_in_the_way(folder)
        held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        if resume:
            _refuse_without_checkpoint(folder, held)
        elif held:
            _refuse_held(folder, held, resumable=resume is not None)
        with TemporaryDirectory(dir=next(place for place in (folder, *folder.parents) if place.exists())):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "get the right to write there" if resume else "name another"
        refuse("--run-folder", f"must be a folder to write to, got {str(folder)!r} ({reason}): {remedy}")
    return folder


@contextmanager
def tell_when_stopped(folder: Path, *, resume: bool | None) -> Generator[None]:
    """Says on stderr, when Ctrl-C stops a run, what of it is saved and how to go on.

    Args:
        folder: of the run.
        resume: whether the command said `--resume`; None where it cannot.
    """
    try:
        yield
    except KeyboardInterrupt:
        say_line(open_console(stderr=True), f"\nstopped; {_how_to_go_on(folder, resume=resume)}")
        raise


def _how_to_go_on(folder: Path, *, resume: bool | None) -> str:
    quoted = shlex.quote(str(folder))
    if not folder.is_dir() or not any(folder.iterdir()):
        return "nothing was saved yet: the same command begins anew"
    remedy = f"to run again, name another --run-folder, or remove {quoted}"
    if resume is None:
        return f"{quoted} stays as it is, and this command cannot go on with it: {remedy}"
    checkpoints = whole_checkpoints(folder)
    if not checkpoints:
        return f"no checkpoint was saved yet, so the run cannot go on: {remedy}"
    added = "" if resume else f" with --run-folder {quoted} --resume"
    return f"the same command{added} goes on from {checkpoints[0]}"


def _first_free(name: str) -> Path:
    folder, number = Path("runs") / name, 1
    while os.path.lexists(folder):
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def _refuse_what_is_in_the_way(folder: Path) -> None:
    """Refuses a folder where it, or one above it, is a file or a link that leads nowhere."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            refuse("--run-folder", f"must be a folder, got {str(folder)!r}: {str(place)!r} is a file; name another")
        if place.is_symlink() and not place.exists():
            told = f"{str(place)!r} is a link to {str(place.readlink())!r}, which is not there"
            refuse("--run-folder", f"must be a folder, got {str(folder)!r}: {told}; make that, or name another")


def _refuse_held(folder: Path, held: Sequence[str], *, resumable: bool) -> None:
    what, remedy = repr(held[0]), "name another"
    if _is_run(held):
        what = "a run"
        if resumable and whole_checkpoints(folder):
            remedy += ", or --resume it"
        elif resumable:
            what, remedy = "a run without a checkpoint, so that --resume cannot go on", f"{remedy}, or remove it"
    refuse("--run-folder", f"must be new or empty; got {str(folder)!r}, which holds {what}: {remedy}")


def _refuse_without_checkpoint(folder: Path, held: Sequence[str]) -> None:
    if whole_checkpoints(folder):
        return
    if not held:
        what = "is empty" if folder.exists() else "is not there"
        remedy = "name the folder of a run, or leave out --resume to begin one"
    else:
        cut_off = any(name.startswith("checkpoint-") for name in held)
        what = "has none that was written to its end" if cut_off else "has none"
        remedy = "name the folder of another run"
        if _is_run(held):
            remedy = "this run cannot go on; leave out --resume and name another folder, or remove this one"
    refuse("--run-folder", f"must hold a checkpoint to resume from; got {str(folder)!r}, which {what}: {remedy}")


def _is_run(held: Sequence[str]) -> bool:
    return "metrics.jsonl" in held
