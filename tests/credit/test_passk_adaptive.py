"""The rule for k: by hand, as an equation, and its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.credit import adaptive_k
from agentenv.credit.passk_tree import passk_values


def test_by_hand():
    # 1 - (1 - 1/4)^k = 1/2
    assert adaptive_k([0.25, 0.25]) == pytest.approx(np.log(0.5) / np.log(0.75), rel=1e-12)
    # half of the prompts are certain: one attempt solves half of all
    assert adaptive_k([1.0, 0.0, 1.0, 0.0]) == 1.0
    # (1 - 0.5^k + 1 - 0.9^k) / 2 = 1/2 where 0.5^k + 0.9^k = 1
    k = adaptive_k([0.5, 0.1])
    assert 0.5**k + 0.9**k == pytest.approx(1.0, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.05, 0.95), st.floats(1, 200))
def test_it_solves_its_equation_or_is_at_a_bound(success, share, maximum):
    k = adaptive_k(success, share=share, maximum=maximum)
    solved = float(passk_values(success, k).mean())
    assert 1 <= k <= maximum
    assert k == maximum or solved >= share - 1e-9
    assert k == 1 or solved <= share + 1e-9


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=10), st.floats(0, 0.5))
def test_a_better_policy_needs_no_more_attempts(success, gain):
    better = np.minimum(np.array(success) + gain, 1.0)
    assert adaptive_k(better) <= adaptive_k(success) + 1e-9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one prompt"),
        (([0.5, 1.5],), "entry 1 is 1.5"),
        (([0.5, float("nan")],), "entry 1 is nan"),
    ],
)
def test_refuses_prompts(arguments, message):
    with pytest.raises(ValueError, match=message):
        adaptive_k(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share must be strictly between 0 and 1, got 0.0"),
        ({"share": 1.0}, "got 1.0"),
        ({"maximum": 0.5}, "maximum must be at least 1"),
        ({"maximum": np.inf}, "maximum must be finite"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        adaptive_k([0.5], **options)
