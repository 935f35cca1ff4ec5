"""Episode trees: all rollouts of one task, merged at shared prefixes.

Letters: `L` tokens. A node is the state after a step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentenv.arrays import NO_PARENT, SUCCESS_THRESHOLD, TreeArrays, as_number
from agentenv.errors import TreeError
from agentenv.tokens import TokenIds as GrowingIds
from agentenv.types import Action, Message, Observation

__all__ = ["Anchor", "Cost", "EpisodeTree", "Fork", "Node", "Prompt", "relative_prompt"]

TokenIds = tuple[int, ...]
AnyTokenIds = TokenIds | GrowingIds


@dataclass(frozen=True, slots=True)
class Fork:
    """Who chose that a rollout goes on from the middle of others, and why; for people who read the tree.

    Attributes:
        by: an allocator's name, or `"hand"`.
        why: in words.
        predicted: the success that was predicted for a rollout from there, where anything was.
    """

    by: str
    why: str = ""
    predicted: float | None = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """A node chosen to receive continuations.

    Attributes:
        tree: index into the list of trees.
        node: the node within it; it must have a snapshot and not have ended.
        count: how many continuations to sample.
        fork: who chose it, and why; kept with the first step of each continuation.
    """

    tree: int
    node: int
    count: int = 1
    fork: Fork | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something cost; costs add up, from a step to a run.

    Attributes:
        tokens_sampled: tokens that a model sampled.
        tokens_read: prompt tokens that a model was given.
        tokens_cached: those of them that came from a cache.
        agent_seconds: spent waiting for the agent; an agent that acts for several at once splits its time evenly.
        env_seconds: spent in the environment.
        snapshot_seconds: of them, spent taking snapshots where that is known.
        snapshot_bytes: size of the snapshots kept.
    """

    tokens_sampled: int = 0
    tokens_read: int = 0
    tokens_cached: int = 0
    agent_seconds: float = 0.0
    env_seconds: float = 0.0
    snapshot_seconds: float = 0.0
    snapshot_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, name) + getattr(other, name) for name in Cost.__slots__))


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
        rollout: number of the rollout that came here first, counted per tree; 0 for a root.
        attempt: how often infrastructure had broken that rollout before.
        cost: what the step cost.
        fork: who chose that a rollout goes on from the parent, on its first step there; `None` where nobody said so.
            Two nodes that differ in cost and fork alone are equal.
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
    rollout: int = 0
    attempt: int = 0
    cost: Cost = field(default=Cost(), compare=False)
    fork: Fork | None = field(default=None, compare=False)

    @property
    def ended(self) -> bool:
        """Whether the episode cannot go on from here."""
        return self.terminated or self.truncated or self.reward is None

    @property
    def kept_messages(self) -> int | None:
        """Where another conversation of the episode begins here (a sub-agent's, or one with history rewritten): how
        many messages of the one before it keeps. Its action is nobody's, and has no tokens; `None` for other nodes.
        """
        return self.info.get("kept_messages")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens that an agent put between the path so far and its next action.

    Attributes:
        kept: how many tokens of the path (prompts and actions so far) come before; all of them unless the agent's
            chat template rewrote history.
        token_ids: `[L]` the tokens that follow, normally the rendered observation.
    """

    kept: int
    token_ids: TokenIds

    def __len__(self) -> int:
        """Number of tokens that the agent saw."""
        return self.kept + len(self.token_ids)


def relative_prompt(before: AnyTokenIds, prompt: AnyTokenIds) -> Prompt:
    """Returns `prompt` as the longest beginning that it shares with `before`, and what follows that."""
    kept = min(len(before), len(prompt))
    known = isinstance(prompt, GrowingIds) and prompt.extends(before)
    if not known and before[:kept] != prompt[:kept]:  # one comparison in C; only a rewritten history is searched
        kept = next(i for i, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b)
    return Prompt(kept, prompt[kept:])


class EpisodeTree:
    """All rollouts of one task, append-only; each message and token is stored once.

    Attributes:
        task_id: names the task within its data set.
        env_id: the environment's id with its version.
        task: the task itself as JSON values, for the record.
        metadata: anything worth keeping (seed, policy version, ...), JSON values only.
        success_threshold: an episode succeeds when its return exceeds it.
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
        success_threshold: float = SUCCESS_THRESHOLD,
        snapshot: object = None,
    ) -> None:
        self.task_id = task_id
        self.env_id = env_id
        self.task = task
        self.metadata = dict(metadata or {})
        self.success_threshold = float(success_threshold)
        self.snapshots: dict[int, Any] = {} if snapshot is None else {0: snapshot}
        root = Node(NO_PARENT, None, observation, 0.0, state_signature=state_signature)
        self._nodes = [root]
        self._children: list[list[int]] = [[]]
        self._prompts: list[Prompt | None] = [None]
        self._lengths: list[int] = [0]
        self._num_rollouts = 0

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

        A step from the node that was added last goes on with its rollout; a step from any other begins a new one.

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
        last = len(self) - 1
        goes_on = 0 < parent == last
        node = Node(
            parent,
            action,
            observation,
            reward if math.isnan(number := as_number(reward)) else number,  # None, and what `append` refuses
            bool(terminated),
            bool(truncated),
            state_signature,
            action_signature,
            dict(info or {}),
            self._nodes[parent].rollout if goes_on else self.num_rollouts,
            self._nodes[parent].attempt if goes_on else 0,
        )
        return self.append(node, snapshot=snapshot)

    def append(self, node: Node, *, prompt: Prompt | None = None, snapshot: object = None) -> int:
        """Adds a complete node, as a rollout and a reader of files do, and returns its index.

        Args:
            node: the node; its action may still have `prompt_token_ids`.
            prompt: what the action saw, where its `prompt_token_ids` are not given in full.
            snapshot: as for `add`.

        Raises:
            TreeError: as for `add`.
        """
        self._check_index(node.parent, "parent")
        if self._nodes[node.parent].ended:
            msg = f"node {node.parent} has ended (terminated, truncated or failed): nothing can be added below it"
            raise TreeError(msg)
        if node.reward is not None and not math.isfinite(as_number(node.reward)):
            msg = f"reward must be a finite number, or None where infrastructure failed; got {node.reward!r}"
            raise TreeError(msg)
        action = node.action
        if action is None:
            msg = "action must be an Action, got None: only a root has none"
            raise TreeError(msg)
        if prompt is not None:
            self.restore_prompt(node.parent, prompt)
        elif action.prompt_token_ids is not None:
            self.set_prompt(node.parent, action.prompt_token_ids)
        index = len(self._nodes)
        self._nodes.append(replace(node, action=action.without_prompt()))
        self._children.append([])
        self._prompts.append(None)
        self._lengths.append(_length(self._prompts[node.parent], action))
        self._children[node.parent].append(index)
        self._num_rollouts = max(self._num_rollouts, node.rollout + 1)
        if snapshot is not None:
            self.snapshots[index] = snapshot
        return index

    def set_opening(self, observation: Observation) -> None:
        """Replaces the root's observation, as long as nothing follows it: a program may say more than its environment.

        Raises:
            TreeError: something follows.
        """
        if len(self) > 1:
            msg = f"the root's observation is settled: {len(self) - 1} nodes follow it"
            raise TreeError(msg)
        self._nodes[0] = replace(self._nodes[0], observation=observation)

    def _check_index(self, node: int, name: str = "node") -> None:
        if not 0 <= node < len(self._nodes):
            msg = f"{name} must be a node index in [0, {len(self._nodes)}), got {node}"
            raise TreeError(msg)

    @property
    def num_rollouts(self) -> int:
        """One more than the highest number of a rollout; 0 for a root alone."""
        return self._num_rollouts

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

    def succeeded(self, leaf: int) -> bool | None:
        """Returns whether the return at `leaf` exceeds the threshold; `None` where infrastructure failed."""
        value = self.episode_return(leaf)
        return None if value is None else value > self.success_threshold

    def messages(self, node: int) -> list[Message]:
        """Returns the conversation from the root up to the observation at `node`."""
        messages: list[Message] = []
        for i in self.path(node):
            current = self._nodes[i]
            if (kept := current.kept_messages) is not None:
                del messages[kept:]
            elif current.action is not None:
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
        self._check_index(node)
        self.restore_prompt(node, relative_prompt(self.token_ids(node), tuple(prompt_token_ids)))

    def restore_prompt(self, node: int, *prompts: Prompt) -> None:
        """Records what actions from `node` saw, as `relative_prompt` gives it; nothing where this raises.

        Raises:
            TreeError: it keeps more tokens than there are, or another action from the same node saw other tokens.
        """
        self._check_index(node)
        known = self._prompts[node]
        for prompt in prompts:
            if not 0 <= prompt.kept <= self._lengths[node]:
                msg = f"prompt.kept must be in [0, {self._lengths[node]}] at node {node}, got {prompt.kept}"
                raise TreeError(msg)
            known = prompt if known is None else known
            if not self._same_prompt(node, known, prompt):
                where = f"node {node} of the tree of task {self.task_id!r}"
                raise different_prompts(where, len(known), len(prompt))
        if known is None or self._prompts[node] is not None:
            return
        self._prompts[node] = known
        for child in self._children[node]:
            self._lengths[child] = _length(known, self._nodes[child].action)

    def _same_prompt(self, node: int, one: Prompt, other: Prompt) -> bool:
        """Whether two prompts have the same tokens; they may keep differently much of the path before them."""
        if one == other or len(one) != len(other):
            return one == other
        before = self.token_ids(node)
        return before[: one.kept] + one.token_ids == before[: other.kept] + other.token_ids

    def length(self, node: int) -> int:
        """Returns the number of tokens from the start to the end of the action INTO `node`; 0 where unknown."""
        self._check_index(node)
        return self._lengths[node]

    def token_ids(self, node: int) -> TokenIds:
        """Returns every token from the start to the end of the action INTO `node`.

        `()` at the root, and where the tokens of the action or of its prompt are unknown.
        """
        wanted = self.length(node)
        parts: list[TokenIds] = []
        while wanted:
            parent, action = self._nodes[node].parent, self._nodes[node].action
            prompt = self._prompts[parent]
            if prompt is None or action is None or action.token_ids is None:
                msg = f"node {node} has no tokens, but a later prompt keeps {wanted} of them"
                raise TreeError(msg)
            if wanted > prompt.kept:
                own = prompt.token_ids + action.token_ids
                parts.append(own[: wanted - prompt.kept])
                wanted = prompt.kept
            node = parent
        return tuple(token for part in reversed(parts) for token in part)

    def prompt_token_ids(self, node: int) -> TokenIds | None:
        """Returns the full token ids that the actions from `node` saw; `None` when unknown."""
        prompt = self.prompt(node)
        return None if prompt is None else self.token_ids(node)[: prompt.kept] + prompt.token_ids

    def arrays(self) -> TreeArrays:
        """Returns this tree alone as `TreeArrays`."""
        return TreeArrays.from_trees([self])


def different_prompts(node: str, one: int, other: int) -> TreeError:
    """Returns the error for a second prompt at a node; `one` and `other` are their numbers of tokens."""
    msg = (
        f"two actions from {node} saw different prompts ({one} and {other} tokens), and a node has one; make what "
        "the agent shows its model depend on the conversation alone (no date, no random id), or grow a tree for every "
        "rollout"
    )
    return TreeError(msg)


def _length(prompt: Prompt | None, action: Action | None) -> int:
    """Number of tokens up to the end of an action; 0 where its own or its prompt's are unknown."""
    if prompt is None or action is None or action.token_ids is None:
        return 0
    return len(prompt) + len(action.token_ids)
