"""Sums, means and deviations of entries that share a number.

Letters: `n` entries, `K` groups.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["beyond_rounding", "group_largest", "group_means", "group_sums", "ratio", "scaled"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_ROUNDING = 1e-12
"""Of the largest entry: deviations that should be 0 are smaller, as sums and means of equal entries are rounded."""

Numbers = NDArray[np.float64] | NDArray[np.int64] | NDArray[np.bool_]


def group_sums(ids: IntArray, values: Numbers, size: int) -> FloatArray:
    """Sums `values [n]` over equal `ids [n]` in [0, size), giving `[K] = [size]`."""
    total: NDArray[np.number] = np.bincount(ids, values, size)
    return total.astype(np.float64, copy=False)


def group_means(ids: IntArray, values: FloatArray, weights: FloatArray, size: int) -> FloatArray:
    """Averages `values [n]` over equal `ids [n]` with `weights [n]`, giving `[K]`, 0 where nothing weighs."""
    return ratio(group_sums(ids, values * weights, size), group_sums(ids, weights, size))


def group_largest(ids: IntArray, values: FloatArray, size: int) -> FloatArray:
    """Finds the largest magnitude of `values [n]` over equal `ids [n]`, giving `[K]`, 0 for an empty group."""
    largest = np.zeros(size)
    np.maximum.at(largest, ids, np.abs(values))
    return largest


def ratio(total: Numbers, count: Numbers) -> FloatArray:
    """Divides elementwise, giving 0 where `count` is 0 or less."""
    return np.divide(total, count, out=np.zeros(np.shape(total)), where=count > 0)


def beyond_rounding(ids: IntArray, entries: FloatArray, deviations: FloatArray) -> FloatArray:
    """Returns the deviations `[K]` of groups, 0 where they are no more than the rounding of the `entries [n]`."""
    return np.where(deviations > _ROUNDING * group_largest(ids, entries, len(deviations)), deviations, 0.0)


def scaled(values: FloatArray, deviations: FloatArray, epsilon: float) -> FloatArray:
    """Divides values by the deviations of their groups plus epsilon, giving 0 where nothing deviates."""
    return ratio(values, np.where(deviations > 0, deviations + epsilon, 0.0))
