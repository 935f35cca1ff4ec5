"""Keys and values of token prefixes, kept between calls so that a conversation is read once, not once per turn."""

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

__all__ = ["SPARE", "GrowingLayer", "KeptRow", "PrefixStore", "gather_rows", "is_plain", "new_cache", "select_rows"]

SPARE = 32
"""Tokens of room that a layer allocates at once."""

TokenIds = tuple[int, ...]


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` that writes new tokens into spare room instead of copying the past at every token.

    `keys` and `values` are views of the room, as long as the tokens in it. Whatever else puts other tensors there
    (`reset`, `batch_select_indices`, `offload`, ... of any transformers) leaves a room that counts no longer.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def room(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, heads, room, size]` of keys and of values, the spare room included."""
        if self._room is not None and self._is_current:
            return self._room
        if self.keys is None or self.values is None:
            msg = "the layer holds nothing yet"
            raise RuntimeError(msg)
        return self.keys, self.values

    @property
    def _is_current(self) -> bool:
        """Whether keys and values are still views of the room."""
        pairs = zip(self._room or (), (self.keys, self.values), strict=False)
        held = [
            view is not None and view.data_ptr() == room.data_ptr() and len(view) == len(room) for room, view in pairs
        ]
        return bool(held) and all(held)

    @classmethod
    def of(cls, keys: torch.Tensor, values: torch.Tensor, length: int) -> "GrowingLayer":
        """Returns a layer whose room is given, `[B, heads, room, size]`, with `length` tokens in it."""
        layer = cls()
        layer.is_initialized, layer.dtype, layer.device = True, keys.dtype, keys.device
        layer._take(keys, values, length)
        return layer

    def _take(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        self._room = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends `[B, heads, new, size]` to keys and values and returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._room is None or not self._is_current or self._room[0].shape[-2] < after:
            self._room = _grown(self.keys, key_states, before, after), _grown(self.values, value_states, before, after)
        self._room[0][:, :, before:after] = key_states
        self._room[1][:, :, before:after] = value_states
        self._take(*self._room, after)
        return cast("tuple[torch.Tensor, torch.Tensor]", (self.keys, self.values))

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Chooses rows, repeats allowed, and keeps the spare room; the old room stays as it is."""
        if self.get_seq_length():
            keys, values = (room.index_select(0, beam_idx.to(room.device)) for room in self.room)
            self._take(keys, values, self.get_seq_length())

    def reset(self) -> None:
        """Forgets every token, as transformers 5.24 does; earlier ones would keep zeros in their place."""
        self.keys = self.values = self._room = None
        self.is_initialized = False
        super().reset()


def _grown(past: torch.Tensor | None, new: torch.Tensor, before: int, after: int) -> torch.Tensor:
    batch, heads, _, size = new.shape
    room = new.new_empty(batch, heads, after + SPARE, size)
    if before and past is not None:
        room[:, :, :before] = past
    return room


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """Returns an empty cache for a model of this configuration; its plain layers are `GrowingLayer`s."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def is_plain(cache: DynamicCache) -> bool:
    """Says whether every layer keeps the keys and values of every token, so that prefixes can be cut out of it."""
    return bool(cache.layers) and all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def _layers(cache: DynamicCache) -> list[GrowingLayer]:
    """Returns the layers of a plain cache under their real type."""
    return cast("list[GrowingLayer]", cache.layers)


def select_rows(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """Returns a cache with the given rows, repeats allowed; the tensors of the first cache stay as they are."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.reorder_cache(cast(torch.LongTensor, rows))
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class KeptRow:
    """Where the keys and values of a token sequence are.

    Attributes:
        cache: the cache that holds them.
        row: its row.
        start: the slot of the first token.
        length: how many tokens of the sequence are there.
    """

    cache: DynamicCache
    row: int
    start: int
    length: int


