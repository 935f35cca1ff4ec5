"""Warm-started models, made once and kept by the hash of everything that they come from."""

import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from agentenv.signatures import digest
from agentenv.trainers import warm_start
from agentenv.trainers.run_folder import name_of
from benchmarks import trained_loss

from .settings import Setting

__all__ = ["recipe_of", "start_of"]

_FORM = 1
"""Raised when the imitation changes so that its models are others."""


@lru_cache
def recipe_of(setting: Setting) -> str:
    """Computes the hash of what a start is made from: tasks, play and amounts; not of code or versions of libraries."""
    plays = [[play.name, name_of(play.demonstrate), play.updates] for play in setting.plays]
    env = name_of(setting.make_env) if setting.plays else setting.name
    return digest([setting.panel, plays, env, _FORM])[:16]


def start_of(setting: Setting, folder: Path) -> tuple[Any, Any]:
    """Returns the model and the tokenizer that every run of a setting starts from.

    Args:
        setting: the setting.
        folder: where models are kept, by the hash of what they come from; one that is there is loaded.
    """
    if setting.problem is not None:
        return trained_loss.table_model(setting.problem())
    place = folder / f"{setting.name}-{recipe_of(setting)}"
    if not place.exists():
        _make(setting, place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype="float32")
    return model, AutoTokenizer.from_pretrained(place)


def _make(setting: Setting, place: Path) -> None:
    """Writes a folder as a whole or not at all; of two that make it at once, the first stays."""
    model, tokenizer = warm_start(setting.make_env, list(setting.plays), tasks=setting.tasks[0], progress=False)
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
