"""The table of benchmarks/weights_bias.py in small: which way the mean update points, by forks and by weights."""

from functools import cache, partial

import numpy as np
import pytest

from agentenv.credit import (
    certify,
    dr_grpo_advantages,
    gigpo_advantages,
    rloo_advantages,
    rtmc_advantages,
    step_reward_advantages,
    vine_ppo_advantages,
)
from agentenv.credit.certify import sample_chains, sample_forks, sample_random_forks
from agentenv.credit.problems import PROBLEMS

SAMPLERS = {
    "chains": sample_chains,
    "random": sample_random_forks,
    "seen": sample_forks,
    "unseen": partial(sample_forks, outcomes="unseen"),
}
EXACT = {
    "rloo": rloo_advantages,
    "step_reward": partial(step_reward_advantages, scale=False),
    "vine_ppo": vine_ppo_advantages,
    "rtmc_others": partial(rtmc_advantages, discount=1.0, baseline="others"),
}
NEAR = {
    "dr_grpo": dr_grpo_advantages,
    "gigpo": partial(gigpo_advantages, discount=1.0),
    "rtmc": partial(rtmc_advantages, discount=1.0),
    "rtmc_graph": partial(rtmc_advantages, discount=1.0, values="graph"),
}


@cache
def trees(problem, forks, batch):
    return SAMPLERS[forks](PROBLEMS[problem](), np.random.default_rng((3, batch)), 200, 8)


def score(estimator, problem, forks, weights):
    batches = iter(range(16))
    return certify(
        partial(estimator, weights=weights),
        PROBLEMS[problem](),
        sampler=lambda *_: trees(problem, forks, next(batches)),
        weights=weights,
    )


def agrees(found, low):
    return found.direction + found.direction_bound >= low


@pytest.mark.parametrize("forks", ["chains", "random", "unseen"])
@pytest.mark.parametrize("problem", ["sparse", "irrecoverable", pytest.param("tree", marks=pytest.mark.slow)])
def test_by_occupancy_choices_that_saw_no_outcome_bias_nothing(problem, forks):
    for name, estimator in EXACT.items():
        found = score(estimator, problem, forks, "occupancy")
        assert agrees(found, 1.0), (name, found)
        assert found.direction_bound < 0.03, (name, found)
    for name, estimator in NEAR.items():
        assert agrees(score(estimator, problem, forks, "occupancy"), 0.985), name


@pytest.mark.parametrize("problem", ["sparse", "irrecoverable"])
def test_by_counts_and_unique_they_do(problem):
    for weights in ("counts", "unique"):
        for name, estimator in (EXACT | NEAR).items():
            found = score(estimator, problem, "seen", weights)
            assert found.direction + found.direction_bound < 0.95, (name, weights, found)
            found = score(estimator, problem, "seen", "occupancy")
            assert found.direction > 0.975, (name, found)


def test_graph_weights_lower_bias_and_variance_where_states_recur():
    plain, merged = (score(rloo_advantages, "sparse", "seen", weights) for weights in ("occupancy", "graph"))
    assert merged.direction > plain.direction
    assert merged.cosine > plain.cosine + 0.01
    chains = score(rloo_advantages, "sparse", "chains", "graph")
    assert merged.cosine > chains.cosine - 0.02
