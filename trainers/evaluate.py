"""How well an agent does on fixed tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentenv.protocols import Agent, BranchingEnv
from agentenv.rollout import derive_seed, rollout_trees
from agentenv.stats import EpisodeStats, episode_stats
from agentenv.tree import EpisodeTree

__all__ = ["Evaluation", "evaluate_agent"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of one episode per task.

    Attributes:
        stats: sums over the episodes.
        trees: the episodes, one tree per task.
    """

    stats: EpisodeStats
    trees: tuple[EpisodeTree, ...]

    @property
    def success(self) -> float:
        """Share of the episodes whose return exceeds their environment's threshold; NaN where none went through."""
        return self.stats.roots.success

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return."""
        return self.stats.roots.mean_return

    @property
    def mean_steps(self) -> float:
        """Mean length in steps."""
        return self.stats.roots.mean_steps

    @property
    def num_episodes(self) -> int:
        """Episodes that went through."""
        return self.stats.roots.episodes

    @property
    def num_failed(self) -> int:
        """Tasks that infrastructure broke; they count nowhere else."""
        return self.stats.roots.failed

    @property
    def standard_error(self) -> float:
        """Of `success`: sqrt(p (1 - p) / n)."""
        return self.stats.roots.standard_error

    def __str__(self) -> str:
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        return f"{self.success:.3f} (standard error {self.standard_error:.3f}, {self.num_episodes} tasks{failed})"


def evaluate_agent(
    make_env: Callable[[], BranchingEnv],
    agent: Agent,
    tasks: Sequence[Any],
    *,
    seed: int = 0,
    batch_size: int = 256,
    max_steps: int = 1000,
    on_end: Callable[[], None] | None = None,
) -> Evaluation:
    """Plays one episode of every task and averages.

    Args:
        make_env: returns a new environment.
        agent: what acts.
        tasks: the tasks; `None` lets the environment draw one.
        seed: of the episodes; equal seeds give equal random numbers, every task has its own.
        batch_size: tasks played at once.
        max_steps: an episode is truncated after so many steps in an environment that has no limit of its own.
        on_end: called with every finished episode.
    """

    def make_limited() -> BranchingEnv:
        env: Any = make_env()
        inner = env
        while hasattr(inner, "env"):  # of a wrapper
            inner = inner.env
        if getattr(inner, "max_steps", max_steps) is None:
            inner.max_steps = max_steps
        return env

    trees: list[EpisodeTree] = []
    for start in range(0, len(tasks), batch_size):
        part = tasks[start : start + batch_size]
        trees += rollout_trees(make_limited, agent, part, seed=derive_seed(seed, "eval", start), on_end=on_end)
    return Evaluation(episode_stats(trees), tuple(trees))
