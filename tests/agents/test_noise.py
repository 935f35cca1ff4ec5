"""Noise by counter: a function of seed and place, uniform, and unlike its neighbors."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agentenv.agents.noise import uniforms

seeds = st.integers(-(2**70), 2**70)


@given(st.lists(seeds, min_size=1, max_size=8), st.integers(1, 20), st.integers(0, 20))
def test_a_number_depends_on_its_seed_and_place_alone(values, count, more):
    together = uniforms(values, count + more)
    assert together.shape == (len(values), count + more)
    for row, seed in zip(together, values, strict=True):
        assert np.array_equal(row[:count], uniforms([seed], count)[0])


def test_reference_values():
    # SplitMix64 with seed 0 yields 0xE220A8397B1DCDAF first: mix(golden) (Steele et al. 2014; Vigna's reference code).
    first = 0xE220A8397B1DCDAF
    again = (first + 0x9E3779B97F4A7C15) & (2**64 - 1)
    again = ((again ^ (again >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    again = ((again ^ (again >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    again ^= again >> 31
    assert uniforms([0], 1)[0, 0] == (again >> 11) * 2.0**-53


def test_uniform_in_both_directions():
    block = uniforms(range(400), 400)
    assert block.min() >= 0
    assert block.max() < 1
    assert stats.kstest(block.ravel(), "uniform").pvalue > 0.001
    for a, b in ((block[:-1], block[1:]), (block[:, :-1], block[:, 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01  # 160,000 pairs: four standard deviations
