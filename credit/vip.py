"""VIP: rollouts where they lower the variance of the gradient most."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .allocation import Allocation, check_budget, check_shares, fill_greedily, make_allocation
from .checks import check_whole

__all__ = ["allocate_vip"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def allocate_vip(success: ArrayLike, *, budget: int, minimum: int = 1, maximum: int | None = None) -> Allocation:
    """Chooses how many rollouts each prompt gets, so that the summed gradient variance is smallest.

        minimize  sum_i v_i (1 - v_i) / n_i      subject to  sum_i n_i <= budget,  minimum <= n_i <= maximum

    whose continuous solution is n_i proportional to sqrt(v_i (1 - v_i)). Solved exactly in whole numbers: the gain of
    one more, v (1 - v) / (n (n + 1)), only falls.

    Source: VIP (arXiv 2602.01601), with Dr.GRPO's or RLOO's variance; its Gaussian process over prompt embeddings is a
    predictor, not part of the rule.

    Args:
        success: `[A]` predicted success rate of each prompt.
        budget: rollouts in all.
        minimum: rollouts that every prompt gets, at least 1.
        maximum: cap per prompt.

    Returns:
        anchors 0, 1, ...; `value` is minus the summed variance.
    """
    v = check_shares("success", success)
    minimum = check_whole("minimum", minimum, 1)
    check_budget(budget, minimum=minimum * len(v))
    budget = check_whole("budget", budget, 0)
    most = budget if maximum is None else check_whole("maximum", maximum, minimum, why=f" (minimum is {minimum})")
    variance = v * (1.0 - v)

    def density(item: IntArray, unit: IntArray) -> FloatArray:
        n = unit + minimum
        return variance[item] / (n * (n + 1.0))

    left = budget - minimum * len(v)
    room = np.full(len(v), min(left, max(0, most - minimum)), dtype=np.int64)
    ones = np.ones(len(v))
    counts = fill_greedily(density, room, left, first=ones, following=ones) + minimum
    return make_allocation(None, counts, -float((variance / counts).sum()))
