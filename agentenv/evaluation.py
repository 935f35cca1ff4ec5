"""How well an agent does: pass@k over tasks with intervals, and two evaluations compared task by task."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from agentenv.credit import pass_at_k
from agentenv.stats import episodes
from agentenv.tree import Cost, EpisodeTree

__all__ = ["Difference", "Estimate", "Evaluation", "TaskResult", "compare", "evaluate_trees"]

FORMAT = "agentenv-eval-1"
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tasks, with its interval.

    Attributes:
        value: the mean; NaN where no task counts.
        low: lower end of the interval; NaN where none is known.
        high: upper end, likewise.
        tasks: how many count.
    """

    value: float
    low: float
    high: float
    tasks: int

    def __str__(self) -> str:
        if not self.tasks:
            return "-"
        return f"{self.value:.3f} [{'-' if math.isnan(self.low) else f'{self.low:.3f}, {self.high:.3f}'}]"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of one task's full episodes. Means are NaN where none went through.

    Attributes:
        task: names the task.
        episodes: that went through.
        successes: with a return above the environment's threshold.
        failed: that infrastructure broke in every attempt; they count nowhere else.
        retries: broken attempts that were started again.
        mean_return: undiscounted.
        mean_steps: steps of an episode.
        mean_tokens: tokens sampled in an episode, as far as they were counted.
        truncated: episodes that a limit ended.
    """

    task: str
    episodes: int
    successes: int
    failed: int = 0
    retries: int = 0
    mean_return: float = math.nan
    mean_steps: float = math.nan
    mean_tokens: float = math.nan
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an agent on tasks.

    Attributes:
        results: one per task.
        about: what was run: environment, agent, seed, ...
    """

    results: tuple[TaskResult, ...]
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def pass_at(self, k: int, *, level: float = 0.95) -> Estimate:
        """Estimates the chance that the best of k episodes of a task succeeds, averaged over tasks.

            pass@k = mean over tasks of 1 - C(n - c, k) / C(n, k)

        without bias per task (Chen et al. 2021, arXiv 2107.03374); tasks with fewer than k episodes are left out. The
        interval is the bootstrap's over tasks (percentiles of 10,000 resamples), which covers the choice of tasks and
        the chance of the episodes together. Where every task says the same, resampling says nothing, and the interval
        is the exact one of Clopper and Pearson for that many tasks. With fewer than ten tasks it is too narrow.

        Args:
            k: episodes, at least 1.
            level: of the interval.
        """
        values = np.array(list(self.pass_by_task(k).values()))
        return _estimate(values, level)

    def pass_by_task(self, k: int) -> dict[str, float]:
        """Estimates pass@k of every task that has at least k episodes."""
        counted = [result for result in self.results if result.episodes >= k]
        if not counted:
            return {}
        n, c = [result.episodes for result in counted], [result.successes for result in counted]
        values = (pass_at_k(n, c, k) + 0.0).tolist()  # no -0.0
        return dict(zip([result.task for result in counted], values, strict=True))

    def mean(self, name: str, *, level: float = 0.95) -> Estimate:
        """Averages `mean_return`, `mean_steps` or `mean_tokens` over tasks, with the bootstrap's interval.

        Where every task says the same, those otherwise are taken to have no steps or tokens, or twice as many; of
        returns, which may be anything, no interval is known then.
        """
        values = np.array(list(self.by_task(name).values()))
        counted = name != "mean_return" and len(values) > 0
        return _estimate(values, level, reach=(0.0, 2 * float(values.max())) if counted else None)

    def by_task(self, name: str) -> dict[str, float]:
        """Returns a mean of every task that has one."""
        values = {result.task: float(getattr(result, name)) for result in self.results}
        return {task: value for task, value in values.items() if not math.isnan(value)}

    @property
    def most_episodes(self) -> int:
        """Of any task that went through: the largest k that there is an estimate for."""
        return max((result.episodes for result in self.results), default=0)

    @property
    def failed(self) -> int:
        """Episodes that infrastructure broke in every attempt."""
        return sum(result.failed for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        results = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(result).items()}
            for result in self.results
        ]
        return {"format": FORMAT, "about": dict(self.about), "tasks": results}

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Reads what `to_dict` gave.

        Raises:
            ValueError: it is no evaluation.
        """
        entries = cast("Mapping[str, Any]", value if isinstance(value, Mapping) else {})
        if entries.get("format") != FORMAT:
            msg = f"an evaluation has 'format': {FORMAT!r}, got {entries.get('format')!r}"
            raise ValueError(msg)
        names = {entry.name for entry in fields(TaskResult)}
        try:
            results = [
                TaskResult(**cast("Any", {k: math.nan if v is None else v for k, v in task.items() if k in names}))
                for task in entries["tasks"]
            ]
        except (TypeError, KeyError, AttributeError) as error:
            msg = f"an evaluation's 'tasks' must be a list of results: {error}"
            raise ValueError(msg) from error
        return cls(tuple(results), dict(entries.get("about") or {}))


def evaluate_trees(
    trees: Sequence[EpisodeTree], names: Sequence[str] | None = None, *, about: Mapping[str, Any] | None = None
) -> Evaluation:
    """Counts the full episodes of trees, one tree per task; continuations from later nodes do not count.

    Args:
        trees: the trees.
        names: of their tasks; by default their `task_id`, numbered where that is empty or comes twice.
        about: kept in the result.
    """
    if names is None:
        ids = [tree.task_id for tree in trees]
        names = [name if name and ids.count(name) == 1 else f"{name}#{i}" for i, name in enumerate(ids)]
    results = [_result(tree, name) for tree, name in zip(trees, names, strict=True)]
    return Evaluation(tuple(results), dict(about or {}))


def _result(tree: EpisodeTree, name: str) -> TaskResult:
    whole = [episode for episode in episodes(tree) if episode.anchor == 0]
    through = [episode for episode in whole if episode.value is not None]
    tokens = [sum((tree.nodes[i].cost for i in tree.path(e.leaf)), Cost()).tokens_sampled for e in through]
    return TaskResult(
        task=name,
        episodes=len(through),
        successes=sum(episode.succeeded for episode in through),
        failed=len(whole) - len(through),
        retries=sum(episode.retries for episode in whole),
        mean_return=_mean([episode.value or 0.0 for episode in through]),
        mean_steps=_mean([episode.steps for episode in through]),
        mean_tokens=_mean(tokens),
        truncated=sum(episode.truncated for episode in through),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


@dataclass(frozen=True, slots=True)
class Difference:
    """Two evaluations compared on the tasks that both have.

    Attributes:
        name: of what is compared.
        first: mean of the first, on those tasks.
        second: mean of the second.
        change: second minus first, task by task.
    """

    name: str
    first: float
    second: float
    change: Estimate

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if not self.change.tasks:
            return "no task in common"
        return "higher" if self.change.low > 0 else "lower" if self.change.high < 0 else "undecided"


def compare(
    first: Evaluation, second: Evaluation, *, ks: Sequence[int] = (1,), level: float = 0.95
) -> list[Difference]:
    """Compares two evaluations task by task: pass@k, return, steps and tokens.

    The interval is the bootstrap's over the differences of the tasks that both have: paired, so that easy and hard
    tasks do not blur it. Where every task says the same of returns, steps or tokens, none is known: undecided.

    Raises:
        ValueError: they are of different environments, or a task comes twice in one of them.
    """
    for number, one in enumerate((first, second), 1):
        names = [result.task for result in one.results]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            msg = f"tasks must have names of their own to be paired: {twice!r} comes twice in evaluation {number}"
            raise ValueError(msg)
    envs = first.about.get("env"), second.about.get("env")
    if envs[0] != envs[1]:
        msg = f"evaluations must be of one environment to be compared, got {envs[0]!r} and {envs[1]!r}"
        raise ValueError(msg)
    wanted: list[tuple[str, Callable[[Evaluation], dict[str, float]]]] = [
        *((f"pass@{k}", lambda one, k=k: one.pass_by_task(k)) for k in ks),
        *((n.replace("_", " "), lambda one, n=n: one.by_task(n)) for n in ("mean_return", "mean_steps", "mean_tokens")),
    ]
    return [_difference(name, by_task(first), by_task(second), level) for name, by_task in wanted]


def _difference(name: str, first: Mapping[str, float], second: Mapping[str, float], level: float) -> Difference:
    both = [task for task in first if task in second]
    a, b = np.array([first[task] for task in both]), np.array([second[task] for task in both])
    means = (float(a.mean()), float(b.mean())) if both else (math.nan, math.nan)
    reach = (-1.0, 1.0) if name.startswith("pass@") else None
    return Difference(name, *means, _estimate(b - a, level, reach=reach))


def _estimate(values: NDArray[np.float64], level: float, *, reach: tuple[float, float] | None = (0.0, 1.0)) -> Estimate:
    """The mean of values `[T]`, with its bootstrap interval.

    Where all values are one, x, resampling says nothing. By the exact interval of Clopper and Pearson at most a share
    `1 - ((1 - level) / 2)^(1 / T)` of the tasks is otherwise than those seen: they are taken to be at the far ends of
    `reach`; where that is `None`, as nobody knows how far they may be, no interval is known.
    """
    count = len(values)
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean, tail = float(values.mean()) + 0.0, (1 - level) / 2
    if values.min() == values.max():
        share, (low, high) = 1 - tail ** (1 / count), reach or (math.nan, math.nan)
        return Estimate(mean, mean + share * (low - mean), mean + share * (high - mean), count)
    rng, size = np.random.default_rng(0), max(1, min(_RESAMPLES, 2_000_000 // count))  # draws at once
    parts = [values[rng.integers(count, size=(size, count))].mean(axis=1) for _ in range(-(-_RESAMPLES // size))]
    low, high = np.quantile(np.concatenate(parts)[:_RESAMPLES], [tail, 1 - tail])
    return Estimate(mean, float(low), float(high), count)
