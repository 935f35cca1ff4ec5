"""The weights of a policy under the names of its model's files, for whoever samples elsewhere: adapters are merged."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["kept_exactly", "sampler_weights"]

_BASE = ".base_layer."


def sampler_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Gives names and tensors of all weights, those of an adapter merged into the layers that it changes.

    The model is left as it was, bit for bit: merging and taking back alone would round its weights a little each time.

    Args:
        model: a causal language model, with adapters or without, not wrapped for distribution.
    """
    weights = model.state_dict() if not hasattr(model, "merge_adapter") else _merged(model)
    yield from weights.items()


@contextmanager
def kept_exactly(model: Any) -> Generator[None]:
    """Puts the weights below an adapter back as they were, whatever merging and taking back has rounded them to."""
    if not hasattr(model, "merge_adapter"):
        yield
        return
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if _BASE in name}
    try:
        yield
    finally:
        now = model.state_dict()  # some adapters have put other tensors there
        for name, tensor in before.items():
            now[name].copy_(tensor)


@torch.no_grad()
def _merged(model: Any) -> dict[str, torch.Tensor]:
    with kept_exactly(model):
        model.merge_adapter()
        try:
            found = {name: tensor.clone() if _BASE in name else tensor for name, tensor in model.state_dict().items()}
        finally:
            model.unmerge_adapter()
    kept = [name for name in found if model.prefix not in name and "original_module" not in name]
    return {_plain(name): found[name] for name in kept}


def _plain(name: str) -> str:
    name = name.removeprefix("base_model.model.").replace(_BASE, ".")
    return name.replace(".modules_to_save.default.", ".")
