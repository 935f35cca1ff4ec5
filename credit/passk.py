"""Pass@k and max@k: the chance that the best of k samples succeeds, estimated from n samples without bias."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from .checks import is_whole

__all__ = ["log_miss_probability", "max_at_k", "pass_at_k"]

FloatArray = NDArray[np.float64]

_SHORT = 64  # products up to this many factors are multiplied out; Stirling's series is used above


def pass_at_k(n: ArrayLike, c: ArrayLike, k: ArrayLike) -> FloatArray:
    """Estimates Pass@k from n samples of which c succeeded, without bias.

        pass@k = 1 - C(n - c, k) / C(n, k)

    the share of subsets of size k that hold at least one success. Source: Chen et al. 2021 (arXiv 2107.03374), Eq. 1.
    Relative error below 1e-12 up to n = 10^9, for small and large results alike; no loop over samples.

    Args:
        n: samples, at least 1; any shape, all three broadcast.
        c: successes among them, in [0, n].
        k: subset size, in [1, n].

    Raises:
        ValueError: a value outside its range.

    Returns:
        `float64` in [0, 1], of the broadcast shape.
    """
    samples, hits, size = _counts(n, c, k)
    _refuse(samples < 1, "n", samples, "must be at least 1")
    _refuse((hits < 0) | (hits > samples), "c", hits, "must be in [0, n]")
    _refuse((size < 1) | (size > samples), "k", size, "must be in [1, n]: a subset cannot be larger than the sample")
    return -np.expm1(log_miss_probability(samples, hits, size))


def log_miss_probability(n: FloatArray, c: FloatArray, k: FloatArray) -> FloatArray:
    """Computes `log(C(n - c, k) / C(n, k))`: the chance that k of n draws miss all c successes, as a logarithm.

    The expression is symmetric in c and k. Three ways by size: a product of min(c, k) factors; Stirling's series, in
    which the large terms cancel exactly; `gammaln` where few failures remain, since the chance is then tiny.

    Args:
        n: whole numbers.
        c: whole numbers of the same shape, at most n.
        k: whole numbers of the same shape, at most n.

    Returns:
        of the same shape, `-inf` where c + k > n.
    """
    out = np.full(np.shape(n), -np.inf)
    few, many = np.minimum(c, k), np.maximum(c, k)
    possible = c + k <= n
    short = possible & (few <= _SHORT)
    out[short] = _product(n[short], few[short], many[short])
    rest = n - c - k
    series = possible & ~short & (rest >= _SHORT)
    out[series] = _stirling(n[series], c[series], k[series])
    tail = possible & ~short & ~series
    a, b, d = (n - c)[tail] + 1, (n - k)[tail] + 1, rest[tail] + 1
    out[tail] = gammaln(a) + gammaln(b) - gammaln(d) - gammaln(n[tail] + 1)
    return out


def max_at_k(rewards: ArrayLike, k: int) -> float:
    """Estimates the expected maximum reward of k samples from n >= k samples, without bias.

        max@k = (1 / C(n, k)) sum_{i >= k} C(i - 1, k - 1) g_i        with g_1 <= ... <= g_n

    the mean over subsets of size k of their maximum; for rewards 0 and 1 it is `pass_at_k`. Source: PKPO
    (arXiv 2505.15201).

    Args:
        rewards: `[n]` finite.
        k: in [1, n].
    """
    ascending = np.sort(np.asarray(rewards, dtype=np.float64))
    _refuse(~np.isfinite(ascending), "rewards", ascending, "must be finite")
    count = len(ascending)
    if not is_whole(k) or not 1 <= k <= count:
        msg = f"k must be a whole number in [1, n] = [1, {count}], got {k!r}"
        raise ValueError(msg)
    rank = np.arange(1, count + 1, dtype=np.float64)
    largest = np.full(count, float(count))
    not_above = np.exp(log_miss_probability(largest, count - rank, np.full(count, float(k))))
    weight = np.diff(not_above, prepend=0.0)
    return float(weight @ ascending)


def _product(n: FloatArray, few: FloatArray, many: FloatArray) -> FloatArray:
    """Sums `log(1 - many / (n - j))` for j below `few`."""
    total = np.zeros(len(n))
    for j in range(int(few.max(initial=0.0))):
        live = few > j
        with np.errstate(divide="ignore"):
            total[live] += np.log1p(-many[live] / (n[live] - j))
    return total


def _stirling(n: FloatArray, c: FloatArray, k: FloatArray) -> FloatArray:
    """Evaluates log Gamma(x + 1) = (x + 1/2) log x - x + 1/(12 x) - ... at the four corners a, b, d and n.

    With d n = a b - c k the large terms cancel by hand: what is left is of the size of the result, -c k / n.
    """
    a, b, d = n - c, n - k, n - c - k

    def tail(x: FloatArray) -> FloatArray:
        return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / x**2) / x**2) / x**2) / x

    main = k * np.log1p(-c / n) + c * np.log1p(-k / n) - (d + 0.5) * np.log1p(-c / a * (k / b))
    return main + tail(a) + tail(b) - tail(d) - tail(n)


def _counts(n: ArrayLike, c: ArrayLike, k: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    values = {"n": n, "c": c, "k": k}
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    for name, array in arrays.items():
        _refuse(~np.isfinite(array) | (array != np.floor(array)), name, array, "must be a whole number")
    samples, hits, size = np.broadcast_arrays(arrays["n"], arrays["c"], arrays["k"])
    return samples, hits, size


def _refuse(bad: NDArray[np.bool_], name: str, values: FloatArray, rule: str) -> None:
    if np.any(bad):
        index = int(np.argmax(bad))
        msg = f"{name} {rule}; entry {index} is {np.ravel(values)[index]:g}"
        raise ValueError(msg)
