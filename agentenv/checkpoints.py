"""Which checkpoints of a run were written to their end. Needs no torch, as command lines ask before they import it."""

from pathlib import Path

__all__ = ["MARK", "PREFIX", "is_whole", "step_of", "whole_checkpoints"]

PREFIX = "checkpoint-"
"""What the name of a checkpoint's folder begins with; the number of its step follows. transformers gives this name."""
MARK = "trainer_state.json"
"""The file of a checkpoint that is written last."""


def whole_checkpoints(run: str | Path) -> list[Path]:
    """Returns those of a run's folder that were written to their end, the newest first; a crash may cut one off."""
    steps = {folder.name.removeprefix(PREFIX): folder for folder in Path(run).glob(f"{PREFIX}*")}
    numbers = sorted(filter(str.isdecimal, steps), key=int, reverse=True)
    return [steps[number] for number in numbers if is_whole(steps[number])]


def is_whole(checkpoint: Path) -> bool:
    """Returns whether a checkpoint was written to its end."""
    mark = checkpoint / MARK
    return mark.is_file() and mark.read_bytes().rstrip().endswith(b"}")


def step_of(checkpoint: Path) -> int:
    """Returns the optimizer step of a checkpoint."""
    return int(checkpoint.name.removeprefix(PREFIX))
