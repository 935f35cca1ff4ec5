"""Which folder a run goes to: never over another run."""

from pathlib import Path

from .command_line import blame, refuse

__all__ = ["choose_run_folder"]


def choose_run_folder(given: Path | None, name: str, *, resume: bool | None = None) -> Path:
    """Returns the folder of a run: the one given, or the first free one of runs/NAME, runs/NAME-2, ...

    Args:
        given: what was asked for.
        name: of the run.
        resume: whether to go on with the run in it; None where a command cannot.

    Raises:
        typer.BadParameter: it holds something, or has nothing to resume from.
    """
    if resume:
        if given is None:
            refuse("--resume", "needs --run-folder, the folder of the run to go on with")
        if not list(given.glob("checkpoint-*")):
            refuse("--run-folder", f"must hold a checkpoint to resume from; got {str(given)!r}, which has none")
        return given
    if given is not None:
        if file := next((place for place in (given, *given.parents) if place.exists() and not place.is_dir()), None):
            refuse("--run-folder", f"must be a folder, got {str(given)!r}: {str(file)!r} is a file")
        with blame("--run-folder", OSError):
            held = sorted(path.name for path in given.iterdir()) if given.exists() else []
        if held:
            is_run = "metrics.jsonl" in held
            remedy = "name another, or --resume it" if is_run and resume is not None else "name another"
            what = "a run" if is_run else repr(held[0])
            refuse("--run-folder", f"must be new or empty; got {str(given)!r}, which holds {what}: {remedy}")
        return given
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
