"""What a checkpoint holds besides model and optimizer: the named parts of a trainer that have a state of their own.

    checkpoint-N/agentenv_state/NAME.pt          process 0
    checkpoint-N/agentenv_state/NAME_rank_1.pt   process 1, ...
    checkpoint-N/agentenv_state/files.json       how long every file of the checkpoint is

A part is anything with `state_dict()` and `load_state_dict(state)`, such as a success predictor, a critic, an allocator
that remembers, or an estimator with random state. Its state is made of plain values: numbers, strings, `None`, numpy
arrays, tensors, and lists, tuples and dicts of those.
"""

import errno
import io
import json
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from agentenv.checkpoints import MARK, PREFIX, is_whole, whole_checkpoints
from agentenv.whole_files import replace_file

__all__ = [
    "RestoreParts",
    "ResumeError",
    "Stateful",
    "last_checkpoint",
    "load_parts",
    "read_checkpoint",
    "save_parts",
    "whole_checkpoint",
]

_FOLDER = "agentenv_state"
_FILES = "files.json"
_WRITING = re.compile(r"failed writing|file write failed|inline_container|os error|I/O error")
"""What torch and safetensors say, by errors of their own, where a file cannot be written."""


class ResumeError(ValueError):
    """A run cannot go on from its checkpoint, or not with these settings."""