def gather_rows(kept: Sequence[KeptRow | None], lengths: Sequence[int], slots: int, *, spare: int) -> DynamicCache:
    """Copies prefixes out of several plain caches into one, right-aligned in `slots` slots.

    Args:
        kept: `[B]` where each prefix is; `None` for an empty one. At least one is not empty.
        lengths: `[B]` how many tokens to take from each, at most `slots` and at most what is kept.
        slots: the length of the new cache.
        spare: for how many more tokens there shall be room.

    Returns:
        A plain cache `[B, heads, slots, size]`; what lies left of a prefix is arbitrary, finite, and must be masked.
    """
    sources: dict[int, list[int]] = {}
    for i, (where, length) in enumerate(zip(kept, lengths, strict=True)):
        if where is not None and length > 0:
            sources.setdefault(id(where.cache), []).append(i)
    plans = [_Plan.of(kept, lengths, slots, members) for members in sources.values()]
    target = DynamicCache()
    for number, first in enumerate(_layers(plans[0].cache)):
        sides: list[torch.Tensor] = []
        for side in (0, 1):
            _, heads, _, size = first.room[side].shape
            room = first.room[side].new_empty(len(kept), heads, slots + spare, size)
            if sum(len(plan.target) for plan in plans) < len(kept):
                room[:, :, :slots] = 0
            for plan in plans:
                # As rows of one matrix, which is several times faster than to index four dimensions.
                source = _layers(plan.cache)[number].room[side]
                taken = source.reshape(-1, size).index_select(0, plan.flat(heads, source.shape[2]))
                room[plan.target, :, :slots] = taken.view(-1, heads, slots, size)
            sides.append(room)
        target.layers.append(GrowingLayer.of(sides[0], sides[1], slots))
    return target


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What to copy from one cache: `b` rows."""

    cache: DynamicCache
    target: torch.Tensor  # [b] rows of the new cache
    rows: torch.Tensor  # [b, 1, 1] rows of the source
    places: torch.Tensor  # [b, 1, slots] slots of the source; left of a prefix, those of its first token

    @classmethod
    def of(cls, kept: Sequence[KeptRow | None], lengths: Sequence[int], slots: int, members: Sequence[int]) -> "_Plan":
        found = [where for i in members if (where := kept[i]) is not None]
        cache = found[0].cache
        device = _layers(cache)[0].device
        starts = torch.tensor([[where.start - slots + lengths[i]] for i, where in zip(members, found, strict=True)])
        first = torch.tensor([[where.start] for where in found])
        places = torch.maximum(starts + torch.arange(slots)[None, :], first)
        rows = torch.tensor([where.row for where in found])
        target = torch.tensor(members, device=device)
        return cls(cache, target, rows.to(device)[:, None, None], places.to(device)[:, None, :])

    def flat(self, heads: int, room: int) -> torch.Tensor:
        """Returns `[b * heads * slots]` positions in a source `[B * heads * room, size]`."""
        order = torch.arange(heads, device=self.rows.device)[None, :, None]
        return ((self.rows * heads + order) * room + self.places).reshape(-1)


class PrefixStore:
    """The most recent caches, found by the token sequence they hold; bounded in bytes, oldest first out."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._rows: dict[TokenIds, KeptRow] = {}
        self._blocks: deque[tuple[int, list[TokenIds]]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, token_ids: TokenIds) -> KeptRow | None:
        """Returns where the keys of `token_ids` are, or `None`."""
        return self._rows.get(token_ids)

    def add(self, cache: DynamicCache, rows: dict[TokenIds, KeptRow]) -> None:
        """Keeps a cache under the sequences of its rows, unless it alone exceeds the limit."""
        size = sum(side.nbytes for layer in _layers(cache) for side in layer.room)
        if size > self._limit:
            return
        self._rows.update(rows)
        self._blocks.append((size, list(rows)))
        self._bytes += size
        while self._bytes > self._limit:
            old, keys = self._blocks.popleft()
            self._bytes -= old
            for key in keys:
                self._rows.pop(key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._rows.clear()
        self._blocks.clear()
        self._bytes = 0
