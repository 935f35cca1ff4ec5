"""Solving `x = start + step @ x` on the graphs that merged states make."""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# scipy.sparse is typed in part.

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import spsolve

__all__ = ["solve_fixed_point"]

FloatArray = NDArray[np.float64]

_MAX_SWEEPS = 500


def solve_fixed_point(step: csr_array, start: FloatArray, *, tolerance: float = 1e-10) -> FloatArray:
    """Solves `x = start + step @ x`, for a `step` whose powers vanish.

    Sweeps converge exactly after as many of them as an acyclic graph is deep; where cycles make them slow, a sparse
    factorization takes over.

    Args:
        step: `[S, S]`
        start: `[S]`
        tolerance: of the last sweep's change, relative to the largest entry of `start` and `x`.

    Returns:
        `[S]`
    """
    values, largest = start, float(np.abs(start).max(initial=0.0))
    for _ in range(_MAX_SWEEPS):
        updated = np.asarray(start + step @ values, dtype=np.float64)
        change = np.abs(updated - values).max(initial=0.0)
        values = updated
        if change <= 1e-3 * tolerance * max(largest, float(np.abs(values).max(initial=0.0))):
            return values
    system = (eye_array(len(start), format="csr") - step).tocsc()
    return np.asarray(spsolve(system, start), dtype=np.float64)