@runtime_checkable
class Stateful(Protocol):
    """A part of a trainer that a checkpoint saves."""

    def state_dict(self) -> Mapping[str, Any]:
        """Returns all that decides what the part does next, as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> object:
        """Takes the state that `state_dict` gave; the part then does the same, to the last bit."""
        ...


def last_checkpoint(run: str | Path) -> Path | None:
    """Returns the newest checkpoint that was written to its end; a crash may have cut off a newer one."""
    return next(iter(whole_checkpoints(run)), None)


def read_checkpoint(given: str | bool | None, run: str) -> Path | None:
    """Returns the checkpoint that a run goes on from, after a look at whether all of its files are there to their ends.

    transformers would go on without an optimizer, a schedule or random numbers that are missing, and be another run.

    Args:
        given: a checkpoint, or `True` for the last one.
        run: the folder of the run.

    Raises:
        ResumeError: there is none, or a file is missing or has another length than it was written with; the message
            names it, and the checkpoint before it that could be taken.
    """
    if not given:
        return None
    whole = whole_checkpoints(run)
    if given is True and not whole:
        msg = f"{run!r} must hold a checkpoint written to its end, and holds none: begin anew in another folder"
        raise ResumeError(msg)
    checkpoint = whole[0] if given is True else Path(str(given))
    fault = _find_fault(checkpoint)
    if fault is not None:
        told = f" ({_way_back(whole)})" if given is True else ""
        msg = f"{fault}: go on from another checkpoint{told}, or bring it back from where it was copied from"
        raise ResumeError(msg)
    return checkpoint


def _find_fault(checkpoint: Path) -> str | None:
    """Says which file of a checkpoint is missing or cut off; `None` where nothing is."""
    if not is_whole(checkpoint):
        return f"{str(checkpoint / MARK)!r} is missing or cut off"
    path = checkpoint / _FOLDER / _FILES
    if not path.is_file():  # of an older version, or of another trainer
        return None
    try:
        sizes: dict[str, int] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        return f"{str(path)!r} cannot be read ({error})"
    for name, size in sizes.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{str(file)!r} is missing"
        if file.stat().st_size != size:
            return f"{str(file)!r} has {file.stat().st_size:,} bytes of {size:,}"
    if not any(name.startswith("rng_state") for name in sizes):
        return f"{str(checkpoint)!r} holds no optimizer, schedule and random numbers (save_only_model)"
    return None


def _way_back(whole: Sequence[Path]) -> str:
    """Says what to remove so that the last checkpoint is one without a fault."""
    sound = next((number for number, folder in enumerate(whole) if _find_fault(folder) is None), None)
    if sound is None:
        return "this folder holds no other: begin anew in another folder"
    return f"remove {' and '.join(repr(str(folder)) for folder in whole[:sound])}, then {str(whole[sound])!r} is taken"


@contextmanager
def whole_checkpoint(args: TrainingArguments, state: TrainerState) -> Generator[Path]:
    """Gives the folder of a checkpoint, which is then there whole or not at all: one that is cut off is removed.

    Args:
        args: of the run.
        state: of the trainer. A checkpoint of the same step, of a run that went back, counts as cut off from now on.

    Raises:
        OSError: it could not be saved; the message says what to do.
    """
    folder = Path(str(args.output_dir), f"{PREFIX}{state.global_step}")
    main = state.is_world_process_zero
    if main:
        for name in (MARK, f"{_FOLDER}/{_FILES}"):
            (folder / name).unlink(missing_ok=True)
    try:
        yield folder
        if main:
            files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.parent.name != _FOLDER]
            sizes = {str(file.relative_to(folder)): file.stat().st_size for file in files}  # parts speak for themselves
            replace_file(folder / _FOLDER / _FILES, json.dumps(sizes, indent=1))
    except BaseException as error:
        if is_whole(folder):  # what broke came after it
            raise
        if main:
            shutil.rmtree(folder, ignore_errors=True)
        said = str(error).partition("\n")[0]
        if not isinstance(error, OSError) and not _WRITING.search(said):
            raise
        before = last_checkpoint(folder.parent)
        go_on = f"resume from {before.name} (--resume)" if before else "begin anew"
        msg = f"{folder.name} could not be saved, and nothing of it is left ({said}): make room, or mend the rights, "
        msg += f"then {go_on}"
        raise OSError(getattr(error, "errno", None) or errno.EIO, msg, str(folder)) from error


def save_parts(parts: Mapping[str, Stateful], checkpoint: Path, *, rank: int = 0) -> None:
    """Writes the state of every part into a checkpoint, each file as a whole or not at all.

    Raises:
        TypeError: a state is not made of plain values; the message names the part.
    """
    for name, part in parts.items():
        buffer = io.BytesIO()
        state = dict(part.state_dict())
        try:
            torch.save(state, buffer)
            _load(buffer.getvalue())
        except (pickle.PickleError, AttributeError, TypeError) as error:  # what pickle says of lambdas, locks, classes
            msg = (
                f"state_dict() of {name} ({type(part).__name__}) must hold plain values only (numbers, strings, numpy "
                f"arrays, tensors, and lists and dicts of them): {str(error).splitlines()[0]}"
            )
            raise TypeError(msg) from None
        path = _path(checkpoint, name, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())


def load_parts(parts: Mapping[str, Stateful], checkpoint: Path, *, rank: int = 0, fresh: bool = False) -> None:
    """Gives every part the state that it has in a checkpoint.

    Args:
        parts: by the names that they were saved under.
        checkpoint: the folder.
        rank: of this process.
        fresh: lets a process that the run did not have take the state of process 0, and a part that the checkpoint
            does not know begin anew, with a warning.

    Raises:
        ResumeError: the checkpoint does not know a part, or the part cannot take its state; the message names it.
    """
    for name, part in parts.items():
        path = _path(checkpoint, name, rank)
        if fresh and not path.is_file():
            path = _path(checkpoint, name, 0)
        if not path.is_file():
            remedy = "it begins anew" if fresh else "set allow_changes (--override) to let it begin anew"
            msg = f"{str(checkpoint)!r} holds no state of {name} ({type(part).__name__}) for process {rank}: {remedy}"
            if not fresh:
                raise ResumeError(msg)
            warnings.warn(msg, RuntimeWarning, stacklevel=2)
            continue
        try:
            part.load_state_dict(_load(path.read_bytes()))
        except (KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            msg = f"{name} ({type(part).__name__}) cannot take its state from {str(path)!r}: {error}"
            raise ResumeError(msg) from error


class RestoreParts(TrainerCallback):
    """Restores the parts of a trainer when a run goes on, after `RunFolder` has compared its settings.

    Args:
        parts: of the trainer.
        checkpoint: says which one the run goes on from.
    """

    def __init__(self, parts: Mapping[str, Stateful], checkpoint: Callable[[], Path | None]) -> None:
        self._parts = parts
        self._checkpoint = checkpoint

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        checkpoint = self._checkpoint()
        if checkpoint is not None:
            fresh = bool(getattr(args, "allow_changes", False))
            load_parts(self._parts, checkpoint, rank=args.process_index, fresh=fresh)


def _path(checkpoint: Path, name: str, rank: int) -> Path:
    return checkpoint / _FOLDER / (f"{name}_rank_{rank}.pt" if rank else f"{name}.pt")


def _load(data: bytes) -> dict[str, Any]:
    """Reads plain values, and runs no code of the file."""
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdSU"}
    core = cast("Any", np)._core.multiarray
    with torch.serialization.safe_globals([np.ndarray, np.dtype, core._reconstruct, core.scalar, *kinds]):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
