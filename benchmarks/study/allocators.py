"""Rules that only the study compares: TRACE's stages one by one, other rules at the root, shallow and deep forks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agentenv.credit import TraceAllocator, allocate_dynamic, allocate_pcl, allocate_vip, make_allocator
from agentenv.credit.allocators import spread_randomly
from agentenv.stats import episode_stats
from agentenv.tree import Anchor, EpisodeTree

__all__ = ["CANDIDATES", "allocator_named"]

CANDIDATES = 4
"""Tasks to choose among, for each task of a generation, where tasks are chosen."""


class ByDepth:
    """Draws the node of every continuation from the shallow or the deep half of the open nodes of all trees.

    Args:
        deep: whether those at least as deep as the median, or those at most as deep.
    """

    def __init__(self, *, deep: bool) -> None:
        self.deep = deep

    def __call__(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
        """Chooses anchors; a full episode's beginning is none."""
        places = [
            (i, node, len(tree.path(node)) - 1)
            for i, tree in enumerate(trees)
            for node in sorted(tree.snapshots)
            if node and not tree.nodes[node].ended
        ]
        if not places:
            return []
        depths = np.array([depth for _, _, depth in places])
        middle = np.median(depths)
        half = np.flatnonzero(depths >= middle if self.deep else depths <= middle)
        drawn, counts = np.unique(rng.choice(half, size=budget), return_counts=True)
        chosen = zip((places[int(i)] for i in drawn), counts, strict=True)
        return [Anchor(tree, node, int(count)) for (tree, node, _), count in chosen]


class RootsOnly:
    """Chooses tasks by predicted success, as `allocate` does; continuations start anywhere at random.

    Args:
        allocate: says how many episodes each task gets, of the predicted successes and the budget; TRACE's by default.
    """

    def __init__(self, allocate: Callable[[Any, int], Sequence[int]] | None = None) -> None:
        self._trace = TraceAllocator(outcomes="unseen")
        self._allocate = allocate
        self.weights = "occupancy"

    def roots(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[int]:
        """Says how many full episodes each task gets."""
        if self._allocate is None:
            return self._trace.roots(trees, budget, rng)
        success = self._trace.predictor.predict([self._trace.read(tree, 0) for tree in trees])
        return [int(count) for count in self._allocate(success, budget)]

    def __call__(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
        """Chooses anchors."""
        return spread_randomly(trees, budget, rng)

    def learn(self, trees: Sequence[EpisodeTree], **options: Any) -> dict[str, float]:
        """Lets the predictor learn."""
        return self._trace.learn(trees, **options)


class PrefixesOnly:
    """Continues where TRACE would; every task gets as many full episodes."""

    def __init__(self) -> None:
        self._trace = TraceAllocator()
        self.weights = self._trace.weights

    def __call__(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
        """Chooses anchors."""
        return self._trace(trees, budget, rng)

    def learn(self, trees: Sequence[EpisodeTree], **options: Any) -> dict[str, float]:
        """Lets the predictor learn."""
        return self._trace.learn(trees, **options)


def _vip(success: Any, budget: int) -> list[int]:
    """VIP gives every task an episode at least; tasks that it would give one get none, as one is never mixed."""
    success = np.asarray(success, dtype=np.float64)
    kept = np.argsort(np.abs(success - 0.5), kind="stable")[: max(1, budget // 2)]
    counts = np.zeros(len(success), dtype=np.int64)
    counts[kept] = allocate_vip(success[kept], budget=budget, minimum=min(2, budget // len(kept))).counts
    return counts.tolist()


def _pcl(success: Any, budget: int) -> list[int]:
    """PCL keeps the tasks nearest to one half, which get groups of 4 here, as full episodes get half of the budget."""
    return allocate_pcl(success, prompts=min(len(success), budget // 4), group_size=4).counts.tolist()


class Dynamic:
    """Samples groups until as many are mixed as there are tasks in a generation, or no candidate is left (DAPO)."""

    def __init__(self) -> None:
        self._wanted = self._size = 0

    def roots(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[int]:
        """Gives the first tasks a whole group each."""
        del rng
        self._wanted = -(-len(trees) // CANDIDATES)
        self._size = budget // self._wanted
        return [self._size if i < self._wanted else 0 for i in range(len(trees))]

    def refill(self, trees: Sequence[EpisodeTree], rng: np.random.Generator) -> list[int]:
        """Gives groups to further candidates, as many as are likely to bring the mixed groups that are missing."""
        del rng
        tallies = [episode_stats([tree]).roots for tree in trees]
        plan = allocate_dynamic(
            [tally.successes for tally in tallies],
            [tally.episodes for tally in tallies],
            wanted=self._wanted,
            group_size=self._size,
            budget=self._size * len(trees),
        )
        return plan.counts.tolist()

    def __call__(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
        """Forks nothing."""
        del trees, budget, rng
        return []


_OWN: dict[str, Callable[[], Any]] = {
    "shallow": lambda: ByDepth(deep=False),
    "deep": lambda: ByDepth(deep=True),
    "trace_roots": RootsOnly,
    "trace_prefixes": PrefixesOnly,
    "vip_roots": lambda: RootsOnly(_vip),
    "pcl_roots": lambda: RootsOnly(_pcl),
    "dynamic": Dynamic,
}


def allocator_named(name: str) -> Any:
    """Returns an allocator of the study's or of `agentenv.credit.ALLOCATORS`, made anew."""
    return _OWN[name]() if name in _OWN else make_allocator(name)
