"""Success predicted against success realized: TRACE's text predictor, replayed over saved trees in their order.

Files do not hold what a predictor said while they were made, except at forks that it chose. So it is asked again: each
tree is predicted by a `HashedPredictor` that has learned from the trees before it, and from nothing else.
"""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentenv.credit import HashedPredictor
from agentenv.credit.calibration import calibration_of
from agentenv.credit.predictor import predictor_targets
from agentenv.tree import EpisodeTree
from agentenv.types import message_text

from .sources import Run, TreeFile

__all__ = ["Predictions", "calibration_bins"]

FloatArray = NDArray[np.float64]

_MOST = 30_000_000
"""Characters that are read again for the prefixes of one tree; trees with more are not predicted."""

BINS = 10


class Predictions:
    """Predicted success at the nodes of a run's trees.

    Args:
        run: the run; what its files said before is not asked again when it grows.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._settled: dict[TreeFile, list[_Predicted]] = {}
        self._predictor = HashedPredictor()
        self._last: tuple[TreeFile, list[_Predicted]] | None = None

    def of(self, file: TreeFile) -> list[FloatArray]:
        """Returns `[N]` per tree of a file; NaN at leaves and where nothing was predicted."""
        return [entry[0] for entry in self._everything().get(file, [])]

    def pairs(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Returns predicted success, realized share and trajectories behind it, `[A]` each, of all trees."""
        found = [entry for entries in self._everything().values() for entry in entries]
        empty = np.zeros(0)
        return tuple(np.concatenate([empty, *(entry[k] for entry in found)]) for k in (1, 2, 3))  # type: ignore[return-value]

    def _everything(self) -> "dict[TreeFile, list[_Predicted]]":
        files = self._run.files
        if list(self._settled) != list(files[: len(self._settled)]) or len(self._settled) >= max(len(files), 1):
            self._settled, self._predictor = {}, HashedPredictor()
        for file in files[len(self._settled) : -1]:
            self._settled[file] = [_ask(self._predictor, tree) for tree in self._run.trees(file)]
        if not files:
            return {}
        if self._last is None or self._last[0] != files[-1]:  # it may still grow: what was learned of it is not kept
            trial = copy.deepcopy(self._predictor)
            self._last = (files[-1], [_ask(trial, tree) for tree in self._run.trees(files[-1])])
        return self._settled | {self._last[0]: self._last[1]}


_Predicted = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
"""Per node; then predicted, realized and weight of the nodes that have something below them."""


def _ask(predictor: HashedPredictor, tree: EpisodeTree) -> _Predicted:
    """Predicts a tree, then learns from it."""
    values = np.full(len(tree), np.nan)
    none = np.zeros(0)
    if _reading(tree) > _MOST:
        return values, none, none, none
    prefixes, targets, weights = predictor_targets([tree])
    if not prefixes:
        return values, none, none, none
    said = predictor.predict(prefixes)
    predictor.update(prefixes, targets, weights)
    arrays = tree.arrays()
    values[np.flatnonzero(~arrays.is_leaf & (arrays.leaf_counts > 0))] = said
    return values, said, targets, weights


def _reading(tree: EpisodeTree) -> int:
    """How many characters `prefix_at` reads for all nodes: every path again."""
    sizes = [sum(len(message_text(m)) for m in node.observation) for node in tree.nodes]
    below = [1] * len(tree)
    for i in range(len(tree) - 1, 0, -1):
        below[tree.nodes[i].parent] += below[i]
    return sum(size * count for size, count in zip(sizes, below, strict=True))


def calibration_bins(predicted: FloatArray, realized: FloatArray, weights: FloatArray) -> dict[str, Any] | None:
    """Returns the reliability diagram: per bin the mean prediction, the share of successes and the trajectories.

    Returns:
        `bins`, and the scores of `calibration_of`: `brier`, `error`, `auroc`, `count`; `None` without a prediction.
    """
    if not weights.sum() > 0:
        return None
    place = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    sums = [np.bincount(place, value, BINS) for value in (weights, weights * predicted, weights * realized)]
    bins = [
        {"predicted": float(p / w), "realized": float(r / w), "count": float(w)}
        for w, p, r in zip(*sums, strict=True)
        if w > 0
    ]
    score = calibration_of(predicted, realized, weights, bins=BINS)
    auroc = float(score.auroc) if np.isfinite(score.auroc) else None
    return {"bins": bins, "brier": score.brier, "error": score.error, "auroc": auroc, "count": score.count}
