"""What a generation is logged as: means over episodes, spread of credit."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from agentenv.credit import StepAdvantages, TokenAdvantages, pass_at_k
from agentenv.stats import EpisodeStats

from .layout import Rows

__all__ = ["credit_metrics", "episode_metrics", "means", "pass_metrics"]


def episode_metrics(stats: EpisodeStats) -> dict[str, float]:
    """Returns means over the episodes so far, full episodes apart from continuations; no entry where there is none."""
    roots, continued = stats.roots, stats.continuations
    values = {
        "reward": roots.mean_return,
        "reward_std": roots.std_return,
        "success": roots.success,
        "frac_reward_zero_std": stats.even_share,
        "episode/steps": roots.mean_steps,
        "episode/truncated": roots.truncated_share,
        "episode/rewritten": stats.rewritten_share,
        "continuation/success": continued.success,
        "continuation/steps": continued.mean_steps,
    }
    known = {name: value for name, value in values.items() if not np.isnan(value)}
    return known | {
        "tree/failed": float(stats.everything.failed),
        "tree/retried": float(stats.everything.retries),
        "tree/breakages": float(stats.breakages),
    }


def pass_metrics(tasks: Iterable[EpisodeStats], rollouts: int) -> dict[str, float]:
    """Returns pass@k for k = 1, 2, 4, ... and `rollouts`: means over the tasks that have k episodes which went through.

    Args:
        tasks: statistics of every task by itself; full episodes count, continuations do not.
        rollouts: full episodes per task; no entries for 1, where pass@1 is the success.
    """
    if rollouts == 1:
        return {}
    counts = [(one.roots.episodes, one.roots.successes) for one in tasks]
    values: dict[str, float] = {}
    for k in sorted({1 << i for i in range(rollouts.bit_length())} | {rollouts}):
        if enough := [pair for pair in counts if pair[0] >= k]:
            n, c = (np.array(column) for column in zip(*enough, strict=True))
            values[f"pass@{k}"] = float(np.mean(pass_at_k(n, c, k)))
    return values


def credit_metrics(rows: Rows, credit: StepAdvantages | TokenAdvantages) -> dict[str, float]:
    """Returns the spread of the advantages of steps, or of tokens, that are trained."""
    trained = np.unique(rows.nodes[rows.trained]) if isinstance(credit, StepAdvantages) else rows.trained
    advantages = credit.advantages[trained]
    if not advantages.size:
        return {}
    return {
        "credit/std": float(advantages.std()),
        "credit/frac_nonzero": float((np.abs(advantages) > 1e-6).mean()),
    }


def means(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns means over the processes that have a value."""
    names = sorted({name for report in reports for name in report})
    return {name: float(np.mean([report[name] for report in reports if name in report])) for name in names}
