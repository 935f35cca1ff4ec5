"""Pass@k and max@k against enumeration, exact arithmetic and simulation."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest

from agentenv.credit import max_at_k, pass_at_k


def test_by_hand():
    np.testing.assert_allclose(pass_at_k(5, np.arange(6), 3), [0, 0.6, 0.9, 1, 1, 1])


def test_enumeration():
    for n in range(1, 9):
        for c in range(n + 1):
            for k in range(1, n + 1):
                hits = sum(min(subset) < c for subset in combinations(range(n), k))
                assert pass_at_k(n, c, k) == pytest.approx(hits / comb(n, k), abs=1e-14)


@pytest.mark.parametrize("n", [200, 3000, 10**6, 10**9])
def test_exact_arithmetic_at_large_n(n):
    for c in [1, 2, 63, 64, 65, n // 100 + 66, n // 2, n - 70, n - 3, n]:
        for k in [1, 2, 64, 65, 130, n // 1000 + 1, n // 50]:
            miss = Fraction(1)
            for j in range(min(c, k)):
                miss *= Fraction(max(n - max(c, k) - j, 0), n - j)
                if j > 300:
                    break
            else:
                expected = float(1 - miss)
                assert pass_at_k(n, c, k) == pytest.approx(expected, rel=1e-12), (n, c, k)


def test_is_unbiased_and_monotone():
    p, n, k = 0.3, 10, 4
    weights = np.array([comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)])
    assert weights @ pass_at_k(n, np.arange(n + 1), k) == pytest.approx(1 - (1 - p) ** k, abs=1e-14)
    grid = pass_at_k(10**6, np.arange(0, 10**6, 997), 1000)
    assert (np.diff(grid) >= 0).all()


def test_max_at_k_is_the_mean_over_subsets():
    rewards = np.array([0.3, -1.0, 2.0, 0.3, 5.0, 1.0])
    for k in range(1, 7):
        expected = np.mean([max(subset) for subset in combinations(rewards, k)])
        assert max_at_k(rewards, k) == pytest.approx(expected)
    assert max_at_k([1, 0, 0, 1, 0], 3) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 6, 1), r"c must be in \[0, n\]; entry 0 is 6"),
        ((5, 1, 6), r"k must be in \[1, n\].*entry 0 is 6"),
        ((5, 1, 0), "k must be in"),
        ((0, 0, 1), "n must be at least 1"),
        ((5, 1.5, 1), "c must be a whole number; entry 0 is 1.5"),
        ((5, [1, np.nan], 1), "c must be a whole number; entry 1 is nan"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(*arguments)
