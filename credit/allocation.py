"""What an allocator returns, the uniform rule, and the solver behind the optimal ones.

Letters: `A` anchors. An anchor is a prompt (a root to sample full rollouts from) or a node of a tree (a prefix to
sample continuations from).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays, read_integers

from .checks import check_number, check_whole
from .groups import group_sums

__all__ = [
    "Allocation",
    "allocate_uniform",
    "cap_groups",
    "check_budget",
    "check_shares",
    "fill_greedily",
    "make_allocation",
]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Density = Callable[[IntArray, IntArray], FloatArray]
"""`density(i, u)`: gain per unit of cost of item `i`'s unit number `u` (from 0); never increasing in `u`."""

_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Allocation:
    """How many rollouts or continuations each anchor gets."""

    anchors: IntArray  # [A] index of the prompt, or of the node in the TreeArrays
    counts: IntArray  # [A] at least 0
    value: float  # what the allocator expects of it, in the units of its objective

    def __len__(self) -> int:
        return len(self.anchors)

    @property
    def total(self) -> int:
        """Rollouts or continuations in all."""
        return int(self.counts.sum())

    def items(self) -> list[tuple[int, int]]:
        """Returns the anchors that get something, as (anchor, count)."""
        return [(int(a), int(c)) for a, c in zip(self.anchors, self.counts, strict=True) if c > 0]

    def in_trees(self, tree: TreeArrays) -> list[tuple[int, int, int]]:
        """Returns the anchors that get something, as (tree, node within that tree, count), in order.

        `[Anchor(*entry) for entry in allocation.in_trees(tree)]` is what `agentenv.rollout` continues from.
        """
        starts = np.searchsorted(tree.tree_ids, np.arange(tree.num_trees))
        which = tree.tree_ids[self.anchors] if len(self.anchors) else self.anchors
        rows = zip(which, self.anchors - starts[which], self.counts, strict=True)
        return [(int(t), int(node), int(count)) for t, node, count in rows if count > 0]


def allocate_uniform(anchors: int | ArrayLike, *, budget: int, maximum: int | None = None) -> Allocation:
    """Spreads a budget evenly: counts differ by at most one, earlier anchors get the remainder.

    Args:
        anchors: how many prompts, or `[A]` node indices.
        budget: rollouts to spend, at least 0.
        maximum: cap per anchor; what it leaves over is not spent.
    """
    if np.ndim(anchors) == 0:
        anchors = np.arange(check_whole("anchors", cast("int", anchors), 0))
    which = read_integers("anchors", anchors)
    check_budget(budget)
    budget = check_whole("budget", budget, 0)
    most = budget if maximum is None else check_whole("maximum", maximum, 0)
    if len(which) == 0:
        return Allocation(which, which.copy(), 0.0)
    share, extra = divmod(budget, len(which))
    counts = np.full(len(which), share, dtype=np.int64)
    counts[:extra] += 1
    return make_allocation(which, np.minimum(counts, most), 0.0)


def make_allocation(anchors: ArrayLike | None, counts: IntArray, value: float) -> Allocation:
    """Builds an `Allocation`; without anchors they are numbered.

    Raises:
        ValueError: anchors of the wrong length.
    """
    which = np.arange(len(counts)) if anchors is None else read_integers("anchors", anchors)
    if which.shape != counts.shape:
        msg = f"anchors must have shape [A] = [{len(counts)}], got {list(which.shape)}"
        raise ValueError(msg)
    return Allocation(which, counts, float(value))


def check_budget(budget: float, *, minimum: float = 0) -> None:
    """Refuses a budget that is negative, not finite or below what every anchor must get."""
    check_number("budget", budget)
    if not np.isfinite(budget) or budget < minimum:
        msg = f"budget must be finite and at least the minimum of {minimum:g}, got {budget!r}"
        raise ValueError(msg)


