"""Sums and means of entries that share a number.

Letters: `n` entries, `K` groups.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["group_means", "group_sums", "ratio"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Numbers = NDArray[np.float64] | NDArray[np.int64] | NDArray[np.bool_]


def group_sums(ids: IntArray, values: Numbers, size: int) -> FloatArray:
    """Sums `values [n]` over equal `ids [n]` in [0, size), giving `[K] = [size]`."""
    total: NDArray[np.number] = np.bincount(ids, values, size)
    return total.astype(np.float64, copy=False)


def group_means(ids: IntArray, values: FloatArray, weights: FloatArray, size: int) -> FloatArray:
    """Averages `values [n]` over equal `ids [n]` with `weights [n]`, giving `[K]`, 0 where nothing weighs."""
    return ratio(group_sums(ids, values * weights, size), group_sums(ids, weights, size))


def ratio(total: Numbers, count: Numbers) -> FloatArray:
    """Divides elementwise, giving 0 where `count` is 0 or less."""
    return np.divide(total, count, out=np.zeros(np.shape(total)), where=count > 0)
