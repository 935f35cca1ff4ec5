"""Goes to a node whose snapshot is not there, by taking the recorded actions again."""

from contextlib import suppress

from agentenv.errors import SnapshotError
from agentenv.protocols import BranchingEnv, Snapshot, SteppableEnv
from agentenv.tree import EpisodeTree

from .episode import derive_seed

__all__ = ["ToRevisit", "go_back", "revisit"]


class ToRevisit:
    """Stands for a snapshot that `revisit` makes when it is needed, as after reading a journal."""


def revisit(env: BranchingEnv, tree: EpisodeTree, node: int) -> Snapshot:
    """Brings an environment to a node of a tree that a `Rollout` grew, and returns the snapshot there.

    The tree's root must have a snapshot. Random numbers are those of the rollouts that came by; every observation and
    reward is compared with the recorded one.

    Raises:
        SnapshotError: something came out differently; the message names the step and both.
    """
    snapshot: Snapshot = tree.snapshots[0]
    env.restore(snapshot)
    path = tree.path(node)
    for part in _parts(tree, path[1:]):
        snapshot = _take(env, tree, part, path, reseed=True) or snapshot
    return snapshot


def go_back(env: SteppableEnv, tree: EpisodeTree, node: int) -> Snapshot:
    """Brings an environment to a node of any tree, one that was read from a file too, and returns the snapshot there.

    The environment is reset with the seed and task of the tree, unless its root has a snapshot; then the actions on the
    way are taken again. A stretch that a `Rollout` played has random numbers of its own; one that a person stepped
    (`RecordTree`) has not, and where the former does not come out as recorded, the latter is tried. Every observation
    and reward is compared. The snapshot is kept in the tree.

    Raises:
        SnapshotError: something came out differently, or infrastructure broke the step into the node.
        TreeError: there is no such node.
    """
    path = tree.path(node)
    if tree.nodes[node].reward is None:
        msg = f"node {node} cannot be gone to: infrastructure failed there; its parent is {tree.nodes[node].parent}"
        raise SnapshotError(msg)
    known = next((i for i in reversed(path) if isinstance(tree.snapshots.get(i), Snapshot)), None)
    if known is None:
        known, tree.snapshots[0] = 0, _begin_again(env, tree)
    snapshot: Snapshot = tree.snapshots[known]
    env.restore(snapshot)
    for part in _parts(tree, [i for i in path if i > known]):
        before, first = tree.nodes[tree.nodes[part[0]].parent], tree.nodes[part[0]]
        inside = part[0] != path[1] and (before.rollout, before.attempt) == (first.rollout, first.attempt)
        try:
            _take(env, tree, part, path, reseed=not inside)
        except SnapshotError:
            if inside:
                raise
            env.restore(snapshot)
            _take(env, tree, part, path, reseed=False)
        snapshot = tree.snapshots[part[-1]] = env.snapshot()
    return snapshot


def _begin_again(env: BranchingEnv, tree: EpisodeTree) -> Snapshot:
    """Resets as the tree's root was: with its task, or letting the environment draw it once more."""
    seed, root = tree.metadata.get("seed"), tree.nodes[0]
    seen: object = "no seed in the tree's metadata"
    for options in ({"task": tree.task}, None) if tree.task is not None else (None,):
        with suppress(ValueError):  # a task that does not survive JSON
            start = env.begin(seed=seed, options=options, snapshot=True)
            seen = list(start.observation)
            same = start.state_signature == root.state_signature or not root.state_signature
            if seen == list(root.observation) and same and start.snapshot is not None:
                return start.snapshot
    msg = (
        f"{env.env_id} does not begin as task {tree.task_id!r} with seed {seed} did: {list(root.observation)!r:.200} "
        f"then, {seen!r:.200} now; is it made with the same options?"
    )
    raise SnapshotError(msg)


def _parts(tree: EpisodeTree, path: list[int]) -> list[list[int]]:
    """Cuts a path where another attempt or another rollout goes on."""
    parts: list[list[int]] = []
    seen: tuple[int, int] | None = None
    for index in path:
        node = tree.nodes[index]
        if (node.rollout, node.attempt) != seen:
            parts.append([])
            seen = node.rollout, node.attempt
        parts[-1].append(index)
    return parts


def _take(env: BranchingEnv, tree: EpisodeTree, part: list[int], path: list[int], *, reseed: bool) -> Snapshot | None:
    """Takes the actions of one stretch again; returns the last snapshot."""
    first = tree.nodes[part[0]]
    if reseed:
        env.reseed(derive_seed(derive_seed(tree.metadata.get("seed"), first.rollout), first.attempt, "env"))
    snapshot: Snapshot | None = None
    for index in part:
        recorded, step = tree.nodes[index], path.index(index)
        after = env.advance(recorded.action, snapshot=True)
        _compare(tree, step, "reward", recorded.reward, after.reward)
        _compare(tree, step, "observation", list(recorded.observation), list(after.observation))
        if not recorded.ended:  # a limit outside the environment may have ended one that goes on now
            _compare(tree, step, "end of the episode", False, after.terminated or after.truncated)
        snapshot = after.snapshot or snapshot
    return snapshot


def _compare(tree: EpisodeTree, step: int, what: str, recorded: object, now: object) -> None:
    if recorded != now:
        msg = (
            f"{tree.env_id} did not repeat itself: task {tree.task_id!r}, step {step}: {what} was {recorded!r:.200}, "
            f"now it is {now!r:.200}; is it made with the same options?"
        )
        raise SnapshotError(msg)
