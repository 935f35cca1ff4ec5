"""Medians with intervals, performance profiles, probability of improvement: the definitions of rliable.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (2108.13264). Letters: `R`
runs (seeds), `M` settings, `B` bootstrap samples. Runs are drawn with replacement within each setting (stratified), and
intervals are percentiles. Statistics take runs along the last axis, so that one call computes all samples: `[B, R]`.

Ours beside rliable's: with few runs such intervals are too narrow (of equals with 5 runs each, one comparison in ten
would say that they differ), so that a claim also has to pass a test by ranks; and runs of one seed, which meet the
same tasks, are drawn together where medians are subtracted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

__all__ = [
    "INCONCLUSIVE", "NO_DIFFERENCE", "TOO_FEW", "Interval", "difference", "interval_of", "iqm", "mean", "median",
    "probability_of_improvement", "profile", "rank_agreement", "verdict",
]  # fmt: skip

FloatArray = NDArray[np.float64]
Scores = Sequence[ArrayLike]
"""Scores by setting: `M` arrays `[R]`, which need not be as long as each other."""

SAMPLES = 2000
NO_DIFFERENCE = "no difference shown"
TOO_FEW = "too few runs"
INCONCLUSIVE = "inconclusive"
"""Said where an interval leaves out zero, and the test by ranks does not confirm it."""
ENOUGH = 3
"""So few runs claim nothing, whatever their interval."""
RARE = 0.05
"""Chance, at most, with which equals pass for different."""
PAIRS = 8
"""Fewer pairs of runs show little by their differences: then all runs of one method are told from all of the other."""
_SAME = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and its bootstrap interval.

    Attributes:
        value: of the runs themselves.
        low: lower end.
        high: upper end.
        runs: how many runs there are.
        chance: of a difference as large between equals; 0 where nothing is compared.
    """

    value: float
    low: float
    high: float
    runs: int
    chance: float = 0.0

    def __str__(self) -> str:
        ends = ", one run" if np.isinf(self.low) else f" [{_rounded(self.low)}, {_rounded(self.high)}]"
        return _rounded(self.value) + ends

    def holds(self, value: float) -> bool:
        """Whether a value is in the interval, its ends included; where nothing is known every value is."""
        return not (value < self.low or value > self.high)


def _rounded(value: float) -> str:
    """Writes a number with three decimals; one that these do not tell from 0, with the first digit that does."""
    if abs(value) <= _SAME:
        return "0.000"
    return f"{value:.1g}" if abs(value) < 0.0005 else f"{value:.3f}"


def interval_of(
    groups: Sequence[Scores],
    statistic: Callable[..., FloatArray],
    *,
    level: float = 0.95,
    samples: int = SAMPLES,
    seed: int = 0,
    paired: bool = False,
) -> Interval:
    """Computes a statistic of runs and its percentile bootstrap interval.

    Args:
        groups: what the statistic takes, one argument each: scores by setting.
        statistic: of the groups, each a list of arrays `[..., R]`, by setting; returns `[...]`.
        level: of the interval.
        samples: how often runs are drawn anew.
        seed: of the draws.
        paired: runs are in the order of their seeds, and those of one seed are drawn together; in a setting where
            groups are not as long as each other, each is drawn for itself.

    Raises:
        ValueError: a setting has no run, or `level` is not in (0, 1).
    """
    if not 0 < level < 1:
        msg = f"level must be in (0, 1), got {level}"
        raise ValueError(msg)
    arrays = [[np.asarray(scores, dtype=np.float64) for scores in group] for group in groups]
    if not arrays or not all(group and all(len(scores) for scores in group) for group in arrays):
        msg = "every setting must have at least one run: leave out what was not run yet"
        raise ValueError(msg)
    drawn = statistic(*_redrawn(arrays, samples, seed, paired=paired))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    runs = min(sum(map(len, group)) for group in arrays)
    if min(len(scores) for group in arrays for scores in group) < 2:
        low, high = -np.inf, np.inf  # one run says nothing of the next
    return Interval(float(statistic(*arrays)), float(low), float(high), runs)


def _redrawn(
    arrays: Sequence[Sequence[FloatArray]], samples: int, seed: int, *, paired: bool = False
) -> list[list[FloatArray]]:
    """Draws the runs of every setting anew, `[B, R]` each; sample by sample, so that more samples begin with the same.

    Args:
        arrays: `[R]` each, by group and setting.
        samples: how often.
        seed: of the draws.
        paired: groups are drawn alike in the settings where they are as long as each other.
    """
    sizes = [len(scores) for group in arrays for scores in group]
    index = np.random.default_rng(seed).integers(np.repeat(sizes, sizes), size=(samples, sum(sizes)))
    parts = iter(np.split(index, np.cumsum(sizes)[:-1], axis=1))
    drawn = [[next(parts) for _ in group] for group in arrays]
    if paired:
        drawn = [
            [first if first.shape == own.shape else own for first, own in zip(drawn[0], group, strict=True)]
            for group in drawn
        ]
    return [
        [scores[one] for scores, one in zip(group, own, strict=True)] for group, own in zip(arrays, drawn, strict=True)
    ]


