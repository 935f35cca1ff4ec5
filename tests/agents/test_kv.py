"""The cache layer with spare room: as `DynamicLayer`, whatever is done to either between two tokens."""

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from agentenv.agents.kv import GrowingLayer


def drops(layer: Any) -> None:
    """What `DynamicLayer.reset` of transformers 5.24 does."""
    layer.keys = layer.values = None
    layer.is_initialized = False


def zeros(layer: Any) -> None:
    """What it did before: zeros in place of the tokens."""
    layer.keys.zero_()
    layer.values.zero_()


def keeps(_: Any) -> None:
    pass


class Dropping(GrowingLayer):
    """A layer whose base class resets as in transformers 5.24, and that knows nothing of it."""

    reset = drops  # pyright: ignore[reportAssignmentType]


CHANGES: dict[str, Any] = {
    "nothing": keeps,
    "dropped": drops,
    "zeroed": zeros,
    "cropped": lambda layer: layer.crop(-2),
    "repeated": lambda layer: layer.batch_repeat_interleave(2),
    "chosen": lambda layer: layer.batch_select_indices(torch.tensor([1, 0, 1])),
    "reordered": lambda layer: layer.reorder_cache(torch.tensor([2, 0])),
    "moved": lambda layer: (layer.offload(), layer.prefetch()),
    "replaced": lambda layer: setattr(layer, "keys", layer.keys + 1),
}


def tokens(count: int, batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 2, count, 4, generator=generator), torch.randn(batch, 2, count, 4, generator=generator)


@pytest.mark.parametrize("kind", [GrowingLayer, Dropping])
@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_with_room_equals_one_without_after_any_change(kind, change):
    growing, plain = kind(), DynamicLayer()
    for layer in (growing, plain):
        for seed, count in enumerate((5, 1, 40, 1)):
            layer.update(*tokens(count, 3, seed))
        CHANGES[change](layer)
    batch = 3 if plain.keys is None else plain.keys.shape[0]
    for seed, count in enumerate((1, 1, 50, 1)):
        new = tokens(count, batch, 100 + seed)
        for ours, theirs in zip(growing.update(*new), plain.update(*new), strict=True):
            assert torch.equal(ours, theirs)
    assert growing.get_seq_length() == plain.get_seq_length()


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", [GrowingLayer, Dropping])
def test_nothing_is_left_after_a_reset(kind, batch):
    layer = kind()
    layer.update(*tokens(20, 3, 0))
    before = copy.copy(layer)
    kept = before.keys.clone()
    layer.reset()
    assert layer.get_seq_length() == 0
    keys, values = layer.update(*tokens(3, batch, 1))
    for held, new in zip((keys, values), tokens(3, batch, 1), strict=True):
        assert torch.equal(held, new)
    assert torch.equal(before.keys, kept), "a layer that shared the room is not written to"
    assert [side.shape[0] for side in layer.room] == [batch, batch]


def test_a_whole_cache_is_reset():
    cache: Any = DynamicCache()
    cache.layers = [GrowingLayer(), GrowingLayer()]
    for index in (0, 1):
        cache.update(*tokens(4, 2, index), index)
    cache.reset()
    assert cache.get_seq_length() == 0
    keys, _ = cache.update(*tokens(2, 1, 7), 0)
    assert torch.equal(keys, tokens(2, 1, 7)[0])


def test_an_empty_layer_has_no_room():
    with pytest.raises(RuntimeError, match="holds nothing yet"):
        _ = GrowingLayer().room
