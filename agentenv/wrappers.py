"""Wrappers that keep an environment branchable: record what happens, change rewards, cap observations.

Gymnasium's own wrappers hide `snapshot`, `restore` and `fork`; these pass them on.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Self

import pydantic_core

from agentenv.errors import InfrastructureError, SnapshotError, TreeError
from agentenv.protocols import Snapshot, SteppableEnv, StepResult, Transition
from agentenv.tree import EpisodeTree
from agentenv.types import Action, Message, Observation, ToolSchema

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
        observation, reward, terminated, truncated, info = self.step(parsed)
        with self.same_state():
            kept = self.snapshot() if snapshot and not (terminated or truncated) else None
            signatures = self.state_signature(), self.action_signature(parsed)
        return Transition(observation, reward, terminated, truncated, info, *signatures, kept)

    def same_state(self) -> AbstractContextManager[None]:
        """Within it, signatures and snapshots share one snapshot of the sandbox, which must not change meanwhile."""
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
        transform: returns the new reward from the old one and the step's `info`.
    """

    def __init__(self, env: SteppableEnv, transform: Callable[[float, dict[str, Any]], float]) -> None:
        super().__init__(env)
        self.transform = transform

    def after_step(self, taken: Transition, /) -> Transition:
        """Returns the step with its new reward; `info["raw_reward"]` keeps the one before."""
        reward = float(self.transform(taken.reward, dict(taken.info)))
        return replace(taken, reward=reward, info={**taken.info, "raw_reward": taken.reward})


class LimitObservation(Wrapper):
    """Cuts the middle out of messages longer than `max_chars`, and says so in the message.

    Args:
        env: what to wrap.
        max_chars: characters per message that are kept, at least 1.
    """

    def __init__(self, env: SteppableEnv, max_chars: int) -> None:
        super().__init__(env)
        if max_chars < 1:
            msg = f"max_chars must be at least 1, got {max_chars}"
            raise ValueError(msg)
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
        text = message["content"]
        dropped = len(text) - self.max_chars
        if dropped <= 0:
            return message
        head = (self.max_chars + 1) // 2
        tail = text[len(text) - (self.max_chars - head) :]
        return {**message, "content": f"{text[:head]}\n[{dropped} characters cut]\n{tail}"}


class RecordTree(Wrapper):
    """Grows an `EpisodeTree` while an environment is stepped by hand, branching where it is restored or forked.

    `reset` starts a new tree. Forks record into the same tree. Every node keeps its snapshot, so `goto(node)` goes back
    to any of them.

    Attributes:
        tree: all that happened since the last reset; `None` before it.
        node: where in the tree this environment is.

    Args:
        env: what to wrap.
    """

    tree: EpisodeTree | None = None
    node: int = 0

    def __init__(self, env: SteppableEnv) -> None:
        super().__init__(env)
        self._taken: list[tuple[Snapshot, int]] = []  # `reseed` makes them differ from those of the tree

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode and a new tree."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.tree = EpisodeTree(
            observation,
            task_id=str(info.get("task_id", "")),
            env_id=self.env_id,
            task=pydantic_core.to_jsonable_python(self.env.task, fallback=repr),
            state_signature=self.env.state_signature(),
            metadata={"seed": seed},
            snapshot=self.env.snapshot(),
        )
        self.node = 0
        self._taken = []
        return observation, info

    def snapshot(self) -> Snapshot:
        """Returns the complete state, and remembers where in the tree it belongs."""
        snapshot = self.env.snapshot()
        self._taken.append((snapshot, self.node))
        return snapshot

    def step(self, action: Any, /) -> StepResult:
        """Takes one action and adds a node; a step that infrastructure broke is recorded with reward `None`."""
        parsed = Action.parse(action)
        try:
            observation, reward, terminated, truncated, info = self.env.step(parsed)
        except InfrastructureError as error:
            if self.tree is not None:
                self.node = self.tree.add(self.node, parsed, reward=None, info={"failure": str(error)})
            raise
        if self.tree is not None:
            self.node = self.tree.add(
                self.node,
                parsed,
                observation,
                reward=reward,
                terminated=terminated,
                truncated=truncated,
                state_signature=self.env.state_signature(),
                action_signature=self.env.action_signature(parsed),
                info=pydantic_core.to_jsonable_python(info, fallback=repr),
                snapshot=self.env.snapshot(),
            )
        return observation, reward, terminated, truncated, info

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
