"""Wrappers that keep an environment branchable: record what happens, change rewards, cap observations.

Gymnasium's own wrappers hide `snapshot`, `restore` and `fork`; these pass them on.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Self

from agentenv.arrays import as_number, check_count
from agentenv.errors import InfrastructureError, SnapshotError, TreeError
from agentenv.protocols import Snapshot, SteppableEnv, StepResult, Transition
from agentenv.recording import begin_tree, failed_node, node_after
from agentenv.rows import shorten
from agentenv.serialize import TreeWriter
from agentenv.serialize.events import key_of
from agentenv.tree import EpisodeTree, Fork, Node, relative_prompt
from agentenv.types import Action, Message, Observation, ToolSchema, message_text

__all__ = ["LimitObservation", "RecordTree", "TransformReward", "Wrapper"]

_PARTS_OF_A_STEP = ("reset", "step", "snapshot", "state_signature", "action_signature")


class Wrapper:
    """Passes everything on to the environment inside; subclasses write `after_begin`, `after_step` or both.

    A subclass that has state of its own overrides `snapshot`, `restore` and `fork` as well. One may override
    `reset` and `step` instead, too; a step then costs more calls of the environment inside.

    Args:
        env: what to wrap.
    """

    _forwards: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._forwards = all(getattr(cls, name) is getattr(Wrapper, name) for name in _PARTS_OF_A_STEP)

    def __init__(self, env: SteppableEnv) -> None:
        self.env = env

    @property
    def env_id(self) -> str:
        """Id with version of the environment inside."""
        return self.env.env_id

    @property
    def task(self) -> Any:
        """The task of the running episode."""
        return self.env.task

    @property
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call."""
        return self.env.tools

    @property
    def success_threshold(self) -> float:
        """An episode succeeds when its return exceeds it."""
        return self.env.success_threshold

    @property
    def unwrapped(self) -> SteppableEnv:
        """The environment inside all wrappers."""
        return self.env.unwrapped if isinstance(self.env, Wrapper) else self.env

    def after_begin(self, begun: Transition, /) -> Transition:
        """Returns what the begin of an episode shall give instead."""
        return begun

    def after_step(self, taken: Transition, /) -> Transition:
        """Returns what a step shall give instead."""
        return taken

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        begun = self.after_begin(Transition(observation, info=info))
        return begun.observation, dict(begun.info)

    def step(self, action: Any, /) -> StepResult:
        """Takes one action."""
        taken = self.after_step(Transition(*self.env.step(action)))
        return taken.observation, taken.reward, taken.terminated, taken.truncated, dict(taken.info)

    def begin(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, snapshot: bool = True
    ) -> Transition:
        """Starts an episode: `reset`, with signature and snapshot."""
        if self._forwards:
            return self.after_begin(self.env.begin(seed=seed, options=options, snapshot=snapshot))
        observation, info = self.reset(seed=seed, options=options)
        with self.same_state():
            kept = self.snapshot() if snapshot else None
            return Transition(observation, info=info, state_signature=self.state_signature(), snapshot=kept)

    def advance(self, action: Any, /, *, snapshot: bool = False) -> Transition:
        """Takes one action: `step`, with signatures, and a snapshot where one is wanted."""
        if self._forwards:
            return self.after_step(self.env.advance(action, snapshot=snapshot))
        parsed = Action.parse(action)
        with self.same_state():
            observation, reward, terminated, truncated, info = self.step(parsed)
            kept = self.snapshot() if snapshot and not (terminated or truncated) else None
            signatures = self.state_signature(), self.action_signature(parsed)
        return Transition(observation, reward, terminated, truncated, info, *signatures, kept)

    def same_state(self) -> AbstractContextManager[None]:
        """Within it, signatures and snapshots share one snapshot of the sandbox, which only `step` may change."""
        return getattr(self.env, "same_state", nullcontext)()

    def snapshot(self) -> Snapshot:
        """Returns the complete state."""
        return self.env.snapshot()

    def restore(self, snapshot: Snapshot, /) -> None:
        """Goes back to a snapshot."""
        self.env.restore(snapshot)

    def fork(self, n: int) -> Sequence[Self]:
        """Returns independent environments in this state, wrapped alike."""
        return [self._rewrap(env) for env in self.env.fork(n)]

    def _rewrap(self, env: SteppableEnv) -> Self:
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        clone.env = env
        return clone

    def reseed(self, seed: int, /) -> None:
        """Gives the rest of the episode other random numbers."""
        self.env.reseed(seed)

    def state_signature(self) -> str:
        """Abstraction of the state, for matching nodes."""
        return self.env.state_signature()

    def action_signature(self, action: Action, /) -> str:
        """Abstraction of an action."""
        return self.env.action_signature(action)

    def close(self) -> None:
        """Frees everything."""
        self.env.close()


class TransformReward(Wrapper):
    """Replaces every reward r by `transform(r, info)`, e.g. to charge for steps.

    Args:
        env: what to wrap.
        transform: returns the new reward, a finite number, from the old one and the step's `info`.
    """

    def __init__(self, env: SteppableEnv, transform: Callable[[float, dict[str, Any]], float]) -> None:
        super().__init__(env)
        self.transform = transform

    def after_step(self, taken: Transition, /) -> Transition:
        """Returns the step with its new reward; `info["raw_reward"]` keeps the one before.

        Raises:
            ValueError: `transform` returned something else than a finite number.
        """
        returned = self.transform(taken.reward, dict(taken.info))
        reward = as_number(returned)
        if not math.isfinite(reward):
            msg = f"transform must return a finite number, got {shorten(returned)} for the reward {taken.reward}"
            raise ValueError(msg)
        return replace(taken, reward=reward, info={**taken.info, "raw_reward": taken.reward})


