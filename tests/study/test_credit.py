"""Question 1: what is measured of credit does not depend on what should not matter."""

import pytest

from agentenv.credit import certify, dr_grpo_advantages, rloo_advantages
from benchmarks.study.tabular import PROBLEMS


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_factor_changes_no_cosine_of_an_update(name):
    """Without forks RLOO is Dr.GRPO times 8/7; an update that is silent but for rounding would tell them apart."""
    problem = PROBLEMS[name]()
    scores = [certify(one, problem, rollouts=4096, seed=1) for one in (dr_grpo_advantages, rloo_advantages)]
    assert scores[0].cosine == pytest.approx(scores[1].cosine, abs=1e-9)
    assert scores[0].correlation == pytest.approx(scores[1].correlation)
