"""Goes to a node whose snapshot is not there, by taking the recorded actions again."""

from agentenv.errors import SnapshotError
from agentenv.protocols import BranchingEnv, Snapshot
from agentenv.tree import EpisodeTree

from .episode import derive_seed

__all__ = ["ToRevisit", "revisit"]


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
    seen: tuple[int, int] | None = None
    for step, index in enumerate(tree.path(node)[1:], 1):
        recorded = tree.nodes[index]
        if (recorded.rollout, recorded.attempt) != seen:
            seen = recorded.rollout, recorded.attempt
            env.reseed(derive_seed(derive_seed(tree.metadata.get("seed"), recorded.rollout), recorded.attempt, "env"))
        after = env.advance(recorded.action, snapshot=True)
        _compare(tree, step, "reward", recorded.reward, after.reward)
        _compare(tree, step, "observation", list(recorded.observation), list(after.observation))
        snapshot = after.snapshot or snapshot
    return snapshot


def _compare(tree: EpisodeTree, step: int, what: str, recorded: object, now: object) -> None:
    if recorded != now:
        msg = (
            f"{tree.env_id} did not repeat itself: task {tree.task_id!r}, step {step}: {what} was {recorded!r:.200}, "
            f"now it is {now!r:.200}"
        )
        raise SnapshotError(msg)
