"""Warm-started models, made once and kept by the hash of everything that they come from."""

import hashlib
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentenv.signatures import digest
from agentenv.trainers import warm_start
from agentenv.trainers.imitation import MATRIX_LR, OTHER_LR
from agentenv.trainers.run_folder import name_of
from benchmarks import trained_loss

from .cells import OtherStartError, StudyError
from .settings import Setting
from .sizes import Size, size_of

__all__ = ["check_start", "recipe_of", "start_of", "weights_of"]

_FORM = 1
"""Raised when the imitation changes so that its models are others."""


def recipe_of(setting: Setting, size: str = "tiny") -> str:
    """Computes the hash of what a start is made from: tasks, play, amounts, shape; not of code or libraries.

    The device is not in it: a start is made once, and runs on any. A table has no size.
    """
    return _recipe(setting, None if size == "tiny" or not setting.plays else size_of(size))


@lru_cache
def _recipe(setting: Setting, size: Size | None) -> str:
    plays = [[play.name, name_of(play.demonstrate), play.updates] for play in setting.plays]
    env = name_of(setting.make_env) if setting.plays else setting.name
    return digest([setting.panel, plays, env, _FORM, *([size.shape] if size else [])])[:16]


def start_of(setting: Setting, folder: Path, *, size: str = "tiny", device: str = "cpu") -> tuple[Any, Any]:
    """Returns the model and the tokenizer that every run of a setting starts from.

    Args:
        setting: the setting.
        folder: where models are kept, by the hash of what they come from; one that is there is loaded.
        size: of the model, a name of `SIZES`; a table has none.
        device: `cpu` or `cuda`.

    Raises:
        StudyError: a model that is there cannot be read, or none can be written.
    """
    if setting.problem is not None:
        table, tokenizer = trained_loss.table_model(setting.problem())
        return torch.nn.Module.to(table, device), tokenizer
    place = folder / f"{setting.name}-{recipe_of(setting, size)}"
    try:
        if not place.exists():
            _make(setting, place, size, device)
    except OSError as error:
        msg = f"the start {place} cannot be written ({error}): choose another folder by --starts"
        raise StudyError(msg) from error
    try:
        model = AutoModelForCausalLM.from_pretrained(place, dtype="float32")  # masters of the weights are never bf16
        tokenizer = AutoTokenizer.from_pretrained(place)
    except Exception as error:
        msg = (
            f"the start in {place} cannot be read ({type(error).__name__}: {error}): remove the folder, it is made anew"
        )
        raise StudyError(msg) from error
    return torch.nn.Module.to(model, device), tokenizer


def check_start(setting: Setting, folder: Path, weights: str, *, size: str = "tiny", device: str = "cpu") -> None:
    """Refuses, before any run, a start whose weights have another hash than is given; the rest is as for `start_of`.

    Raises:
        OtherStartError: it has.
    """
    here = weights_of(start_of(setting, folder, size=size, device=device)[0])
    if here != weights:
        msg = f"{setting.name}: a kept run starts from weights {weights}, what is made here has {here}"
        raise OtherStartError(msg)


def weights_of(model: Any) -> str:
    """Computes the hash of the weights of a model: what a recipe makes differs between processors and libraries."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode() + b"\0" + tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def _make(setting: Setting, place: Path, size: str, device: str) -> None:
    """Writes a folder as a whole or not at all; of two that make it at once, the first stays."""
    one = size_of(size)
    model, tokenizer = warm_start(
        setting.make_env,
        list(setting.plays),
        tasks=setting.tasks[0],
        device=device,
        matrix_lr=one.rate(MATRIX_LR),
        other_lr=one.rate(OTHER_LR),
        progress=False,
        **one.shape,
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    try:
        os.rename(part, place)  # noqa: PTH104  Path.rename is the same call; onto a folder that is not empty it fails
    except OSError:
        shutil.rmtree(part)
        if not place.exists():
            raise