class LimitObservation(Wrapper):
    """Cuts the middle out of messages longer than `max_chars`, and says so in the message.

    Args:
        env: what to wrap.
        max_chars: characters per message that are kept, at least 1.
    """

    def __init__(self, env: SteppableEnv, max_chars: int) -> None:
        super().__init__(env)
        check_count("max_chars", max_chars, least=1)
        self.max_chars = max_chars

    def after_begin(self, begun: Transition, /) -> Transition:
        """Returns the begin with its messages cut."""
        return replace(begun, observation=self._cut(begun.observation))

    def after_step(self, taken: Transition, /) -> Transition:
        """Returns the step with its messages cut."""
        return replace(taken, observation=self._cut(taken.observation))

    def _cut(self, observation: Observation) -> Observation:
        return tuple(self._cut_message(message) for message in observation)

    def _cut_message(self, message: Message) -> Message:
        text = message_text(message)
        dropped = len(text) - self.max_chars
        if dropped <= 0:
            return message
        head = (self.max_chars + 1) // 2
        tail = text[len(text) - (self.max_chars - head) :]
        cut = f"{text[:head]}\n[{dropped} characters cut]\n{tail}"
        content = message["content"]
        images = [] if isinstance(content, str) else [part for part in content if part["type"] == "image_url"]
        return {**message, "content": [{"type": "text", "text": cut}, *images] if images else cut}


class RecordTree(Wrapper):
    """Grows an `EpisodeTree` while an environment is stepped by hand, branching where it is restored or forked.

    `reset` starts a new tree. Forks record into the same tree. Every node keeps its snapshot, so `goto(node)` goes back
    to any of them.

    Attributes:
        tree: all that happened since the last reset; `None` before it.
        node: where in the tree this environment is.

    Args:
        env: what to wrap.
        record: writes every node as it comes.
    """

    tree: EpisodeTree | None = None
    node: int = 0

    def __init__(self, env: SteppableEnv, record: TreeWriter | None = None) -> None:
        super().__init__(env)
        self.record = record
        self._number = 0
        self._taken: list[tuple[Snapshot, int]] = []  # `reseed` makes them differ from those of the tree

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode and a new tree."""
        start = self.begin(seed=seed, options=options)
        return start.observation, dict(start.info)

    def begin(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, snapshot: bool = True
    ) -> Transition:
        """Starts an episode and a new tree, which keeps its snapshot."""
        start = self.env.begin(seed=seed, options=options, snapshot=True)
        self.tree = begin_tree(self, start, {"seed": seed})
        self.node = 0
        self._taken = []
        if self.record is not None:
            self._number = self.record.begin_tree(self.tree)
        return start if snapshot else replace(start, snapshot=None)

    def snapshot(self) -> Snapshot:
        """Returns the complete state, and remembers where in the tree it belongs."""
        snapshot = self.env.snapshot()
        self._taken.append((snapshot, self.node))
        return snapshot

    def step(self, action: Any, /) -> StepResult:
        """Takes one action and adds a node; a step that infrastructure broke is recorded with reward `None`."""
        after = self.advance(action)
        return after.observation, after.reward, after.terminated, after.truncated, dict(after.info)

    def advance(self, action: Any, /, *, snapshot: bool = False) -> Transition:
        """Takes one action and adds a node, which keeps its snapshot, the last of an episode too."""
        parsed = Action.parse(action)
        try:
            after = self.env.advance(parsed, snapshot=True)
        except InfrastructureError as error:
            self._add(failed_node(parsed, error), parsed, None)
            raise
        taken = after.snapshot or self.env.snapshot()
        self._add(node_after(parsed, after), parsed, taken)
        return after if snapshot else replace(after, snapshot=None)

    def _add(self, node: Node, action: Action, snapshot: Snapshot | None) -> None:
        if self.tree is None:
            return
        tree, parent = self.tree, self.node
        before = key_of(tree, parent, len(tree.path(parent)) - 1)
        ids = action.prompt_token_ids
        prompt = None if ids is None else relative_prompt(tree.token_ids(parent), ids)
        goes_on = 0 < parent == len(tree) - 1
        rollout = tree.nodes[parent].rollout if goes_on else tree.num_rollouts
        fork = Fork("hand", "went back to this node and chose again") if parent and not goes_on else None
        node = replace(node, parent=parent, rollout=rollout, fork=fork)
        self.node = tree.append(node, prompt=prompt, snapshot=snapshot)
        if self.record is not None:
            self.record.add_node(self._number, before, tree.nodes[self.node], prompt)

    def goto(self, node: int) -> None:
        """Goes back (or forward) to a node of the tree; the next step branches off there.

        Raises:
            TreeError: there is no episode, or no such node, or nothing was kept there.
        """
        if self.tree is None or node not in self.tree.snapshots:
            known = self.tree is not None and 0 <= node < len(self.tree)
            why = "infrastructure failed there" if known else "there is no such node"
            msg = f"node {node} cannot be restored: {'call reset() first' if self.tree is None else why}"
            raise TreeError(msg)
        self.env.restore(self.tree.snapshots[node])
        self.node = node

    def restore(self, snapshot: Snapshot, /) -> None:
        """Goes back to a snapshot that is in this tree.

        Raises:
            SnapshotError: the snapshot was not taken in this tree.
        """
        in_tree = {} if self.tree is None else self.tree.snapshots
        known = [*self._taken, *((kept, node) for node, kept in in_tree.items())]
        found = [node for kept, node in known if kept is snapshot] or [node for kept, node in known if kept == snapshot]
        if not found:
            msg = "RecordTree restores only snapshots of its own tree: it could not say where in the tree others belong"
            raise SnapshotError(msg)
        self.env.restore(snapshot)
        self.node = self.node if self.node in found else found[-1]
