"""Episode trees: all rollouts of one task, merged at shared prefixes, and their frozen numpy view for credit.

Letters: `N` nodes, `L` tokens. A node is the state after a step. **Entry `i` of an array belongs to the step INTO
node `i`; the entry of a root is 0.**
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.errors import TreeError
from agentenv.types import Action, Message, Observation

__all__ = ["NO_PARENT", "EpisodeTree", "Node", "Prompt", "TreeArrays", "number_signatures"]

NO_PARENT = -1

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Node:
    """The state after one step, and the step that led there.

    Attributes:
        parent: index of the node before, `NO_PARENT` for a root.
        action: the action INTO this node; `None` for a root.
        observation: the messages that the environment answered with.
        reward: the reward of the step INTO this node; `None` where infrastructure failed.
        terminated: the task ended the episode here.
        truncated: a limit ended the episode here.
        state_signature: abstraction of the state AT this node.
        action_signature: abstraction of the action INTO this node.
        info: what the environment reported with the step, JSON values only.
    """

    parent: int
    action: Action | None
    observation: Observation
    reward: float | None
    terminated: bool = False
    truncated: bool = False
    state_signature: str = ""
    action_signature: str = ""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def ended(self) -> bool:
        """Whether the episode cannot go on from here."""
        return self.terminated or self.truncated or self.reward is None


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens that an agent put between the path so far and its next action.

    Attributes:
        kept: how many tokens of the path (prompts and actions so far) come before; all of them unless the agent's
            chat template rewrote history.
        token_ids: `[L]` the tokens that follow, normally the rendered observation.
    """

    kept: int
    token_ids: tuple[int, ...]


