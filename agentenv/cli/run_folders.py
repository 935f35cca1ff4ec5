"""Which folder a run goes to: never over another run."""

from pathlib import Path

from .command_line import refuse

__all__ = ["choose_run_folder"]


def choose_run_folder(given: Path | None, name: str, *, resume: bool = False) -> Path:
    """Returns the folder of a run: the one given, or the first free one of runs/NAME, runs/NAME-2, ...

    Raises:
        typer.BadParameter: it holds another run, or has nothing to resume from.
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
        if (given / "metrics.jsonl").exists():
            refuse("--run-folder", f"must not hold a run; got {str(given)!r}, which does: name another, or --resume it")
        return given
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
