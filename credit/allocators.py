"""Rules for continuations by name: what trainers and commands call to spend a budget on live trees."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from agentenv.arrays import TreeArrays
from agentenv.tree import Anchor, EpisodeTree

from .allocation import Allocation, allocate_uniform
from .predictor import HashedPredictor, Prefix, SuccessPredictor, predictor_targets, prefix_at
from .trace import allocate_prefixes, allocate_roots, prefixes_of

__all__ = [
    "ALLOCATORS",
    "Allocator",
    "TraceAllocator",
    "check_anchors",
    "make_allocator",
    "spread_evenly",
    "spread_randomly",
]

Allocator = Callable[[Sequence[EpisodeTree], int, np.random.Generator], list[Anchor]]
"""Chooses where to spend a budget of continuations: `allocator(trees, budget, rng)`; the counts of the anchors sum to
the budget at most. It may remember what it saw (`TraceAllocator` does): make one per run."""


def spread_evenly(trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
    """Gives every tree the same number of continuations, spread over its open nodes in random order.

    No node gets a second continuation before every open node of its tree has one. What the trees cannot share evenly
    goes to the first; the share of a tree without an open node is not spent.

    Args:
        trees: with snapshots.
        budget: continuations in all.
        rng: draws the order.
    """
    shares = allocate_uniform(len(trees), budget=budget).counts
    return [
        Anchor(i, node, count)
        for i, (tree, share) in enumerate(zip(trees, shares, strict=True))
        for node, count in allocate_uniform(rng.permutation(open_nodes(tree)), budget=int(share)).items()
    ]


def spread_randomly(trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
    """Draws the node of every continuation anew, each open node of all trees alike.

    Args:
        trees: with snapshots.
        budget: continuations in all.
        rng: draws the nodes.
    """
    places = [(i, node) for i, tree in enumerate(trees) for node in open_nodes(tree)]
    if not places:
        return []
    drawn, counts = np.unique(rng.integers(len(places), size=budget), return_counts=True)
    chosen = zip((places[int(place)] for place in drawn), counts, strict=True)
    return [Anchor(tree, node, int(count)) for (tree, node), count in chosen]


class TraceAllocator:
    """TRACE: continues where a success predictor says that outcomes are still undecided, and learns as it goes.

    Every call predicts the success rate of all open prefixes, chooses anchors by `allocate_prefixes`, and only then
    learns the outcomes of the trees that it was given. Equal prospects are taken in random order.

    Args:
        predictor: shared by prompts and prefixes; default: a fresh `HashedPredictor`.
        outcomes: `"seen"` is TRACE's rule, which continues failures at promising prefixes and successes at shaky ones.
            `"unseen"` chooses by the predictions alone, as if the trajectory through a prefix were still to come; then
            (and only then) occupancy weights leave no bias.
        maximum: cap of continuations per prefix.
        group_maximum: cap of continuations per tree.
    """

    def __init__(
        self,
        predictor: SuccessPredictor | None = None,
        *,
        outcomes: Literal["seen", "unseen"] = "seen",
        maximum: int | None = None,
        group_maximum: int | None = None,
    ) -> None:
        if outcomes not in ("seen", "unseen"):
            msg = f"outcomes must be 'seen' or 'unseen', got {outcomes!r}"
            raise ValueError(msg)
        self.predictor: SuccessPredictor = HashedPredictor() if predictor is None else predictor
        self.outcomes = outcomes
        self.maximum = maximum
        self.group_maximum = group_maximum

    def __call__(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
        """Chooses anchors with snapshots; see `Allocator`."""
        arrays = TreeArrays.from_trees(trees)
        found = prefixes_of(arrays, mixed=self.outcomes == "unseen")
        places = [(int(t), int(i)) for t, i in zip(found.trees, found.local, strict=True)]
        usable = [k for k, (t, i) in enumerate(places) if i in trees[t].snapshots]
        if not usable:
            self.predictor.update(*predictor_targets(trees))
            return []
        order = rng.permutation(np.array(usable, dtype=np.int64))
        prefixes = [prefix_at(trees[t], i) for t, i in (places[int(k)] for k in order)]
        plan = allocate_prefixes(
            self.predictor.predict(prefixes),
            found.outcomes[order] if self.outcomes == "seen" else None,
            budget=budget,
            maximum=self.maximum,
            groups=found.trees[order],
            group_maximum=self.group_maximum,
            anchors=order,
        )
        self.predictor.update(*predictor_targets(trees))
        return [Anchor(*places[k], count) for k, count in sorted(plan.items())]

    def roots(
        self, prompts: Sequence[Prefix], budget: int, *, minimum: int = 0, maximum: int | None = None
    ) -> Allocation:
        """Chooses how many rollouts each prompt of a pool gets, by `allocate_roots` on predicted success rates.

        Args:
            prompts: prefixes of depth 0; `prefix_at(tree, 0)` reads one from a tree.
            budget: rollouts in all.
            minimum: rollouts that every prompt gets.
            maximum: cap per prompt.
        """
        return allocate_roots(self.predictor.predict(prompts), budget=budget, minimum=minimum, maximum=maximum)

    def state_dict(self) -> dict[str, Any]:
        """Returns the predictor's state, for a checkpoint; empty where it has none."""
        return {"predictor": self.predictor.state_dict()} if isinstance(self.predictor, _Stateful) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        if isinstance(self.predictor, _Stateful):
            self.predictor.load_state_dict(state["predictor"])


