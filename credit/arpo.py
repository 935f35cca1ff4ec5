"""ARPO: branch after tool answers that made the model uncertain."""

import numpy as np
from numpy.typing import ArrayLike

from .allocation import Allocation, check_budget, make_allocation
from .checks import check_finite
from .passes import check_discount

__all__ = ["allocate_arpo"]


def allocate_arpo(
    entropies: ArrayLike,
    initial: ArrayLike,
    rng: np.random.Generator,
    *,
    budget: int,
    weight: float = 0.5,
    threshold: float = 0.5,
    anchors: ArrayLike | None = None,
) -> Allocation:
    """Branches at steps whose entropy rose, with probability `threshold + weight * rise` (clipped to [0, 1]).

        branch where  clip(u - weight (H_now - H_first), 0, 1) <= threshold          u uniform in [0, 1]

    Source: ARPO (arXiv 2507.19849) and its code (weight 0.5, probability 0.5). Entropies are whatever the caller
    measured over the first tokens after the answer, in one unit throughout.

    Args:
        entropies: `[A]` after each tool answer, in the order in which they happened.
        initial: `[A]` of the same trajectory after its first prompt.
        rng: draws u.
        budget: branches in all; earlier anchors come first, as in the paper's loop.
        weight: of the rise in entropy.
        threshold: base probability of a branch, in [0, 1].
        anchors: `[A]` node indices to report; default: 0, 1, ...
    """
    now, first = np.asarray(entropies, dtype=np.float64), np.asarray(initial, dtype=np.float64)
    if now.ndim != 1 or now.shape != first.shape or not np.isfinite(now - first).all():
        msg = (
            f"entropies and initial must be finite and of one shape [A], got {list(now.shape)} and {list(first.shape)}"
        )
        raise ValueError(msg)
    check_discount(threshold, "threshold")
    check_finite("weight", weight)
    check_budget(budget)
    branch = np.clip(rng.random(len(now)) - weight * (now - first), 0.0, 1.0) <= threshold
    counts = (branch & (np.cumsum(branch) <= budget)).astype(np.int64)
    return make_allocation(anchors, counts, 0.0)
