"""Random numbers by counter: the noise of a token depends on its seed and its place, on nothing else."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["uniforms"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


def uniforms(seeds: Sequence[int], count: int) -> NDArray[np.float64]:
    """Computes `count` uniform numbers per seed, each a function of the seed and its index alone.

    `u[i, t] = mix(mix(seed_i) + (t + 1) * golden) / 2**64`, with `mix` the finalizer of SplitMix64 (Steele, Lea and
    Flood 2014, "Fast splittable pseudorandom number generators", section 5), rounded down to 53 bits.

    Args:
        seeds: `[B]` any integers; they count modulo 2**64.
        count: how many numbers per seed, `L`.

    Returns:
        `float64 [B, L]` in [0, 1).
    """
    keys = np.array([seed & _MASK for seed in seeds], dtype=np.uint64)
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(_mix(keys + _GOLDEN)[:, None] + steps[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