@runtime_checkable
class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any], /) -> object: ...


def _trace_unseen() -> Allocator:
    return TraceAllocator(outcomes="unseen")


ALLOCATORS: Mapping[str, Callable[[], Allocator]] = {
    "even": lambda: spread_evenly,
    "random": lambda: spread_randomly,
    "trace": TraceAllocator,
    "trace_unseen": _trace_unseen,
}
"""What makes an allocator, by its name: `ALLOCATORS["even"]()`; `make_allocator` also says what names there are."""


def make_allocator(rule: str | Allocator) -> Allocator:
    """Returns the allocator of a name, made anew; an allocator itself is returned as it is.

    Raises:
        ValueError: no rule has this name; the message lists the names.
    """
    if not isinstance(rule, str):
        return rule
    if rule not in ALLOCATORS:
        msg = f"allocator must be a function or one of {', '.join(map(repr, ALLOCATORS))}, got {rule!r}"
        raise ValueError(msg)
    return ALLOCATORS[rule]()


def open_nodes(tree: EpisodeTree) -> list[int]:
    """Returns the nodes of a tree that can be continued: with a snapshot, and not ended."""
    return [node for node in sorted(tree.snapshots) if not tree.nodes[node].ended]


def check_anchors(trees: Sequence[EpisodeTree], anchors: object, budget: int, name: str = "allocator") -> list[Anchor]:
    """Refuses what an allocator must not return, and returns the anchors.

    Args:
        trees: that the allocator was given.
        anchors: what it returned.
        budget: continuations that it might spend.
        name: of the allocator, for the message.

    Raises:
        TypeError: it returned something else than a list of anchors.
        ValueError: an anchor that does not exist, cannot be continued or has a negative count, or more continuations
            than the budget.
    """
    if not isinstance(anchors, list | tuple):
        msg = f"{name} must return a list of agentenv.tree.Anchor, got {type(anchors).__name__}"
        raise TypeError(msg)
    found: list[Anchor] = []
    for i, anchor in enumerate(anchors):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if not isinstance(anchor, Anchor):
            kind = type(anchor).__name__  # pyright: ignore[reportUnknownArgumentType]
            msg = f"{name} must return a list of agentenv.tree.Anchor; entry {i} is of type {kind}"
            raise TypeError(msg)
        if rule := _broken_rule(trees, anchor):
            msg = f"{name} returned {anchor}: {rule}"
            raise ValueError(msg)
        found.append(anchor)
    spent = sum(anchor.count for anchor in found)
    if spent > budget:
        msg = f"{name} must spend at most its budget of {budget} continuations; its anchors ask for {spent}"
        raise ValueError(msg)
    return found


def _broken_rule(trees: Sequence[EpisodeTree], anchor: Anchor) -> str:
    """Says what is wrong with an anchor; nothing where nothing is."""
    for field in ("tree", "node", "count"):
        value = getattr(anchor, field)
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            return f"{field} must be an integer"
    if not 0 <= anchor.tree < len(trees):
        return f"tree must be an index in [0, {len(trees)})"
    tree = trees[anchor.tree]
    if not 0 <= anchor.node < len(tree):
        return f"node must be an index in [0, {len(tree)}), the nodes of tree {anchor.tree}"
    if anchor.count < 0:
        return "count must be at least 0"
    if tree.nodes[anchor.node].ended:
        return "the episode ended at this node (terminated, truncated or failed); nothing can follow it"
    if anchor.node not in tree.snapshots:
        return "this node has no snapshot; Rollout(keep_snapshots=True) keeps them, tree.snapshots lists them"
    return ""
