"""Rules for continuations by name: what trainers and commands call to spend a budget on live trees."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np

from agentenv.arrays import TreeArrays
from agentenv.tree import Anchor, EpisodeTree, Fork

from .allocation import allocate_uniform
from .calibration import calibration_by_depth, calibration_of
from .checks import check_number
from .predictor import HashedPredictor, Prefix, PrefixReader, SuccessPredictor, predictor_targets, prefix_at
from .trace import allocate_prefixes, allocate_roots, prefixes_of

__all__ = [
    "ALLOCATORS",
    "Allocator",
    "TraceAllocator",
    "check_anchors",
    "check_counts",
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
        Anchor(i, node, count, Fork("even", "every open step of the tree gets its turn"))
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
    why = Fork("random", "drawn by chance from all open steps")
    return [Anchor(tree, node, int(count), why) for (tree, node), count in chosen]


Gather = Callable[[list[tuple[Prefix, float, float]]], list[tuple[Prefix, float, float]]]
"""Joins examples of all processes."""


class TraceAllocator:
    """TRACE: spends where a success predictor says that outcomes are still undecided, on prompts and then on prefixes.

    A generation has three parts: `roots` says how many full episodes each prompt gets, a call says where those are
    continued, and `learn` lets the predictor learn what came of all. Equal prospects are taken in random order.

    Args:
        predictor: shared by prompts and prefixes; default: a fresh `HashedPredictor`.
        outcomes: `"seen"` is TRACE's rule, which continues failures at promising prefixes and successes at shaky ones.
            `"unseen"` chooses by the predictions alone, as if the trajectory through a prefix were still to come; then
            (and only then) occupancy weights leave no bias.
        maximum: cap of continuations per prefix.
        group_maximum: cap of continuations per tree.
        root_maximum: cap of full episodes per prompt.

    Attributes:
        read: makes the prefix of a node; whoever has more to show (hidden states) replaces it.
    """

    def __init__(
        self,
        predictor: SuccessPredictor | None = None,
        *,
        outcomes: Literal["seen", "unseen"] = "seen",
        maximum: int | None = None,
        group_maximum: int | None = None,
        root_maximum: int | None = None,
    ) -> None:
        if outcomes not in ("seen", "unseen"):
            msg = f"outcomes must be 'seen' or 'unseen', got {outcomes!r}"
            raise ValueError(msg)
        for name, most in (("root_maximum", root_maximum), ("maximum", maximum), ("group_maximum", group_maximum)):
            if most is not None:
                check_number(name, most)
        if root_maximum is not None and root_maximum < 2:
            msg = f"root_maximum must be at least 2 or None, got {root_maximum}: one episode is never mixed"
            raise ValueError(msg)
        for name, most in (("maximum", maximum), ("group_maximum", group_maximum)):
            if most is not None and most < 1:
                msg = f"{name} must be at least 1 or None, got {most}"
                raise ValueError(msg)
        if isinstance(predictor, type) or not (predictor is None or hasattr(predictor, "predict")):
            msg = f"predictor must predict(prefixes) and update(prefixes, targets), or be None, got {predictor!r}"
            raise TypeError(msg)
        self.predictor: SuccessPredictor = HashedPredictor() if predictor is None else predictor
        self.outcomes = outcomes
        self.maximum = maximum
        self.group_maximum = group_maximum
        self.root_maximum = root_maximum
        self.read: PrefixReader = prefix_at

    def __repr__(self) -> str:
        caps = f"{self.maximum}, group_maximum={self.group_maximum}, root_maximum={self.root_maximum}"
        predictor = type(self.predictor).__name__
        return f"TraceAllocator({predictor}(), outcomes={self.outcomes!r}, maximum={caps})"

    @property
    def weights(self) -> str:
        """The step weights that fit: graph weights where outcomes were looked at, else occupancy, which are exact."""
        return "graph" if self.outcomes == "seen" else "occupancy"

    def roots(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[int]:
        """Chooses how many full episodes each prompt gets, at least two or none; see `allocate_roots`.

        Where every prompt is predicted to be certain, so that none is worth an episode, the budget is spread evenly:
        a predictor that is sure of everything must go on being tested.

        Args:
            trees: that have nothing but a root.
            budget: episodes in all.
            rng: draws the order of equal prospects.

        Returns:
            A count per tree; their sum is at most the budget.
        """
        if not trees:
            return []
        order = [int(i) for i in rng.permutation(len(trees))]
        success = self.predictor.predict([self.read(trees[i], 0) for i in order])
        counts = allocate_roots(success, budget=budget, maximum=self.root_maximum).counts
        if not counts.any():
            size = max(2, min(budget // len(trees), self.root_maximum or budget))
            counts = np.where(np.arange(len(trees)) < budget // size, size, 0)
        return [int(count) for count in counts[np.argsort(order)]]

    def __call__(self, trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
        """Chooses anchors with snapshots; see `Allocator`."""
        arrays = TreeArrays.from_trees(trees)
        found = prefixes_of(arrays, mixed=self.outcomes == "unseen")
        places = [(int(t), int(i)) for t, i in zip(found.trees, found.local, strict=True)]
        usable = [k for k, (t, i) in enumerate(places) if i in trees[t].snapshots]
        if not usable:
            return []
        order = rng.permutation(np.array(usable, dtype=np.int64))
        prefixes = [self.read(trees[t], i) for t, i in (places[int(k)] for k in order)]
        success = self.predictor.predict(prefixes)
        plan = allocate_prefixes(
            success,
            found.outcomes[order] if self.outcomes == "seen" else None,
            budget=budget,
            maximum=self.maximum,
            groups=found.trees[order],
            group_maximum=self.group_maximum,
            anchors=order,
        )
        said = dict(zip(order.tolist(), success.tolist(), strict=True))
        seen = found.outcomes if self.outcomes == "seen" else None
        return [
            Anchor(*places[k], count, _told(said[k], None if seen is None else float(seen[k])))
            for k, count in sorted(plan.items())
        ]

    def learn(self, trees: Sequence[EpisodeTree], *, gather: Gather = list) -> dict[str, float]:
        """Lets the predictor learn the outcomes of realized trees, and returns how good its predictions were before.

        Args:
            trees: with their continuations.
            gather: joins lists over all processes, so that every process's predictor learns the same.

        Returns:
            `brier`, `calibration_error` (see `calibration_of`), and the latter by depth: `calibration_error/depth_0` is
            that of prompts, `depth_2-3` that of prefixes of two or three steps, and so on in powers of two. Empty where
            nothing has ended.
        """
        prefixes, targets, weights = predictor_targets(trees, read=self.read)
        examples = gather(list(zip(prefixes, targets.tolist(), weights.tolist(), strict=True)))
        if not examples:
            return {}
        everything = [prefix for prefix, _, _ in examples]
        targets, weights = (np.array([entry[k] for entry in examples]) for k in (1, 2))
        said = self.predictor.predict(everything)
        self.predictor.update(everything, targets, weights)
        depths = np.array([prefix.depth.bit_length() for prefix in everything])
        whole = calibration_of(said, targets, weights)
        report = {"brier": whole.brier, "calibration_error": whole.error}
        for depth, score in calibration_by_depth(said, targets, depths, weights).items():
            report[f"calibration_error/depth_{_octave(depth)}"] = score.error
        return report

    def state_dict(self) -> dict[str, Any]:
        """Returns the predictor's state, for a checkpoint; empty where it has none."""
        return {"predictor": self.predictor.state_dict()} if isinstance(self.predictor, _Stateful) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        if isinstance(self.predictor, _Stateful):
            self.predictor.load_state_dict(state["predictor"])


