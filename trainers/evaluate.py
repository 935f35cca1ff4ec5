"""How well an agent does on fixed tasks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentenv.protocols import Agent, BranchingEnv
from agentenv.rollout import rollout_trees
from agentenv.tree import EpisodeTree

__all__ = ["Evaluation", "evaluate_agent"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of one episode per task.

    Attributes:
        success: share of the episodes with a positive return.
        mean_return: mean undiscounted return.
        mean_steps: mean length in steps.
        num_episodes: episodes that count.
        num_failed: tasks that infrastructure broke; they count nowhere.
        trees: the episodes, one tree per task.
    """

    success: float
    mean_return: float
    mean_steps: float
    num_episodes: int
    num_failed: int
    trees: tuple[EpisodeTree, ...]

    @property
    def standard_error(self) -> float:
        """Of `success`: sqrt(p (1 - p) / n)."""
        return math.sqrt(self.success * (1 - self.success) / self.num_episodes) if self.num_episodes else math.nan

    def __str__(self) -> str:
        return f"{self.success:.3f} (standard error {self.standard_error:.3f}, {self.num_episodes} tasks)"


def evaluate_agent(
    make_env: Callable[[], BranchingEnv],
    agent: Agent,
    tasks: Sequence[Any],
    *,
    seed: int = 0,
    batch_size: int = 256,
    on_end: Callable[[], None] | None = None,
) -> Evaluation:
    """Plays one episode of every task and averages.

    Args:
        make_env: returns a new environment.
        agent: what acts.
        tasks: the tasks.
        seed: of the episodes; equal seeds give equal random numbers.
        batch_size: tasks played at once.
        on_end: called with every finished episode.
    """
    trees: list[EpisodeTree] = []
    for start in range(0, len(tasks), batch_size):
        part = tasks[start : start + batch_size]
        trees += rollout_trees(make_env, agent, part, seed=seed + start, on_end=on_end)
    # A retried episode leaves its broken attempts in the tree; the last leaf is the one that went through.
    ends = [(tree, tree.leaves()[-1]) for tree in trees]
    returns = [
        (value, len(tree.path(leaf)) - 1) for tree, leaf in ends if (value := tree.episode_return(leaf)) is not None
    ]
    count = len(returns)
    return Evaluation(
        success=sum(value > 0 for value, _ in returns) / count if count else math.nan,
        mean_return=sum(value for value, _ in returns) / count if count else math.nan,
        mean_steps=sum(steps for _, steps in returns) / count if count else math.nan,
        num_episodes=count,
        num_failed=len(trees) - count,
        trees=tuple(trees),
    )
