"""Dynamic sampling: whole groups for fresh prompts until enough groups are mixed."""

import numpy as np
from numpy.typing import ArrayLike

from .allocation import Allocation, check_budget, make_allocation
from .checks import check_whole

__all__ = ["allocate_dynamic"]


def allocate_dynamic(
    successes: ArrayLike, trials: ArrayLike, *, wanted: int, group_size: int, budget: int
) -> Allocation:
    """Chooses which untried prompts get a group, so that `wanted` groups end up with both outcomes.

    Groups that all succeed or all fail are thrown away and replaced: with `mixed` groups so far out of those tried, the
    next `(wanted - mixed) / share of mixed groups` untried prompts get `group_size` rollouts each, in order. Call it
    again with what came back until nothing is missing; the thrown-away rollouts are its cost.

    Source: DAPO (arXiv 2503.14476).

    Args:
        successes: `[A]` successes of each prompt so far.
        trials: `[A]` rollouts of each prompt so far, 0 where untried.
        wanted: mixed groups to reach.
        group_size: rollouts per group.
        budget: rollouts that may still be spent.

    Returns:
        anchors 0, 1, ...; `value` is the number of mixed groups expected of them.
    """
    won, tried = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    if won.shape != tried.shape or not ((won >= 0) & (won <= tried) & np.isfinite(tried)).all():
        msg = f"successes must be in [0, trials] and of its shape, got {won.tolist()} and {tried.tolist()}"
        raise ValueError(msg)
    group_size = check_whole("group_size", group_size, 2, why=" (one rollout is never mixed)")
    wanted = check_whole("wanted", wanted, 0)
    check_budget(budget)
    budget = check_whole("budget", budget, 0)
    done = tried > 0
    mixed = int(np.count_nonzero(done & (won > 0) & (won < tried)))
    share = mixed / max(1, int(done.sum())) if mixed else 1.0
    fresh = min(int(np.ceil(max(0, wanted - mixed) / share)), budget // group_size)
    counts = np.zeros(len(tried), dtype=np.int64)
    counts[np.flatnonzero(~done)[:fresh]] = group_size
    return make_allocation(None, counts, share * float(np.count_nonzero(counts)))
