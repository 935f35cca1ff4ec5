"""Folds token rows into packed rows in which every shared beginning stands once.

Sorted, rows that begin alike are neighbors, so that a row adds only what its predecessor has not: the tokens of all
rows in this order are the prefix tree of the rows in depth-first order. A token's descendants then follow it without a
gap, up to its `end`, and token `q` sees token `k` exactly when `k <= q < end[k]`. Steps with the same tokens are folded
however they came about: continuations of one prefix, two agents that began alike, or an agent whose chat template kept
some tokens of the path and rewrote the rest.

Letters: `B` rows, `L` tokens, `T` tokens of a packed row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .layout import Rows

__all__ = ["Fold", "cut", "fold", "fold_size", "plan"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Rows folded into one packed row."""

    token_ids: IntArray  # [T]
    positions: IntArray  # [T] number of tokens before the token on its own row
    ends: IntArray  # [T] one past the last token that sees the token
    places: dict[int, IntArray]  # row -> [its tokens] where they stand in the packed row


def fold(rows: Rows, which: IntArray) -> Fold:
    """Folds some rows: `T` is the number of their different beginnings.

    Args:
        rows: the rows.
        which: numbers of the rows to fold, in any order.
    """
    order, shared = _sorted(rows, which)
    lengths = rows.lengths[order]
    starts = np.concatenate([[0], np.cumsum(lengths - shared)])
    total = int(starts[-1])
    token_ids, positions, ends = (np.empty(total, dtype=np.int64) for _ in range(3))
    places: dict[int, IntArray] = {}
    before = np.empty(0, dtype=np.int64)
    for i, row in enumerate(order.tolist()):
        own = slice(int(starts[i]), int(starts[i + 1]))
        token_ids[own] = rows.token_ids[row, shared[i] : lengths[i]]
        positions[own] = np.arange(shared[i], lengths[i])
        before = np.concatenate([before[: shared[i]], np.arange(own.start, own.stop)])
        places[row] = before
    closing = np.full(int(lengths.max(initial=0)), total)
    for i in reversed(range(len(order))):
        ends[starts[i] : starts[i + 1]] = closing[shared[i] : lengths[i]]
        closing[shared[i] :] = starts[i]
    return Fold(token_ids, positions, ends, places)


def fold_size(rows: Rows, which: IntArray) -> int:
    """Counts the tokens of a fold without making it."""
    order, shared = _sorted(rows, which)
    return int((rows.lengths[order] - shared).sum())


def _sorted(rows: Rows, which: IntArray) -> tuple[IntArray, IntArray]:
    """Returns the rows in lexicographic order, and how many tokens each shares with the row before it."""
    numbers = [int(row) for row in which]
    order = sorted(numbers, key=lambda row: rows.token_ids[row, : rows.lengths[row]].astype(">u4").tobytes())
    shared = np.zeros(len(order), dtype=np.int64)
    for i, (one, two) in enumerate(pairwise(order), 1):
        width = int(min(rows.lengths[one], rows.lengths[two]))
        unlike = rows.token_ids[one, :width] != rows.token_ids[two, :width]
        shared[i] = unlike.argmax() if unlike.any() else width
    return np.array(order, dtype=np.int64), shared


def cut(rows: Rows, which: IntArray, budget: int) -> list[IntArray]:
    """Cuts rows into parts that fold into at most `budget` tokens each, and repeats as few tokens as it can.

    A cut between neighbors repeats what they share. Of all ways to cut the sorted rows, this one has the fewest tokens
    in all (dynamic programming). A single row longer than the budget is a part of its own.
    """
    order, shared = _sorted(rows, which)
    return [order[begin:end] for begin, end, _ in _cuts(rows.lengths[order], shared, budget)]


