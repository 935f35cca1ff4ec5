"""How far a critic may be believed: its predictions against the outcomes that came after them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.credit.calibration import Calibration, calibration_of
from agentenv.whole_files import whole_file

__all__ = ["TrackRecord", "draw_reliability", "scores_of", "thin_out"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FEW = 32
"""Episodes below which a record says nothing."""


class TrackRecord:
    """The predictions that a critic made before it learned their outcomes, of the last episodes.

    Args:
        episodes: how many to keep, by weight.
    """

    def __init__(self, episodes: int = 256) -> None:
        self._episodes = episodes
        self._entries = np.zeros((0, 3))

    @property
    def entries(self) -> FloatArray:
        """`[A, 3]` prediction, outcome (or share of successes) and weight; the weights of an episode sum to 1."""
        return self._entries

    def add(self, predictions: ArrayLike, outcomes: ArrayLike, weights: ArrayLike) -> None:
        """Adds predictions `[A]` with what came of them, the newest last."""
        new = np.stack([np.asarray(array, dtype=np.float64) for array in (predictions, outcomes, weights)], axis=1)
        joined = np.concatenate([self._entries, new])
        after = np.cumsum(joined[::-1, 2])[::-1] - joined[:, 2]
        self._entries = joined[after < self._episodes - 1e-9]

    def trust(self) -> float:
        """Computes how far differences between predictions are confirmed by differences between outcomes, in [0, 1].

            b = cov(p, Y) / var(p)        trust = b - 2 standard errors, clipped

        The slope of the outcomes on the predictions is 1 for a calibrated critic, 0 for one that knows nothing, and
        between for one that is overconfident. The standard error counts an episode once, however many of its prefixes
        were predicted; a critic that says the same everywhere, or has fewer than 32 episodes behind it, is trusted
        with nothing.
        """
        p, y, w = self._entries.T
        total = float(w.sum())
        if total < _FEW:
            return 0.0
        dp, dy = p - (w @ p) / total, y - (w @ y) / total
        variance = float(w @ dp**2) / total
        if variance < 1e-6:
            return 0.0
        slope = float(w @ (dp * dy)) / total / variance
        rest = float(w @ (dy - slope * dp) ** 2) / total
        return float(np.clip(slope - 2.0 * np.sqrt(rest / (total * variance)), 0.0, 1.0))

    def calibration(self) -> Calibration | None:
        """Scores the kept predictions; `None` where there is none."""
        p, y, w = self._entries.T
        return calibration_of(p, y, w) if w.sum() > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """Returns the kept predictions."""
        return {"entries": self._entries}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the state that `state_dict` gave."""
        self._entries = np.asarray(state["entries"], dtype=np.float64)


def scores_of(p: FloatArray, y: FloatArray, w: FloatArray) -> dict[str, float]:
    """Cross-entropy and calibration of predictions made before their outcomes were known."""
    if w.sum() <= 0:
        return {}
    score, q = calibration_of(p, y, w), np.clip(p, 1e-7, 1 - 1e-7)
    entropy = -float((w * (y * np.log(q) + (1 - y) * np.log1p(-q))).sum() / w.sum())
    found = {"loss": entropy, "brier": score.brier, "ece": score.error, "auroc": score.auroc, "success": score.rate}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def thin_out(groups: IntArray, weights: FloatArray, most: int) -> tuple[IntArray, FloatArray]:
    """Picks at most `most` evenly spaced entries of every group, its first among them; they take over its weight.

    Args:
        groups: `[A]` ascending, the group of each entry.
        weights: `[A]`
        most: entries per group.

    Returns:
        Indices `[K]` and their weights `[K]`.
    """
    if not len(groups):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    _, start, counts = np.unique(groups, return_index=True, return_counts=True)
    picked = [s + (np.arange(min(n, most)) * n) // min(n, most) for s, n in zip(start, counts, strict=True)]
    shares = [np.full(len(i), weights[s : s + n].sum() / len(i)) for i, s, n in zip(picked, start, counts, strict=True)]
    return np.concatenate(picked), np.concatenate(shares)


def draw_reliability(record: TrackRecord, path: Path, *, bins: int = 10) -> None:
    """Draws how often episodes succeeded by how probable the critic had called it, and how often it said what.

    Args:
        record: predictions with outcomes; nothing is drawn where it is empty.
        path: of the PNG.
        bins: equally wide ranges of predictions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    score = record.calibration()
    if score is None:
        return
    p, y, w = record.entries.T
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    weight, said, came = (np.bincount(place, values, bins) for values in (w, w * p, w * y))
    used = weight > 0
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    above.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    above.plot(said[used] / weight[used], came[used] / weight[used], "o-", color="#1f5f8b", linewidth=2)
    above.set(ylabel="share that succeeded", xlim=(0, 1), ylim=(0, 1))
    above.set_title(
        f"critic before it learned: Brier {score.brier:.3f}, ECE {score.error:.3f}, {score.count:.0f} episodes",
        fontsize=10,
    )
    below.bar((np.arange(bins) + 0.5) / bins, weight / weight.sum(), width=0.9 / bins, color="#9db4c8")
    below.set(xlabel="predicted probability of success", ylabel="share")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as part:
        figure.savefig(part, dpi=150, format="png")
