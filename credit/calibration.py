"""How good predicted success probabilities are: Brier score, calibration error, AUROC."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .allocation import check_shares
from .checks import check_weights

__all__ = ["Calibration", "calibration_by_depth", "calibration_of"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Scores of predictions against outcomes."""

    count: float  # outcomes, the sum of the weights
    rate: float  # share of successes
    brier: float  # mean squared distance of prediction and outcome; lower is better, rate (1 - rate) for a constant
    error: float  # expected calibration error over equally wide bins: mean distance of predicted and real rate
    auroc: float  # chance that a success was predicted above a failure, ties half; nan without both outcomes


def calibration_of(
    predictions: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None, *, bins: int = 10
) -> Calibration:
    """Scores predictions against shares of successes.

    A target of 0.25 with weight 4 counts as one success and three failures, so the backed-up targets of a tree
    (`success_shares` with `leaf_counts`) score exactly as their leaves would.

    Args:
        predictions: `[A]` probabilities.
        targets: `[A]` shares of successes, in [0, 1].
        weights: `[A]` outcomes behind each target, at least 0; default 1.
        bins: number of bins for the calibration error.

    Raises:
        ValueError: lengths that differ, probabilities outside [0, 1], or nothing to score.
    """
    p, t = check_shares("predictions", predictions), check_shares("targets", targets)
    w = np.ones(len(p)) if weights is None else check_weights("weights", weights)
    if not (p.shape == t.shape == w.shape) or w.sum() <= 0:
        msg = (
            f"predictions, targets and weights must have one length and positive sum, got {len(p)}, {len(t)}, {len(w)}"
        )
        raise ValueError(msg)
    total = float(w.sum())
    brier = float((w * (t * (1 - p) ** 2 + (1 - t) * p**2)).sum()) / total
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, w * (p - t), bins)
    return Calibration(total, float((w * t).sum()) / total, brier, float(np.abs(gap).sum()) / total, _auroc(p, t, w))


def calibration_by_depth(
    predictions: ArrayLike, targets: ArrayLike, depths: ArrayLike, weights: ArrayLike | None = None, *, bins: int = 10
) -> dict[int, Calibration]:
    """Scores predictions separately at every depth, by depth: 0 are roots, so it tells prompts from prefixes.

    Args:
        predictions: `[A]` probabilities.
        targets: `[A]` shares of successes.
        depths: `[A]` steps before each prefix.
        weights: `[A]` outcomes behind each target.
        bins: number of bins for the calibration error.
    """
    p, t, d = np.asarray(predictions), np.asarray(targets), np.asarray(depths)
    w = np.ones(len(p)) if weights is None else check_weights("weights", weights)
    found = [int(depth) for depth in np.unique(d[w > 0])]
    return {depth: calibration_of(p[d == depth], t[d == depth], w[d == depth], bins=bins) for depth in found}


def _auroc(p: FloatArray, t: FloatArray, w: FloatArray) -> float:
    """Counts pairs of a success and a failure by weight, in the order of predictions."""
    wins, losses = w * t, w * (1 - t)
    if wins.sum() <= 0 or losses.sum() <= 0:
        return float("nan")
    rank = np.unique(p, return_inverse=True)[1]
    wins_at, losses_at = np.bincount(rank, wins), np.bincount(rank, losses)
    below = np.cumsum(losses_at) - losses_at
    return float((wins_at * (below + losses_at / 2)).sum() / (wins.sum() * losses.sum()))