def check_shares(name: str, values: ArrayLike) -> FloatArray:
    """Reads probabilities `[A]`.

    Raises:
        ValueError: not one dimension, or an entry outside [0, 1].
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        msg = f"{name} must have shape [A], got {list(array.shape)}"
        raise ValueError(msg)
    bad = ~((array >= 0) & (array <= 1))
    if bad.any():
        i = int(np.argmax(bad))
        msg = f"{name} must be probabilities in [0, 1]; {name}[{i}] is {array[i]}"
        raise ValueError(msg)
    return array


def fill_greedily(
    density: Density, room: IntArray, budget: float, *, first: FloatArray, following: FloatArray
) -> IntArray:
    """Takes units of decreasing density until the budget is spent: the greedy solution, without a loop over units.

    Finds by bisection the density below which nothing is bought, for all items at once; the few units around it are
    sorted. Equals popping a heap `budget` times; ties go to lower unit numbers, then to earlier items. Optimal where
    every unit costs 1 (the objective is separable and concave); otherwise within one unit's gain of the optimum.

    Args:
        density: gain per cost of a unit, never increasing along an item. Units with no gain are not bought.
        room: `[A]` most units per item.
        budget: cost to spend.
        first: `[A]` cost of an item's unit 0.
        following: `[A]` cost of each later one.

    Returns:
        `int64 [A]` units bought.
    """
    low, high = np.zeros(len(room), dtype=np.int64), room.copy()

    def cost(units: IntArray) -> float:
        return float(np.where(units > 0, first + (units - 1) * following, 0.0).sum())

    top, bottom = np.inf, _TINY
    high = _units_above(density, bottom, low, high)
    if cost(high) <= budget:
        return high
    some = np.flatnonzero(room > 0)
    top = float(density(some, np.zeros(len(some), dtype=np.int64)).max()) * 2
    while int((high - low).sum()) > len(room) + 1024:
        middle = float(np.sqrt(bottom) * np.sqrt(top))
        if not bottom < middle < top:
            break
        units = _units_above(density, middle, low, high)
        if cost(units) <= budget:
            low, top = units, middle
        else:
            high, bottom = units, middle
    low, left = _buy_sorted(density, low, high, budget - cost(low), first, following)
    return _buy_leftovers(density, low, room, left, first, following)


def cap_groups(density: Density, room: IntArray, groups: IntArray, maximum: int) -> IntArray:
    """Lowers the room of items so that each group holds its `maximum` densest units and no more.

    Filling greedily within the result is greedy, and optimal, under caps per item, per group and in all.

    Args:
        density: never increasing along an item.
        room: `[A]` most units per item.
        groups: `[A]` numbers 0, 1, ...
        maximum: most units per group, at least 0.

    Returns:
        `int64 [A]`
    """
    maximum = check_whole("group_maximum", maximum, 0)
    low, high = np.zeros(len(room), dtype=np.int64), np.minimum(room, maximum)
    size = int(groups.max(initial=-1)) + 1
    some = np.flatnonzero(high > 0)
    most = float(density(some, np.zeros(len(some), dtype=np.int64)).max(initial=0.0))
    top, bottom = np.full(size, max(2.0 * most, 1.0)), np.full(size, _TINY)
    high = _units_above(density, bottom[groups], low, high)
    for _ in range(100):
        if int((high - low).sum()) <= 4 * len(room):
            break
        middle = np.sqrt(bottom) * np.sqrt(top)
        units = _units_above(density, middle[groups], low, high)
        fits = group_sums(groups, units, size) <= maximum
        low, high = np.where(fits[groups], units, low), np.where(fits[groups], high, units)
        top, bottom = np.where(fits, middle, top), np.where(fits, bottom, middle)
    items, units = _expand(low, high)
    order = np.lexsort((items, units, -density(items, units), groups[items]))
    owner = groups[items[order]]
    begins = np.searchsorted(owner, np.arange(size))
    rank = np.arange(len(order)) - begins[owner]
    kept = rank < (maximum - group_sums(groups, low, size))[owner]
    return low + np.bincount(items[order[kept]], minlength=len(low))


def _expand(low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
    """Lists the units low..high-1 of every item, as (item, unit)."""
    spread = high - low
    items = np.repeat(np.arange(len(low)), spread)
    return items, np.arange(len(items)) - np.repeat(np.cumsum(spread) - spread, spread) + low[items]


def _units_above(density: Density, threshold: float | FloatArray, low: IntArray, high: IntArray) -> IntArray:
    """Counts each item's units denser than `threshold` (or `[A]`), known to lie in [low, high], by bisection."""
    least = np.broadcast_to(threshold, low.shape)
    low, high = low.copy(), high.copy()
    active = np.flatnonzero(low < high)
    while len(active):
        middle = (low[active] + high[active] + 1) // 2
        above = density(active, middle - 1) > least[active]
        low[active[above]] = middle[above]
        high[active[~above]] = middle[~above] - 1
        active = active[low[active] < high[active]]
    return low


def _buy_sorted(
    density: Density, low: IntArray, high: IntArray, left: float, first: FloatArray, following: FloatArray
) -> tuple[IntArray, float]:
    """Buys units low..high-1 of each item by density while they fit; returns the units and the budget left."""
    spread = high - low
    over = int(spread.sum()) > 4 * (len(low) + 1024)
    if over:  # a plateau: all these units are equally dense to the last bit
        share = np.ceil(left / np.maximum(first, following).min() / max(1, np.count_nonzero(spread)))
        spread = np.minimum(spread, int(share) + 1)
    items, units = _expand(low, low + spread)
    order = np.lexsort((items, units, -density(items, units)))
    items, units = items[order], units[order]
    price = np.where(units == 0, first[items], following[items])
    fits = int(np.searchsorted(np.cumsum(price), left * (1 + 1e-12), side="right"))
    bought = low + np.bincount(items[:fits], minlength=len(low))
    return bought, left - float(price[:fits].sum())


def _buy_leftovers(
    density: Density, units: IntArray, room: IntArray, left: float, first: FloatArray, following: FloatArray
) -> IntArray:
    """Spends what is left on the densest units that still fit."""
    units = units.copy()
    while True:
        price = np.where(units == 0, first, following)
        fitting = np.flatnonzero((units < room) & (price <= left * (1 + 1e-12)))
        if len(fitting) == 0:
            return units
        gains = density(fitting, units[fitting])
        best = int(np.argmax(gains))
        if gains[best] <= _TINY:
            return units
        units[fitting[best]] += 1
        left -= float(price[fitting[best]])