def _cuts(lengths: IntArray, shared: IntArray, budget: int) -> list[tuple[int, int, int]]:
    """Cuts sorted rows; returns begin, end and tokens of every part."""
    done = np.concatenate([[0], np.cumsum(lengths - shared)])  # tokens of the first i rows, folded
    count = len(lengths)
    if done[-1] <= budget:
        return [(0, count, int(done[-1]))]
    fewest, begins = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    low = 0
    for i in range(1, count + 1):
        while low < i - 1 and done[i] - done[low] > budget:
            low += 1
        sizes = lengths[low:i] + done[i] - done[low + 1 : i + 1]  # if the last part is rows j..i-1, from j = low
        tokens = np.where(sizes <= budget, fewest[low:i] + sizes, np.iinfo(np.int64).max)
        tokens[-1] = fewest[i - 1] + sizes[-1]  # one row alone may be larger
        best = int(tokens.argmin())
        fewest[i], begins[i] = tokens[best], low + best
    parts: list[tuple[int, int, int]] = []
    end = count
    while end:
        begin = int(begins[end])
        parts.append((begin, end, int(fewest[end] - fewest[begin])))
        end = begin
    return parts[::-1]


def plan(rows: Rows, *, parts: int, budget: int | None = None, token_cost: float = math.inf) -> list[list[IntArray]]:
    """Divides trees among micro-batches of about as many tokens, and within each among packed rows.

    Several trees share a packed row where they fit. Packed rows of `T` tokens cost attention `T^2`, so cutting a tree
    may pay though it repeats the trunk: without a budget, the size of packed rows is that which costs least.

    Args:
        rows: the rows of the trees.
        parts: number of micro-batches.
        budget: most tokens of a packed row; a tree with more is cut, others stay whole.
        token_cost: what the rest of the model costs for a token, in pairs of tokens that attend to each other (see
            `packable.token_cost`). Infinite, no tree is cut, and packed rows are as long as the largest tree.

    Returns:
        For each micro-batch the numbers of the rows in each of its packed rows; no packed rows where nothing is left.
    """
    tree_of = rows.arrays.tree_ids[rows.ends]
    trees = [_sorted(rows, np.flatnonzero(tree_of == tree)) for tree in np.unique(tree_of)]
    largest = max([int((rows.lengths[order] - shared).sum()) for order, shared in trees], default=1)
    if budget is not None or token_cost == math.inf:
        return _divide(rows, trees, parts, budget or largest)
    sizes = [largest]
    while sizes[-1] > rows.lengths.max(initial=1):
        sizes.append(max(int(sizes[-1] * _SMALLER), int(rows.lengths.max())))
    plans = (_divide(rows, trees, parts, size) for size in sizes)
    return min(plans, key=lambda planned: sum(_cost(rows, packed, token_cost) for packed in planned))


_SMALLER = 2**-0.5
"""The next size of packed rows that is tried, as a share of the last."""


def _divide(rows: Rows, trees: Sequence[tuple[IntArray, IntArray]], parts: int, capacity: int) -> list[list[IntArray]]:
    """Divides sorted trees, cut where they have more than `capacity` tokens."""
    pieces: list[IntArray] = []
    sizes: list[int] = []
    for order, shared in trees:
        for begin, end, size in _cuts(rows.lengths[order], shared, capacity):
            pieces.append(order[begin:end])
            sizes.append(size)
    batches: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for piece in sorted(range(len(pieces)), key=lambda p: -sizes[p]):
        least = loads.index(min(loads))
        batches[least].append(piece)
        loads[least] += sizes[piece]
    return [_bins([pieces[p] for p in batch], [sizes[p] for p in batch], capacity) for batch in batches]


def _cost(rows: Rows, packed: Sequence[IntArray], token_cost: float) -> float:
    """Returns what a micro-batch of packed rows costs, padding and all, in pairs of tokens."""
    longest = max((fold_size(rows, row) for row in packed), default=0)
    return len(packed) * longest * (token_cost + longest)


def _bins(pieces: Sequence[IntArray], sizes: Sequence[int], capacity: int) -> list[IntArray]:
    """Joins pieces, given from large to small, each into the first bin that has room."""
    bins: list[list[IntArray]] = []
    room: list[int] = []
    for piece, size in zip(pieces, sizes, strict=True):
        place = next((i for i, left in enumerate(room) if left >= size), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(piece)
        room[place] -= size
    return [np.concatenate(parts) for parts in bins]
