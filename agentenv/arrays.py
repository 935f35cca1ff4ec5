"""Episode trees as frozen numpy arrays: what credit reads.

Letters: `N` nodes. A node is the state after a step. **Entry `i` of an array belongs to the step INTO node `i`; the
entry of a root is 0.**
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral  # numpy's integers are
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.errors import TreeError

__all__ = [
    "NO_PARENT",
    "SUCCESS_THRESHOLD",
    "NodeLike",
    "TreeArrays",
    "TreeLike",
    "as_number",
    "check_count",
    "number_signatures",
    "read_flags",
    "read_integers",
]

NO_PARENT = -1

SUCCESS_THRESHOLD = 0.5
"""An episode succeeds when its return exceeds this, where its environment declares no other threshold."""

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class NodeLike(Protocol):
    """What arrays hold of a node; see `agentenv.tree.Node`."""

    @property
    def parent(self) -> int: ...  # noqa: D102
    @property
    def reward(self) -> float | None: ...  # noqa: D102
    @property
    def terminated(self) -> bool: ...  # noqa: D102
    @property
    def truncated(self) -> bool: ...  # noqa: D102
    @property
    def state_signature(self) -> str: ...  # noqa: D102
    @property
    def action_signature(self) -> str: ...  # noqa: D102


class TreeLike(Protocol):
    """What arrays are made from: an `agentenv.tree.EpisodeTree`."""

    @property
    def nodes(self) -> Sequence[NodeLike]:
        """Parents before children."""
        ...

    @property
    def success_threshold(self) -> float:
        """An episode succeeds when its return exceeds it."""
        ...


def number_signatures(tree_ids: Sequence[int] | IntArray, signatures: Iterable[Hashable]) -> IntArray:
    """Numbers signatures 0, 1, ... by first appearance, separately in each tree.

    Args:
        tree_ids: `[N]` the tree of each entry.
        signatures: `[N]` any hashable abstraction.

    Returns:
        `int64 [N]`, equal within a tree exactly where the signatures are equal.
    """
    numbers: dict[int, dict[Hashable, int]] = {}
    out: list[int] = []
    for tree, signature in zip(tree_ids, signatures, strict=True):
        seen = numbers.setdefault(int(tree), {})
        out.append(seen.setdefault(signature, len(seen)))
    return np.asarray(out, dtype=np.int64)


def as_number(value: Any) -> float:
    """Returns a real number, whoever's it is, as a float; NaN for what is none, as text is, or what no float holds."""
    if isinstance(value, str | bytes | bytearray):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def check_count(name: str, value: object, *, least: int) -> None:
    """Refuses what is no integer of at least `least`; `True` is none.

    Raises:
        ValueError: the message names the argument.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        msg = f"{name} must be an integer, got {value!r:.120}"
        raise ValueError(msg)
    if value < least:
        msg = f"{name} must be at least {least}, got {value}"
        raise ValueError(msg)


def read_integers(name: str, values: ArrayLike) -> IntArray:
    """Reads integers that 64 bits hold.

    Raises:
        TreeError: floats, which would be cut off, flags, or an integer of 2^63 or more.
    """
    given = np.asarray(values)
    if given.size and given.dtype.kind not in "iu":
        remedy = " (number them with agentenv.tree.number_signatures)" if name in {"state_ids", "action_ids"} else ""
        msg = f"{name} must be integers{remedy}, got {given.dtype}"
        raise TreeError(msg)
    if given.size and int(given.max()) >= 2**63:
        msg = f"{name} must be integers in [-2^63, 2^63), got {int(given.max())}"
        raise TreeError(msg)
    return given.astype(np.int64)


def read_flags(name: str, values: ArrayLike) -> BoolArray:
    """Reads what is true or false, as such or as 1 and 0.

    Raises:
        TreeError: another number: a probability, say, is no flag.
    """
    given = np.asarray(values)
    if given.dtype != np.bool_:
        bad = np.ravel((given != 0) & (given != 1))
        if bad.any():
            i = int(np.argmax(bad))
            msg = f"{name} must be True or False (1 or 0); entry {i} is {given.ravel()[i]}"
            raise TreeError(msg)
    return given.astype(np.bool_)


def _read_floats(name: str, values: ArrayLike) -> FloatArray:
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        for i, value in enumerate(np.asarray(values, dtype=object).ravel().tolist()):
            if math.isnan(as_number(value)):
                msg = f"{name} must be numbers; entry {i} is {value!r:.120}"
                raise TreeError(msg)
    return given.astype(np.float64, copy=False)


_DTYPES: dict[str, type[np.generic]] = {
    "parents": np.int64,
    "rewards": np.float64,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "tree_ids": np.int64,
    "state_ids": np.int64,
    "action_ids": np.int64,
    "valid": np.bool_,
    "thresholds": np.float64,
}


@dataclass(frozen=True, eq=False)
class TreeArrays:
    """One or many episode trees as arrays: what every estimator reads.

    Parents come before children, so every backup is one pass over `levels`, deepest first. The arrays are read-only.
    Build them with `TreeArrays.build` (anything array-like) or `TreeArrays.from_trees`.
    """

    parents: IntArray  # [N] parents[i] < i, NO_PARENT for a root
    rewards: FloatArray  # [N] reward of the step into node i, finite; 0 for a root and where infrastructure failed
    terminated: BoolArray  # [N] the task ended the episode at node i
    truncated: BoolArray  # [N] a limit ended the episode at node i
    tree_ids: IntArray  # [N] 0, 1, ... in blocks, a tree is one task's rollouts: the group
    state_ids: IntArray  # [N] signature of the state AT node i, numbered per tree
    action_ids: IntArray  # [N] signature of the action INTO node i, numbered per tree
    valid: BoolArray  # [N] False where infrastructure failed
    thresholds: FloatArray = field(default_factory=lambda: np.empty(0))  # [N] of node i's tree; by default 0.5

    def __post_init__(self) -> None:
        if not len(self.thresholds):
            object.__setattr__(self, "thresholds", np.full(len(self.parents), SUCCESS_THRESHOLD))
        for name, dtype in _DTYPES.items():
            given = getattr(self, name)
            if dtype is not np.float64:
                given = (read_integers if dtype is np.int64 else read_flags)(name, given)
            array = np.array(given, dtype=dtype, order="C")
            if array.ndim != 1 or len(array) != len(self.parents):
                msg = f"{name} must have shape [N] = [{len(self.parents)}], got {list(array.shape)}"
                raise TreeError(msg)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self._check()

    def _check(self) -> None:
        index = np.arange(len(self.parents))
        bad = (self.parents < NO_PARENT) | (self.parents >= index)
        _refuse(bad, "parents", self.parents, "parents[i] must be in [-1, i): parents come before children")
        _refuse(~np.isfinite(self.rewards), "rewards", self.rewards, "rewards must be finite")
        _refuse(~np.isfinite(self.thresholds), "thresholds", self.thresholds, "thresholds must be finite")
        jump = np.diff(self.tree_ids, prepend=-1)
        bad = (jump < (index == 0)) | (jump > 1) | ((jump == 1) & (self.parents != NO_PARENT))
        _refuse(
            bad, "tree_ids", self.tree_ids, "tree_ids must number the trees 0, 1, ... in blocks that start at a root"
        )
        inner = self.parents != NO_PARENT
        above = np.where(inner, self.parents, 0)
        _refuse(
            inner & (self.tree_ids[above] != self.tree_ids) if len(above) else inner,
            "tree_ids",
            self.tree_ids,
            "a node must be in its parent's tree",
        )
        _refuse(~inner & (self.rewards != 0), "rewards", self.rewards, "the entry of a root must be 0")
        ended = (self.terminated | self.truncated | ~self.valid)[above] & inner if len(above) else inner
        _refuse(ended, "parents", self.parents, "nothing comes after an ended or failed node")

    @classmethod
    def build(
        cls,
        parents: ArrayLike,
        rewards: ArrayLike,
        *,
        state_ids: ArrayLike | None = None,
        action_ids: ArrayLike | None = None,
        tree_ids: ArrayLike | None = None,
        terminated: ArrayLike | None = None,
        truncated: ArrayLike | None = None,
        valid: ArrayLike | None = None,
        thresholds: ArrayLike | None = None,
    ) -> "TreeArrays":
        """Builds the arrays from anything array-like, with defaults.

        Args:
            parents: `[N]` the node before each, -1 for a root.
            rewards: `[N]` the reward of the step into each node.
            state_ids: `[N]`; default: every node is a state of its own.
            action_ids: `[N]`; default: every step is an action of its own.
            tree_ids: `[N]`; default: one tree.
            terminated: `[N]`; default: every leaf.
            truncated: `[N]`; default: nowhere.
            valid: `[N]`; default: everywhere.
            thresholds: `[N]`, or one number for all: an episode succeeds when its return exceeds it; default: 0.5.

        Raises:
            TreeError: an array has the wrong length or breaks a rule; the message names array, entry and rule.
        """
        above = read_integers("parents", parents)
        count = len(above)
        own = np.arange(count)
        if terminated is None:
            leaf = np.ones(count, dtype=np.bool_)
            leaf[above[(above >= 0) & (above < count)]] = False
            terminated = leaf & (above != NO_PARENT)
        return cls(
            parents=above,
            rewards=_read_floats("rewards", rewards),
            terminated=np.asarray(terminated),
            truncated=np.asarray(_default(truncated, np.zeros(count))),
            tree_ids=np.asarray(_default(tree_ids, 0 * own)),
            state_ids=np.asarray(_default(state_ids, own)),
            action_ids=np.asarray(_default(action_ids, own)),
            valid=np.asarray(_default(valid, np.ones(count))),
            thresholds=np.broadcast_to(_read_floats("thresholds", _default(thresholds, SUCCESS_THRESHOLD)), (count,)),
        )

    @classmethod
    def from_trees(cls, trees: "Sequence[TreeLike]") -> "TreeArrays":
        """Concatenates episode trees; signatures are numbered per tree.

        Raises:
            TypeError: one tree was given, and no list of them.
        """
        if hasattr(trees, "nodes"):
            msg = f"trees must be a list of episode trees, got one {type(trees).__name__}: from_trees([tree])"
            raise TypeError(msg)
        nodes = [node for tree in trees for node in tree.nodes]
        sizes = np.array([len(tree.nodes) for tree in trees], dtype=np.int64)
        tree_ids = np.repeat(np.arange(len(trees)), sizes)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        parents = np.array([node.parent for node in nodes], dtype=np.int64)
        return cls(
            parents=np.where(parents == NO_PARENT, NO_PARENT, parents + starts),
            rewards=np.array([node.reward or 0.0 for node in nodes], dtype=np.float64),
            terminated=np.array([node.terminated for node in nodes], dtype=np.bool_),
            truncated=np.array([node.truncated for node in nodes], dtype=np.bool_),
            tree_ids=tree_ids,
            state_ids=number_signatures(tree_ids, (node.state_signature for node in nodes)),
            action_ids=number_signatures(tree_ids, (node.action_signature for node in nodes)),
            valid=np.array([node.reward is not None for node in nodes], dtype=np.bool_),
            thresholds=np.repeat(np.array([tree.success_threshold for tree in trees], dtype=np.float64), sizes),
        )

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def num_trees(self) -> int:
        """How many trees are concatenated."""
        return int(self.tree_ids[-1]) + 1 if len(self) else 0

    @cached_property
    def is_root(self) -> BoolArray:
        """`[N]` whether node i is a root."""
        return self.parents == NO_PARENT

    @cached_property
    def is_leaf(self) -> BoolArray:
        """`[N]` whether nothing comes after node i."""
        leaf = np.ones(len(self), dtype=np.bool_)
        leaf[self.parents[~self.is_root]] = False
        return leaf

    @cached_property
    def depths(self) -> IntArray:
        """`[N]` number of steps from the root, 0 at a root."""
        return _depths(self.parents)

    @cached_property
    def levels(self) -> list[IntArray]:
        """Node indices by depth: `levels[d]` are the nodes at depth d, in order."""
        if not len(self):
            return []
        deepest = int(self.depths.max())
        keys = self.depths.astype(np.int16) if deepest < 2**15 else self.depths  # 16 bits: a radix sort, linear
        order = np.argsort(keys, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.depths))[:-1])

    @cached_property
    def is_trajectory(self) -> BoolArray:
        """`[N]` whether a trajectory ends at node i: a leaf after at least one step, not broken by infrastructure."""
        return self.is_leaf & self.valid & ~self.is_root

    @cached_property
    def returns(self) -> FloatArray:
        """`[N]` undiscounted sum of rewards from the root to node i."""
        total = self.rewards.copy()
        for level in self.levels[1:]:
            total[level] += total[self.parents[level]]
        return total

    @cached_property
    def succeeded(self) -> BoolArray:
        """`[N]` whether a trajectory ends at node i with a return above its tree's threshold."""
        return self.is_trajectory & (self.returns > self.thresholds)

    @cached_property
    def leaf_counts(self) -> IntArray:
        """`[N]` number of trajectories through node i: the valid leaves below it."""
        counts = self.is_trajectory.astype(np.int64)
        for level in reversed(self.levels[1:]):
            np.add.at(counts, self.parents[level], counts[level])
        return counts


def _default(value: ArrayLike | None, default: ArrayLike) -> ArrayLike:
    return default if value is None else value


def _refuse(bad: BoolArray, name: str, values: NDArray[Any], rule: str) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        msg = f"{rule}; {name}[{i}] is {values[i]}"
        raise TreeError(msg)


def _depths(parents: IntArray) -> IntArray:
    """Depth of every node by pointer doubling: O(N log depth), no Python loop over nodes."""
    depths = (parents != NO_PARENT).astype(np.int64)
    jump = parents.copy()
    while (live := jump != NO_PARENT).any():
        to = jump[live]
        depths[live] += depths[to]
        jump[live] = jump[to]
    return depths
