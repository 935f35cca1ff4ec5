"""Rollout: grows episode trees by letting an agent act in environments, from roots and from snapshots.

`Rollout.grow` samples full episodes from fresh roots; `Rollout.extend` continues from chosen nodes by restoring their
snapshots. Only the protocols are needed, so a scripted agent grows trees without a model.

Every seed derives from (run, tree, rollout, step), and what each rollout did is added to the tree in rollout order, so
the same seed gives the same tree whatever the timing. All rollouts of a tree share one reset (and so one root); from
there on each has random numbers of its own.

Threads live here and nowhere else: an `AsyncAgent` is called from 64 threads, one episode each; any
other agent gets the whole frontier in one call per step.
"""

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Self

import pydantic_core

from agentenv.errors import AgentError, InfrastructureError, TreeError
from agentenv.protocols import Agent, AsyncAgent, BranchingEnv, Context, Snapshot
from agentenv.tree import Anchor, EpisodeTree
from agentenv.types import Action, Message, Observation, ToolSchema

__all__ = ["Rollout", "derive_seed", "rollout_trees"]


def derive_seed(*parts: object) -> int:
    """Returns a 63-bit seed that depends on every part and on their order."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


@dataclass(slots=True)
class _Step:
    """What one step gave, before it is added to a tree."""

    action: Action
    observation: Observation = ()
    reward: float | None = None
    terminated: bool = False
    truncated: bool = False
    state_signature: str = ""
    action_signature: str = ""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    snapshot: Snapshot | None = None


@dataclass(slots=True)
class _Branch:
    """One rollout in progress: where it started, what it did, and what its agent sees next."""

    tree: int
    anchor: int
    number: int
    seed: int
    start: Snapshot
    first_messages: tuple[Message, ...]
    first_token_ids: tuple[int, ...]
    first_covered: int
    attempt: int = 0
    env: Any = None
    steps: list[_Step] = field(default_factory=list[_Step])
    failed: list[list[_Step]] = field(default_factory=list[list[_Step]])
    messages: tuple[Message, ...] = ()
    token_ids: tuple[int, ...] = ()
    covered: int = 0

    def begin(self, env: BranchingEnv) -> None:
        """Puts an environment at the anchor, with this rollout's own random numbers."""
        self.env = env
        self.steps = []
        self.messages, self.token_ids, self.covered = self.first_messages, self.first_token_ids, self.first_covered
        env.restore(self.start)
        env.reseed(derive_seed(self.seed, self.attempt, "env"))

    @property
    def ended(self) -> bool:
        return bool(self.steps) and (self.steps[-1].terminated or self.steps[-1].truncated)

    def context(self, tools: tuple[ToolSchema, ...]) -> Context:
        seed = derive_seed(self.seed, self.attempt, len(self.steps))
        return Context(self.messages, tools, self.token_ids, self.covered, seed)

    def take(self, action: Action, *, keep_snapshot: bool, max_tokens: int | None) -> None:
        """Steps the environment and records what came back."""
        env = self.env
        after = env.advance(action, snapshot=keep_snapshot)
        observation, terminated, truncated = after.observation, after.terminated, after.truncated
        used = len(action.prompt_token_ids or ()) + len(action.token_ids or ())
        truncated = truncated or (not terminated and max_tokens is not None and used >= max_tokens)
        snapshot = None if truncated else after.snapshot
        signatures = after.state_signature, after.action_signature
        flags = terminated, truncated
        self.steps.append(_Step(action, observation, after.reward, *flags, *signatures, after.info, snapshot))
        self.messages = (*self.messages, action.to_message(), *observation)
        if action.token_ids is not None and action.prompt_token_ids is not None:
            self.token_ids = (*action.prompt_token_ids, *action.token_ids)
            self.covered = len(self.messages) - len(observation)
        else:
            self.token_ids, self.covered = (), 0

    def fail(self, error: InfrastructureError, action: Action | None) -> None:
        """Ends this attempt with a step that has no reward; what broke is closed, and opened afresh by `begin`."""
        text = f"{type(error).__name__}: {error}"
        self.failed.append([*self.steps, _Step(action or Action(), info={"failure": text})])
        self.steps = []
        self.attempt += 1
        self.env.close()


