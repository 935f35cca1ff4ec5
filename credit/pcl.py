"""PCL: the prompts whose predicted success is closest to one half."""

import numpy as np
from numpy.typing import ArrayLike

from .allocation import Allocation, check_shares, make_allocation
from .checks import check_whole, is_whole
from .passes import check_discount

__all__ = ["allocate_pcl"]


def allocate_pcl(success: ArrayLike, *, prompts: int, group_size: int, target: float = 0.5) -> Allocation:
    """Chooses the prompts predicted nearest to a success rate of one half; each gets the same group.

    Source: PCL (arXiv 2510.01135): from a pool of candidates keep those whose value is closest to 0.5.

    Args:
        success: `[A]` predicted success rate of each prompt of the pool.
        prompts: how many to keep, at most the pool's size. Ties go to earlier prompts.
        group_size: rollouts for each.
        target: the preferred success rate, in [0, 1].

    Returns:
        anchors 0, 1, ...; `value` is minus the mean distance from the target.
    """
    v = check_shares("success", success)
    if not is_whole(prompts) or not 0 <= prompts <= len(v):
        msg = f"prompts must be in [0, {len(v)}], the size of the pool, and whole, got {prompts!r}"
        raise ValueError(msg)
    prompts, group_size = int(prompts), check_whole("group_size", group_size, 1)
    check_discount(target, "target")
    distance = np.abs(v - target)
    chosen = np.argsort(distance, kind="stable")[:prompts]
    counts = np.zeros(len(v), dtype=np.int64)
    counts[chosen] = group_size
    return make_allocation(None, counts, -float(distance[chosen].mean()) if prompts else 0.0)