def _told(predicted: float, outcome: float | None) -> Fork:
    """Who chose a prefix, and why, for people."""
    if outcome is None:
        return Fork("trace_unseen", f"success predicted in {predicted:.0%}: undecided", predicted)
    so_far = "succeeded" if outcome == 1 else "failed" if outcome == 0 else f"succeeded in {outcome:.0%}"
    return Fork("trace", f"success predicted in {predicted:.0%}, while what went through it {so_far}", predicted)


def _octave(length: int) -> str:
    """Names the numbers with so many binary digits: 0, 1, 2-3, 4-7, ..."""
    first, last = (1 << length) >> 1, (1 << length) - 1
    return str(last) if first >= last else f"{first}-{last}"


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
        TypeError: it is a class of allocators, or cannot be called.
    """
    if not isinstance(rule, str):
        if isinstance(rule, type) or not callable(rule):
            msg = f"allocator must be a name, a function or an allocator that was made, got {rule!r}"
            raise TypeError(msg)
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


def check_counts(counts: object, trees: int, budget: int, name: str = "allocator") -> list[int]:
    """Refuses what `roots` of an allocator must not return, and returns the counts.

    Args:
        counts: what it returned.
        trees: how many it was given.
        budget: full episodes that it might spend.
        name: of the allocator, for the message.

    Raises:
        TypeError: it returned something else than integers.
        ValueError: not one per tree, a negative one, or more episodes than the budget.
    """
    array = np.asarray(cast("Any", counts))
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        msg = f"roots of {name} must return a list of integers, got {counts!r:.80}"
        raise TypeError(msg)
    if len(array) != trees:
        msg = f"roots of {name} must return one count for each of {trees} trees, got {len(array)}"
        raise ValueError(msg)
    if (array < 0).any() or array.sum() > budget:
        worst = f"{array.min()} for one" if (array < 0).any() else f"{array.sum()} in all"
        msg = f"roots of {name} must return counts of at least 0 and at most {budget} in all (its budget), got {worst}"
        raise ValueError(msg)
    return [int(count) for count in array]


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