def _chance(left: Sequence[FloatArray], right: Sequence[FloatArray], *, paired: bool) -> float:
    """Computes how often two methods that are equal would differ as much or more.

    Where there are enough pairs, signs of their differences are flipped at random, and compared is the sum of signed
    ranks of all (Wilcoxon's test); else labels are exchanged at random within settings, and compared is the
    probability of improvement (for one setting that is Mann and Whitney's test).
    """
    both, rng = list(zip(left, right, strict=True)), np.random.default_rng(1)
    if paired and all(len(x) == len(y) for x, y in both) and sum(map(len, left)) >= PAIRS:
        gaps = np.concatenate([x - y for x, y in both])
        ranks = np.where(gaps == 0, 0.0, rankdata(np.abs(gaps)))
        drawn = (2 * rng.integers(2, size=(SAMPLES, len(gaps))) - 1) @ ranks
        far = np.sign(gaps) @ ranks
    else:
        mixed = [
            (rng.permuted(np.broadcast_to(np.concatenate(pair), (SAMPLES, sum(map(len, pair)))), axis=1), len(pair[0]))
            for pair in both
        ]
        drawn = improvement([one[:, :n] for one, n in mixed], [one[:, n:] for one, n in mixed]) - 0.5
        far = improvement(left, right) - 0.5
    return float((1 + np.count_nonzero(np.abs(drawn) >= np.abs(far) - _SAME)) / (1 + SAMPLES))


def median(scores: Sequence[FloatArray]) -> FloatArray:
    """Computes the mean over settings of the median over runs."""
    return _over_settings([np.median(one, axis=-1) for one in scores])


def mean(scores: Sequence[FloatArray]) -> FloatArray:
    """Computes the mean over settings of the mean over runs."""
    return _over_settings([np.mean(one, axis=-1) for one in scores])


def iqm(scores: Sequence[FloatArray]) -> FloatArray:
    """Computes the interquartile mean: of all runs of all settings, the mean without the lowest and highest quarter."""
    ordered = np.sort(np.concatenate(list(scores), axis=-1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def improvement(left: Sequence[FloatArray], right: Sequence[FloatArray]) -> FloatArray:
    """Computes the mean over settings of `P(X > Y) + P(X = Y) / 2`, `X` a run of the left and `Y` one of the right."""
    return _over_settings([_exceeds(x, y) for x, y in zip(left, right, strict=True)])


def probability_of_improvement(left: Scores, right: Scores, **options: float) -> Interval:
    """Computes how probably a run of one method is better than one of another, with its interval; 0.5 is no difference.

    Args:
        left: scores by setting.
        right: of the other method, in the same settings.
        options: `level`, `samples`, `seed`, as for `interval_of`.
    """
    return _compared(left, right, improvement, paired=False, **options)


def difference(left: Scores, right: Scores, **options: float) -> Interval:
    """Computes the difference of the mean medians of two methods, with its interval.

    Args:
        left: scores by setting, in the order of the seeds.
        right: of the other method, in the same settings.
        options: `level`, `samples`, `seed`, as for `interval_of`.
    """
    return _compared(left, right, _gap, paired=True, **options)


def _compared(
    left: Scores, right: Scores, statistic: Callable[..., FloatArray], *, paired: bool, **options: Any
) -> Interval:
    found = interval_of([left, right], statistic, paired=paired, **options)
    ours, theirs = ([np.asarray(one, dtype=np.float64) for one in side] for side in (left, right))
    return replace(found, chance=_chance(ours, theirs, paired=paired))


def _gap(left: Sequence[FloatArray], right: Sequence[FloatArray]) -> FloatArray:
    return median(left) - median(right)


def profile(
    scores: Scores, thresholds: ArrayLike, *, level: float = 0.95, samples: int = SAMPLES, seed: int = 0
) -> FloatArray:
    """Computes a performance profile `[3, T]`: the share of runs above each threshold, and its lower and upper end.

    Settings count alike, however many runs they have.

    Args:
        scores: by setting.
        thresholds: `[T]`.
        level: of the interval of every point.
        samples: how often runs are drawn anew.
        seed: of the draws.
    """
    arrays, at = [np.asarray(one, dtype=np.float64) for one in scores], np.asarray(thresholds, dtype=np.float64)
    drawn = _shares(_redrawn([arrays], samples, seed)[0], at)
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.stack([_shares(arrays, at), *ends])


def verdict(interval: Interval, *, nothing: float = 0.0) -> str:
    """Says what an interval shows: `better`, `worse`, no difference shown, or that there are too few runs to say.

    Args:
        interval: of a difference.
        nothing: its value where there is no difference; 0.5 for a probability of improvement.
    """
    if interval.runs < ENOUGH or np.isinf(interval.low):
        return TOO_FEW
    if interval.holds(nothing) or interval.chance > RARE:
        return NO_DIFFERENCE
    return "better" if interval.value > nothing else "worse"


def rank_agreement(left: Sequence[FloatArray], right: Sequence[FloatArray]) -> FloatArray:
    """Computes Spearman's rank correlation over methods of medians over runs `[..., R]`; returns `[...]`."""
    x, y = (np.stack([np.median(one, axis=-1) for one in side], axis=-1) for side in (left, right))
    a, b = (_centered(rankdata(one, axis=-1)) for one in (x, y))
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.divide((a * b).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)


def _centered(values: FloatArray) -> FloatArray:
    return values - values.mean(axis=-1, keepdims=True)


def _over_settings(values: Sequence[FloatArray]) -> FloatArray:
    return np.stack(values, axis=-1).mean(axis=-1)


def _exceeds(left: FloatArray, right: FloatArray) -> FloatArray:
    halves = sum((np.sign(left[..., i, None] - right) + 1).sum(axis=-1) for i in range(left.shape[-1]))
    return np.asarray(halves) / (left.shape[-1] * right.shape[-1]) / 2


def _shares(scores: Sequence[FloatArray], thresholds: FloatArray) -> FloatArray:
    return np.mean([(one[..., None] > thresholds).mean(axis=-2) for one in scores], axis=0)
