"""Solving `x = start + step @ x` on the graphs that merged states make."""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# scipy.sparse is typed in part.

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import spsolve

from .groups import group_largest

__all__ = ["solve_fixed_point"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_MAX_SWEEPS = 500


def solve_fixed_point(step: csr_array, start: FloatArray, groups: IntArray, *, tolerance: float = 1e-10) -> FloatArray:
    """Solves `x = start + step @ x`, for a `step` whose powers vanish.

    Sweeps converge exactly after as many of them as an acyclic graph is deep; where cycles make them slow, a sparse
    factorization takes over.

    Args:
        step: `[S, S]`
        start: `[S]`
        groups: `[S]` numbers 0, 1, ...; `step` leads from none to another, and each is solved to its own precision.
        tolerance: of the last sweep's change, relative to the group's largest entry of `start` and `x`.

    Returns:
        `[S]`
    """
    size = int(groups.max(initial=-1)) + 1
    values, largest = start, group_largest(groups, start, size)
    for _ in range(_MAX_SWEEPS):
        updated = np.asarray(start + step @ values, dtype=np.float64)
        change = group_largest(groups, updated - values, size)
        values = updated
        if (change <= 1e-3 * tolerance * np.maximum(largest, group_largest(groups, values, size))).all():
            return values
    system = (eye_array(len(start), format="csr") - step).tocsc()
    return np.asarray(spsolve(system, start), dtype=np.float64)