class Rollout:
    """Grows episode trees with an agent; keeps a pool of environments between calls.

    Args:
        make_env: returns a new environment; called as often as episodes run at once.
        agent: what acts.
        seed: of the run; with the trees' and rollouts' numbers it determines every other seed. Set `rollout.seed`
            anew between calls of `grow`: equal seeds and tasks give equal trees.
        retries: how often a rollout that infrastructure broke starts again from its anchor. Broken attempts stay in
            the tree with reward `None`.
        keep_snapshots: keeps a snapshot at every node where an episode can go on, so that it can become an anchor.
        max_tokens: an episode with at least so many tokens is truncated; `None` for no limit.
        on_end: called for every rollout that has ended, e.g. to move a progress bar; from any thread.

    Attributes:
        failures: attempts that infrastructure broke, so far, those at `reset` included.
    """

    def __init__(
        self,
        make_env: Callable[[], BranchingEnv],
        agent: Agent,
        *,
        seed: int = 0,
        retries: int = 2,
        keep_snapshots: bool = True,
        max_tokens: int | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        if retries < 0:
            msg = f"retries must be at least 0, got {retries}"
            raise ValueError(msg)
        self._make_env = make_env
        self.agent = agent
        self.seed = seed
        self.retries = retries
        self.keep_snapshots = keep_snapshots
        self.max_tokens = max_tokens
        self.on_end = on_end
        self.failures = 0
        self._idle: list[BranchingEnv] = []
        self._lock = Lock()  # guards _idle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every environment of the pool. May be called twice."""
        with self._lock:
            idle, self._idle = self._idle, []
        for env in idle:
            env.close()

    def grow(self, tasks: Sequence[Any], num_rollouts: int = 1) -> list[EpisodeTree]:
        """Samples `num_rollouts` full episodes of every task and returns one tree per task.

        A task whose `reset` breaks more often than `retries` gets a tree with one failed node.

        Args:
            tasks: the tasks, passed to `reset(options={"task": ...})`; `None` lets the environment choose.
            num_rollouts: episodes per task.

        Raises:
            ValueError: `num_rollouts` is below 1.
        """
        if num_rollouts < 1:
            msg = f"num_rollouts must be at least 1, got {num_rollouts}"
            raise ValueError(msg)
        trees = [self._root(task, derive_seed(self.seed, i, "task")) for i, task in enumerate(tasks)]
        self.extend(trees, [Anchor(i, 0, num_rollouts) for i, tree in enumerate(trees) if tree.snapshots])
        return trees

    def extend(self, trees: Sequence[EpisodeTree], anchors: Sequence[Anchor]) -> None:
        """Continues from the anchors, and adds what happens to their trees.

        Args:
            trees: grown by this class.
            anchors: where, and how often.

        Raises:
            TreeError: an anchor does not exist, has ended or has no snapshot.
        """
        for anchor in anchors:
            _check_anchor(trees, anchor)
        branches = [branch for anchor in anchors for branch in self._branches(trees, anchor)]
        if isinstance(self.agent, AsyncAgent):
            self._run_concurrently(branches, self.agent)
        else:
            self._run_in_step(branches)
        for branch in branches:
            for failed in branch.failed:
                _add(trees[branch.tree], branch.anchor, failed)
            _add(trees[branch.tree], branch.anchor, branch.steps)
            self.failures += len(branch.failed)

    def _root(self, task: Any, seed: int) -> EpisodeTree:
        """Resets for a task; a tree with nothing but a failure where that breaks more often than `retries`."""
        failure = ""
        for _ in range(self.retries + 1):
            try:
                return self._reset(task, seed)
            except InfrastructureError as error:
                self.failures += 1
                failure = f"reset: {type(error).__name__}: {error}"
        tree = EpisodeTree((), metadata={"seed": seed, "rollouts": 0})
        tree.add(0, Action(), reward=None, info={"failure": failure})
        return tree

    def _reset(self, task: Any, seed: int) -> EpisodeTree:
        with self._borrow() as env:
            start = env.begin(seed=seed, options=None if task is None else {"task": task})
            return EpisodeTree(
                start.observation,
                task_id=str(start.info.get("task_id", "")),
                env_id=env.env_id,
                task=pydantic_core.to_jsonable_python(env.task, fallback=repr),
                state_signature=start.state_signature,
                metadata={"seed": seed, "rollouts": 0},
                success_threshold=env.success_threshold,
                snapshot=start.snapshot,
            )

    def _branches(self, trees: Sequence[EpisodeTree], anchor: Anchor) -> Iterator[_Branch]:
        tree = trees[anchor.tree]
        messages, token_ids = tuple(tree.messages(anchor.node)), tree.token_ids(anchor.node)
        covered = len(messages) - len(tree.nodes[anchor.node].observation) if token_ids else 0
        for _ in range(anchor.count):
            number = tree.metadata.get("rollouts", 0)
            tree.metadata["rollouts"] = number + 1
            seed = derive_seed(tree.metadata.get("seed"), number)
            start = tree.snapshots[anchor.node]
            yield _Branch(anchor.tree, anchor.node, number, seed, start, messages, token_ids, covered)

    # ------------------------------------------------------------------ two ways to run

    def _run_in_step(self, branches: Sequence[_Branch]) -> None:
        """All branches take one step at a time; the agent sees the whole frontier in one call."""
        with ExitStack() as stack:
            live = [branch for branch in branches if self._begin(branch, stack.enter_context(self._borrow()))]
            while live:
                contexts = [branch.context(branch.env.tools) for branch in live]
                actions: Sequence[Action | None] = [None] * len(live)
                broken: InfrastructureError | None = None
                try:
                    actions = _act(self.agent, contexts)
                except InfrastructureError as error:
                    broken = error
                live = [b for b, action in zip(live, actions, strict=True) if self._advance(b, action, broken)]

    def _run_concurrently(self, branches: Sequence[_Branch], agent: AsyncAgent) -> None:
        """Each branch runs in a thread of its own, waiting for the server alone."""
        stop = Event()  # set by the first exception, so that the other branches do not run to their ends

        def run(branch: _Branch) -> None:
            with self._borrow() as env:
                going = self._begin(branch, env)
                while going and not stop.is_set():
                    try:
                        action, broken = _act(agent, [branch.context(env.tools)])[0], None
                    except InfrastructureError as error:
                        action, broken = None, error
                    going = self._advance(branch, action, broken)

        with ThreadPoolExecutor(64, thread_name_prefix="rollout") as pool:
            futures = [pool.submit(run, branch) for branch in branches]
            try:
                ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in ended:
                    future.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _begin(self, branch: _Branch, env: BranchingEnv) -> bool:
        """Puts a branch at its anchor; returns whether it goes on: not when its attempts are used up."""
        while branch.attempt <= self.retries:
            try:
                branch.begin(env)
            except InfrastructureError as error:
                branch.fail(error, None)
            else:
                return True
        return self._end()

    def _end(self) -> bool:
        if self.on_end is not None:
            self.on_end()
        return False

    def _advance(self, branch: _Branch, action: Action | None, broken: InfrastructureError | None) -> bool:
        """Takes one step of one branch; returns whether it goes on."""
        try:
            if broken is not None or action is None:
                raise broken or AgentError("the agent gave no action")
            branch.take(action, keep_snapshot=self.keep_snapshots, max_tokens=self.max_tokens)
        except InfrastructureError as error:
            branch.fail(error, action)
            return self._begin(branch, branch.env)
        return self._end() if branch.ended else True

    @contextmanager
    def _borrow(self) -> Generator[BranchingEnv]:
        """Lends an environment of the pool; one that raised is closed instead of going back."""
        with self._lock:
            env = self._idle.pop() if self._idle else None
        env = env or self._make_env()
        try:
            yield env
        except BaseException:
            env.close()
            raise
        with self._lock:
            self._idle.append(env)


def _check_anchor(trees: Sequence[EpisodeTree], anchor: Anchor) -> None:
    if not 0 <= anchor.tree < len(trees):
        msg = f"anchor.tree must be an index in [0, {len(trees)}), got {anchor.tree}"
        raise TreeError(msg)
    tree = trees[anchor.tree]
    if anchor.node not in tree.snapshots:
        known = 0 <= anchor.node < len(tree)
        why = "the tree has no such node" if not known else "no snapshot was kept there"
        why = "it has ended" if known and tree.nodes[anchor.node].ended else why
        msg = f"tree {anchor.tree}: node {anchor.node} cannot be an anchor: {why}"
        raise TreeError(msg)


def _act(agent: Agent, contexts: Sequence[Context]) -> list[Action]:
    actions = agent.act(contexts)
    if len(actions) != len(contexts):
        msg = f"{type(agent).__name__}.act must return one action per context: got {len(actions)} for {len(contexts)}"
        raise ValueError(msg)
    return actions


def _add(tree: EpisodeTree, parent: int, steps: Sequence[_Step]) -> None:
    for step in steps:
        parent = tree.add(
            parent,
            step.action,
            step.observation,
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            state_signature=step.state_signature,
            action_signature=step.action_signature,
            info=pydantic_core.to_jsonable_python(step.info, fallback=repr),
            snapshot=step.snapshot,
        )


def rollout_trees(
    make_env: Callable[[], BranchingEnv],
    agent: Agent,
    tasks: Sequence[Any],
    num_rollouts: int = 1,
    *,
    seed: int = 0,
    retries: int = 2,
    on_end: Callable[[], None] | None = None,
) -> list[EpisodeTree]:
    """Samples full episodes of every task and returns one tree per task; see `Rollout` for branching.

    Args:
        make_env: returns a new environment.
        agent: what acts.
        tasks: the tasks; `None` entries let the environment choose.
        num_rollouts: episodes per task.
        seed: of the run.
        retries: how often a rollout that infrastructure broke starts again.
        on_end: called for every rollout that has ended.
    """
    with Rollout(make_env, agent, seed=seed, retries=retries, on_end=on_end) as rollout:
        return rollout.grow(tasks, num_rollouts)