class EpisodeTree:
    """All rollouts of one task, append-only; each message and token is stored once.

    Attributes:
        task_id: names the task within its data set.
        env_id: the environment's id with its version.
        task: the task itself as JSON values, for the record.
        metadata: anything worth keeping (seed, policy version, ...), JSON values only.
        nodes: the nodes, parents before children; node 0 is the root.
        snapshots: environment snapshots of the nodes that have one, by node; not written to files.
    """

    def __init__(
        self,
        observation: Observation,
        *,
        task_id: str = "",
        env_id: str = "",
        task: Any = None,
        state_signature: str = "",
        metadata: Mapping[str, Any] | None = None,
        snapshot: object = None,
    ) -> None:
        self.task_id = task_id
        self.env_id = env_id
        self.task = task
        self.metadata = dict(metadata or {})
        self.snapshots: dict[int, Any] = {} if snapshot is None else {0: snapshot}
        root = Node(NO_PARENT, None, observation, 0.0, state_signature=state_signature)
        self._nodes = [root]
        self._children: list[list[int]] = [[]]
        self._prompts: list[Prompt | None] = [None]

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"EpisodeTree({self.env_id} task {self.task_id!r}: {len(self)} nodes, {len(self.leaves())} leaves)"

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes in the order in which they were added."""
        return self._nodes

    def add(
        self,
        parent: int,
        action: Action,
        observation: Observation = (),
        *,
        reward: float | None,
        terminated: bool = False,
        truncated: bool = False,
        state_signature: str = "",
        action_signature: str = "",
        info: Mapping[str, Any] | None = None,
        snapshot: object = None,
    ) -> int:
        """Adds the outcome of one step and returns the new node's index.

        Args:
            parent: the node from which the action was taken.
            action: the action; its `prompt_token_ids`, if any, are stored once, at the parent.
            observation: the messages that answered it.
            reward: the step's reward, finite; `None` where infrastructure failed.
            terminated: the task ended the episode.
            truncated: a limit ended the episode.
            state_signature: of the state after the step.
            action_signature: of the action.
            info: JSON values to keep with the step.
            snapshot: the environment's snapshot after the step, kept in memory only.

        Raises:
            TreeError: the parent does not exist or has ended, the reward is not finite, or the prompt differs from
                the one that an earlier action from the same parent saw.
        """
        parent = int(parent)  # allocators give numpy integers, which files cannot hold
        self._check_index(parent, "parent")
        if self._nodes[parent].ended:
            msg = f"node {parent} has ended (terminated, truncated or failed): nothing can be added below it"
            raise TreeError(msg)
        if reward is not None and not np.isfinite(reward):
            msg = f"reward must be finite, or None where infrastructure failed; got {reward!r}"
            raise TreeError(msg)
        if action.prompt_token_ids is not None:
            self.set_prompt(parent, action.prompt_token_ids)
        node = Node(
            parent,
            action.without_prompt(),
            observation,
            None if reward is None else float(reward),
            bool(terminated),
            bool(truncated),
            state_signature,
            action_signature,
            dict(info or {}),
        )
        index = len(self._nodes)
        self._nodes.append(node)
        self._children.append([])
        self._prompts.append(None)
        self._children[parent].append(index)
        if snapshot is not None:
            self.snapshots[index] = snapshot
        return index

    def _check_index(self, node: int, name: str = "node") -> None:
        if not 0 <= node < len(self._nodes):
            msg = f"{name} must be a node index in [0, {len(self._nodes)}), got {node}"
            raise TreeError(msg)

    def children(self, node: int) -> Sequence[int]:
        """Returns the nodes added below `node`, in order."""
        self._check_index(node)
        return self._children[node]

    def leaves(self) -> list[int]:
        """Returns the nodes with nothing after them, in order. Each is the end of one trajectory."""
        return [i for i, below in enumerate(self._children) if not below]

    def path(self, node: int) -> list[int]:
        """Returns the indices from the root to `node`, both included."""
        self._check_index(node)
        path = [node]
        while (node := self._nodes[node].parent) != NO_PARENT:
            path.append(node)
        return path[::-1]

    def episode_return(self, leaf: int) -> float | None:
        """Returns the undiscounted sum of rewards from the root to `leaf`; `None` where infrastructure failed."""
        rewards = [self._nodes[i].reward for i in self.path(leaf)]
        if any(reward is None for reward in rewards):
            return None
        return float(sum(reward for reward in rewards if reward is not None))

    def messages(self, node: int) -> list[Message]:
        """Returns the conversation from the root up to the observation at `node`."""
        messages: list[Message] = []
        for i in self.path(node):
            current = self._nodes[i]
            if current.action is not None:
                messages.append(current.action.to_message())
            messages.extend(current.observation)
        return messages

    def prompt(self, node: int) -> Prompt | None:
        """Returns the tokens between the path to `node` and the actions taken from it; `None` when unknown."""
        self._check_index(node)
        return self._prompts[node]

    def set_prompt(self, node: int, prompt_token_ids: Sequence[int]) -> None:
        """Records the full token ids that an agent saw before acting from `node`.

        Raises:
            TreeError: another action from the same node saw other tokens.
        """
        prompt = tuple(prompt_token_ids)
        known = self.prompt_token_ids(node)
        if known is not None:
            if known != prompt:
                msg = f"two actions from node {node} saw different prompts ({len(known)} and {len(prompt)} tokens)"
                raise TreeError(msg)
            return
        before = self.token_ids(node)
        kept = next((i for i, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), None)
        kept = min(len(before), len(prompt)) if kept is None else kept
        self._prompts[node] = Prompt(kept, prompt[kept:])

    def restore_prompt(self, node: int, prompt: Prompt) -> None:
        """Puts back a stored `Prompt`, as a reader of files does."""
        self._check_index(node)
        if not 0 <= prompt.kept <= len(self.token_ids(node)):
            msg = f"prompt.kept must be in [0, {len(self.token_ids(node))}] at node {node}, got {prompt.kept}"
            raise TreeError(msg)
        self._prompts[node] = prompt

    def token_ids(self, node: int) -> tuple[int, ...]:
        """Returns every token from the start to the end of the action INTO `node`.

        `()` at the root, and where the tokens of the action or of its prompt are unknown.
        """
        ids: list[int] = []
        for i in self.path(node):
            action = self._nodes[i].action
            if action is None:
                continue
            prompt = self._prompts[self._nodes[i].parent]
            if prompt is None or action.token_ids is None:
                ids = []
            else:
                ids = [*ids[: prompt.kept], *prompt.token_ids, *action.token_ids]
        return tuple(ids)

    def prompt_token_ids(self, node: int) -> tuple[int, ...] | None:
        """Returns the full token ids that the actions from `node` saw; `None` when unknown."""
        prompt = self.prompt(node)
        return None if prompt is None else (*self.token_ids(node)[: prompt.kept], *prompt.token_ids)

    def arrays(self) -> "TreeArrays":
        """Returns this tree alone as `TreeArrays`."""
        return TreeArrays.from_trees([self])


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


_DTYPES: dict[str, type[np.generic]] = {
    "parents": np.int64,
    "rewards": np.float64,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "tree_ids": np.int64,
    "state_ids": np.int64,
    "action_ids": np.int64,
    "valid": np.bool_,
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

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = np.array(getattr(self, name), dtype=dtype, order="C")
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

        Raises:
            TreeError: an array has the wrong length or breaks a rule; the message names array, entry and rule.
        """
        above = np.asarray(parents, dtype=np.int64)
        count = len(above)
        own = np.arange(count)
        if terminated is None:
            leaf = np.ones(count, dtype=np.bool_)
            leaf[above[(above >= 0) & (above < count)]] = False
            terminated = leaf & (above != NO_PARENT)
        return cls(
            parents=above,
            rewards=np.asarray(rewards, dtype=np.float64),
            terminated=np.asarray(terminated, dtype=np.bool_),
            truncated=np.asarray(_default(truncated, np.zeros(count)), dtype=np.bool_),
            tree_ids=np.asarray(_default(tree_ids, np.zeros(count)), dtype=np.int64),
            state_ids=np.asarray(_default(state_ids, own), dtype=np.int64),
            action_ids=np.asarray(_default(action_ids, own), dtype=np.int64),
            valid=np.asarray(_default(valid, np.ones(count)), dtype=np.bool_),
        )

    @classmethod
    def from_trees(cls, trees: Sequence[EpisodeTree]) -> "TreeArrays":
        """Concatenates episode trees; signatures are numbered per tree."""
        nodes = [node for tree in trees for node in tree.nodes]
        sizes = np.array([len(tree) for tree in trees], dtype=np.int64)
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
