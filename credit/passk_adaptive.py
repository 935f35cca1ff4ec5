"""How many attempts Pass@k should count: a rule that follows the policy's success."""

import numpy as np
from numpy.typing import ArrayLike

from .checks import check_number
from .passk_tree import check_k, passk_values

__all__ = ["adaptive_k"]


def adaptive_k(success: ArrayLike, *, share: float = 0.5, maximum: float = 64.0) -> float:
    """Computes the k at which the best of k attempts is expected to solve a given share of the prompts.

        mean_x [1 - (1 - p_x)^k] = share          k in [1, maximum]

    The left side grows with k, so there is one such k. With one p for all prompts and a share of one half it is
    `log 2 / -log(1 - p)`, about 0.7 / p: where success is rare, k is large and hard prompts are told apart; once
    `share` of single attempts succeed, k is 1 and Pass@k is the success rate itself. A k above that flattens what it
    should tell apart, V_k being near 1 everywhere; one below leaves it near 0.

    SR-PPO (arXiv 2606.25451) keeps k fixed and names its choice as future work; this rule is ours.

    Args:
        success: probabilities of success at the prompts, at least one.
        share: of the prompts, strictly between 0 and 1.
        maximum: the largest k, finite; taken where no k up to it reaches the share.

    Raises:
        ValueError: no prompt, a probability outside [0, 1], a share outside (0, 1) or a maximum below 1 or infinite.
    """
    p = np.asarray(success, dtype=np.float64).ravel()
    if not len(p):
        msg = "success must hold the probability of at least one prompt, got none"
        raise ValueError(msg)
    check_number("share", share)
    if not 0.0 < share < 1.0:
        msg = f"share must be strictly between 0 and 1, got {share!r}"
        raise ValueError(msg)
    check_k(maximum, "maximum")
    if np.isinf(maximum):
        msg = "maximum must be finite, got inf"
        raise ValueError(msg)
    low, high = 1.0, float(maximum)
    if float(passk_values(p, low).mean()) >= share:
        return low
    if float(passk_values(p, high).mean()) <= share:
        return high
    for _ in range(100):  # bisection to the last bit
        middle = 0.5 * (low + high)
        solved = float(passk_values(p, middle).mean())
        low, high = (middle, high) if solved < share else (low, middle)
    return 0.5 * (low + high)
