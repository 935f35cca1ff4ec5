"""`Rollout`: full episodes from fresh roots, continuations from chosen nodes, and what is kept between them."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Self

from agentenv.arrays import check_count
from agentenv.errors import InfrastructureError, TreeError
from agentenv.protocols import Agent, AsyncAgent, BranchingEnv
from agentenv.recording import begin_tree, failed_node
from agentenv.serialize import Journal, TreeWriter
from agentenv.tree import Anchor, EpisodeTree

from .environments import EnvPool
from .episode import Branch, Limits, branch_at, derive_seed, play
from .executors import Concurrent, Executor, InStep
from .ledger import Ledger
from .recorder import Recorder
from .revisit import ToRevisit, revisit

__all__ = ["Rollout", "rollout_trees"]


class Rollout:
    """Grows episode trees with an agent; keeps a pool of environments between calls.

    Args:
        make_env: returns a new environment; called as often as episodes run at once.
        agent: what acts.
        seed: of the run; with the trees' and rollouts' numbers it determines every other seed. Set `rollout.seed`
            anew between calls of `grow`: equal seeds and tasks give equal trees.
        executor: what drives the episodes; default: `Concurrent()` for an `AsyncAgent`, `InStep()` for others. One that
            is given may serve several rollouts, and is closed by who made it.
        max_envs: environments that are open at once; `None` for as many as there are episodes.
        retries: how often a rollout that infrastructure broke starts again from its anchor. Broken attempts stay in
            the tree with reward `None`.
        keep_snapshots: keeps a snapshot at every node where an episode can go on, so that it can become an anchor.
        max_steps: an episode with so many steps, those before the anchor included, is truncated.
        max_tokens: an episode with at least so many tokens, prompts included, is truncated; the agent must honor it.
        max_seconds: an episode that has taken so long is truncated after its step.
        step_seconds: an environment that takes longer for one step, or for opening and going to the anchor, is given
            up: a failure of infrastructure, counted and retried.
        record: a file that every rollout is written to as it ends, see `agentenv.serialize`.
        resume: goes on with that file: what it holds is not played again. Tasks, seed and calls, anchors
            included, must be the same.
        on_end: called for every rollout that has ended, e.g. to move a progress bar.

    Attributes:
        trees: of the last call of `grow`, as far as they have come; after an error or Ctrl-C too.
        ledger: what all calls cost so far.

    Raises:
        ValueError: a limit is out of range, or the agent cannot honor it; `record` exists and `resume` is not set.
    """

    def __init__(  # noqa: PLR0913  all keyword-only
        self,
        make_env: Callable[[], BranchingEnv],
        agent: Agent,
        *,
        seed: int = 0,
        executor: Executor | None = None,
        max_envs: int | None = None,
        retries: int = 2,
        keep_snapshots: bool = True,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_seconds: float | None = None,
        step_seconds: float | None = None,
        record: str | Path | None = None,
        resume: bool = False,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.limits = Limits(retries, max_steps, max_tokens, max_seconds, step_seconds, keep_snapshots)
        _check_parts(make_env, agent, executor)
        _check_limits(agent, max_tokens, max_envs)
        self.agent = agent
        self.seed = seed
        self.max_envs = max_envs
        self.on_end = on_end
        self.trees: list[EpisodeTree] = []
        self.ledger = Ledger()
        self._executor = executor or (Concurrent() if isinstance(agent, AsyncAgent) else InStep())
        self._own_executor = executor is None
        self._envs = EnvPool(self._executor.attach(make_env))
        self._recorder = _open_recorder(record, resume=resume)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def failures(self) -> int:
        """Attempts that infrastructure broke, so far, those at `reset` included."""
        return self.ledger.failures

    def close(self) -> None:
        """Closes every environment of the pool, and the journal. May be called twice; `grow` opens them again."""
        self._envs.close()
        if self._own_executor:
            self._executor.close()
        self._recorder.close()

    def grow(self, tasks: Sequence[Any], num_rollouts: int = 1) -> list[EpisodeTree]:
        """Samples `num_rollouts` full episodes of every task and returns one tree per task.

        A task whose `reset` breaks more often than `retries` gets a tree with one failed node.

        Args:
            tasks: the tasks, passed to `reset(options={"task": ...})`; `None` lets the environment choose.
            num_rollouts: episodes per task.

        Raises:
            ValueError: `num_rollouts` is below 1.
        """
        check_count("num_rollouts", num_rollouts, least=1)
        trees = self.begin(tasks)
        self.extend(trees, [Anchor(i, 0, num_rollouts) for i, tree in enumerate(trees) if tree.snapshots])
        return trees

    def begin(self, tasks: Sequence[Any]) -> list[EpisodeTree]:
        """Resets for every task and returns one tree per task that has only a root, for `extend`.

        A task whose `reset` breaks more often than `retries` gets a tree with one failed node, and no snapshot.

        Args:
            tasks: as for `grow`.
        """
        if isinstance(tasks, str | bytes | Mapping) or not isinstance(tasks, Iterable) or hasattr(tasks, "columns"):
            msg = f"tasks must be a list of tasks, got {tasks!r:.80}: agentenv.rows.read_rows reads files and tables"
            raise TypeError(msg)
        self.trees = self._begin(list(tasks))
        return self.trees

    def extend(self, trees: Sequence[EpisodeTree], anchors: Sequence[Anchor]) -> None:
        """Continues from the anchors, and adds what happens to their trees.

        What has ended is in the trees, and in the journal, even where this raises.

        Args:
            trees: grown by this class; with `record`, begun by this very `Rollout`.
            anchors: where, and how often.

        Raises:
            TreeError: an anchor does not exist, has ended or has no snapshot, or its tree was begun elsewhere and
                cannot be recorded; or, at the end, the agent saw different prompts at one node, so that not all
                rollouts fit into the tree.
        """
        for anchor in anchors:
            _check_anchor(trees, anchor)
            self._recorder.check_begun(anchor.tree, trees[anchor.tree])
        began = time.monotonic()
        branches = self._branches(trees, anchors)
        try:
            new = [branch for branch in branches if not self._known(trees, branch)]
            run = self._executor.run(
                new,
                partial(play, lend=self._envs.lend, limits=self.limits),
                self.agent,
                max_envs=self.max_envs,
                limit=self.limits.step_seconds,
            )
            with closing(run):
                for branch in run:
                    self._end(trees, branch)
        finally:
            self.ledger += self._recorder.settle(trees) + Ledger(wall_seconds=time.monotonic() - began)
            self._offer_known(trees, branches)
        _raise_refused(branches)

    def _begin(self, tasks: Sequence[Any]) -> list[EpisodeTree]:
        """Resets for every task."""
        began = time.monotonic()
        numbered = [(task, derive_seed(self.seed, i, "task")) for i, task in enumerate(tasks)]
        size = self.max_envs or max(1, len(numbered))
        parts = [numbered[start : start + size] for start in range(0, len(numbered), size)]
        jobs = [job for part in parts for job in self._executor.map(self._root, part, limit=self.limits.step_seconds)]
        trees: list[EpisodeTree] = []
        failures = 0
        for job, (_, seed) in zip(jobs, numbered, strict=True):
            if job.error is not None:
                raise job.error
            hangs = TimeoutError(f"the environment took longer than step_seconds={self.limits.step_seconds}")
            tree, failed = job.result or (_failed_root(seed, hangs), 1)
            failures += failed
            self._recorder.begin(tree)
            trees.append(tree)
        self.ledger += Ledger(failures=failures, wall_seconds=time.monotonic() - began)
        return trees

    def _root(self, numbered: tuple[Any, int]) -> tuple[EpisodeTree, int]:
        """Resets for a task, and counts how often that broke; more than `retries` times gives a tree with a failure."""
        task, seed = numbered
        failures = 0
        while True:
            try:
                with self._envs.lend() as env:
                    start = env.begin(seed=seed, options=None if task is None else {"task": task})
                    return begin_tree(env, start, {"seed": seed}), failures
            except InfrastructureError as error:
                failures += 1
                if failures > self.limits.retries:
                    return _failed_root(seed, error), failures

    def _branches(self, trees: Sequence[EpisodeTree], anchors: Sequence[Anchor]) -> list[Branch]:
        numbers = [tree.num_rollouts for tree in trees]
        branches: list[Branch] = []
        for anchor in anchors:
            tree = trees[anchor.tree]
            if isinstance(tree.snapshots[anchor.node], ToRevisit):
                with self._envs.lend() as env:
                    tree.snapshots[anchor.node] = revisit(env, tree, anchor.node)
            for _ in range(anchor.count):
                number = numbers[anchor.tree]
                numbers[anchor.tree] += 1
                seed = derive_seed(tree.metadata.get("seed"), number)
                branch = branch_at(tree, anchor.tree, anchor.node, number=number, seed=seed)
                branch.fork = anchor.fork if anchor.node else None
                branches.append(branch)
        return branches

    def _known(self, trees: Sequence[EpisodeTree], branch: Branch) -> bool:
        """Takes a rollout that the journal holds already."""
        if not self._recorder.holds(trees[branch.tree], branch):
            return False
        self._end(trees, branch, known=True)
        return True

    def _end(self, trees: Sequence[EpisodeTree], branch: Branch, *, known: bool = False) -> None:
        self._recorder.add(trees, branch, known=known)
        if self.on_end is not None:
            self.on_end()

    def _offer_known(self, trees: Sequence[EpisodeTree], branches: Sequence[Branch]) -> None:
        """Lets nodes that came from the journal become anchors."""
        known = {(branch.tree, branch.number) for branch in branches if branch.recorded}
        if not self.limits.keep_snapshots or not known:
            return
        for i, tree in enumerate(trees):
            for index, node in enumerate(tree.nodes):
                if (i, node.rollout) in known and index and not node.ended:
                    tree.snapshots.setdefault(index, ToRevisit())


def _failed_root(seed: int, error: Exception) -> EpisodeTree:
    tree = EpisodeTree((), metadata={"seed": seed})
    tree.append(failed_node(None, error, during="reset", parent=0))
    return tree


def _check_parts(make_env: object, agent: object, executor: object) -> None:
    if not callable(make_env):
        msg = f"make_env must be a function that returns a new environment, such as its class, got {make_env!r:.80}"
        raise TypeError(msg)
    for name, value, method, example in (
        ("agent", agent, "act", "anything with act(contexts) -> actions"),
        ("executor", executor, "run", "InStep(), Concurrent() or a RayExecutor"),
    ):
        missing = isinstance(value, type) or not callable(getattr(value, method, None))
        if missing and not (name == "executor" and value is None):
            msg = f"{name} must be {example}, got {value!r:.80}"
            raise TypeError(msg)


def _check_limits(agent: Agent, max_tokens: int | None, max_envs: int | None) -> None:
    if max_envs is not None:
        check_count("max_envs", max_envs, least=1)
    if max_tokens is not None and "max_tokens" not in getattr(agent, "honors", ()):
        msg = (
            f"max_tokens must be None for a {type(agent).__name__}, got {max_tokens}: it does not say that it keeps to "
            'Context.max_tokens and counts its tokens (honors = frozenset({"max_tokens"}))'
        )
        raise ValueError(msg)


def _open_recorder(record: str | Path | None, *, resume: bool) -> Recorder:
    if record is None:
        if resume:
            msg = "resume needs record=PATH, the file to go on with"
            raise ValueError(msg)
        return Recorder()
    path = Path(record)
    if path.is_dir():
        msg = f"record must name a file, {path} is a folder"
        raise ValueError(msg)
    exists = path.exists() and path.stat().st_size > 0
    if exists and not resume:
        msg = f"record must name a new file, {path} exists: set resume=True to go on with it, or choose another name"
        raise ValueError(msg)
    journal = Journal(path) if exists else None
    return Recorder(TreeWriter(path, append=True, journal=True), journal)


def _check_anchor(trees: Sequence[EpisodeTree], anchor: Anchor) -> None:
    if not 0 <= anchor.tree < len(trees):
        msg = f"anchor.tree must be an index in [0, {len(trees)}), got {anchor.tree}"
        raise TreeError(msg)
    tree = trees[anchor.tree]
    if anchor.count < 0:
        msg = f"anchor.count must be at least 0, got {anchor.count} for node {anchor.node} of tree {anchor.tree}"
        raise TreeError(msg)
    check_count("anchor.count", anchor.count, least=0)
    if anchor.node not in tree.snapshots:
        known = 0 <= anchor.node < len(tree)
        why = "the tree has no such node" if not known else "no snapshot was kept there"
        why = "it has ended" if known and tree.nodes[anchor.node].ended else why
        msg = f"tree {anchor.tree}: node {anchor.node} cannot be an anchor: {why}"
        raise TreeError(msg)


def _raise_refused(branches: Sequence[Branch]) -> None:
    """Raises where rollouts that ended cannot be in their trees."""
    refused = [branch for branch in branches if branch.refused is not None]
    if refused:
        first = refused[0]
        msg = (
            f"{len(refused)} of {len(branches)} rollouts could not be kept, the others are in their trees; "
            f"tree {first.tree}, rollout {first.number}: {first.refused}"
        )
        raise TreeError(msg) from first.refused


def rollout_trees(
    make_env: Callable[[], BranchingEnv],
    agent: Agent,
    tasks: Sequence[Any],
    num_rollouts: int = 1,
    **options: Any,
) -> list[EpisodeTree]:
    """Samples full episodes of every task and returns one tree per task; see `Rollout` for branching.

    Args:
        make_env: returns a new environment.
        agent: what acts.
        tasks: the tasks; `None` entries let the environment choose.
        num_rollouts: episodes per task.
        options: of `Rollout`: `seed`, `executor`, `max_envs`, `retries`, `record`, `on_end`, ...
    """
    with Rollout(make_env, agent, **options) as rollout:
        return rollout.grow(tasks, num_rollouts)
