"""The other allocation rules: by hand, against their formulas and by exhaustive search."""

import itertools

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import allocate_arpo, allocate_dynamic, allocate_pcl, allocate_random, allocate_vip


@pytest.mark.parametrize("seed", range(20))
def test_vip_equals_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    v, budget = rng.random(4), int(rng.integers(4, 14))
    allocation = allocate_vip(v, budget=budget, maximum=6)
    best = max(
        -sum(p * (1 - p) / n for p, n in zip(v, counts, strict=True))
        for counts in itertools.product(range(1, 7), repeat=4)
        if sum(counts) <= budget
    )
    assert allocation.value == pytest.approx(best)
    assert allocation.total <= budget


def test_vip_tends_to_the_square_root_rule():
    v = np.array([0.5, 0.2, 0.05, 0.9])
    share = np.sqrt(v * (1 - v))
    counts = allocate_vip(v, budget=10_000).counts
    np.testing.assert_allclose(counts / 10_000, share / share.sum(), atol=1e-3)


def test_pcl():
    allocation = allocate_pcl([0.9, 0.45, 0.1, 0.55, 0.5], prompts=3, group_size=8)
    assert allocation.counts.tolist() == [0, 8, 0, 8, 8]
    assert allocation.value == pytest.approx(-0.1 / 3)


def test_dynamic_sampling_replaces_degenerate_groups():
    # Four prompts tried, one mixed: two more wanted, one in four is mixed, so eight more groups.
    allocation = allocate_dynamic([8, 0, 3, 0] + [0] * 10, [8] * 4 + [0] * 10, wanted=3, group_size=8, budget=1000)
    assert allocation.counts.tolist() == [0] * 4 + [8] * 8 + [0] * 2
    assert allocation.value == pytest.approx(2)
    assert allocate_dynamic([0] * 5, [0] * 5, wanted=3, group_size=4, budget=9).counts.tolist() == [4, 4, 0, 0, 0]
    assert allocate_dynamic([3, 3], [8, 8], wanted=2, group_size=8, budget=99).total == 0


CHAINS = TreeArrays.build([-1, 0, 1, 2, 3, 0, 5, 6], [0] * 8)


def test_random_expansion_draws_inner_nodes_of_every_chain_evenly():
    hits = np.zeros(8)
    for seed in range(900):
        allocation = allocate_random(CHAINS, np.random.default_rng(seed), nodes=1, continuations=2)
        assert allocation.total == 4
        hits[allocation.anchors] += 1
    assert hits[[0, 4, 7]].tolist() == [0, 0, 0]  # neither the root nor leaves
    np.testing.assert_allclose(hits[[1, 2, 3]], 300, atol=60)
    np.testing.assert_allclose(hits[[5, 6]], 450, atol=60)
    assert allocate_random(CHAINS, np.random.default_rng(0), nodes=9).anchors.tolist() == [1, 2, 3, 5, 6]


def test_arpo_branches_where_entropy_rose():
    rng = np.random.default_rng(0)
    now, first = np.repeat([1.0, 2.0, 0.0], 4000), np.ones(12_000)
    counts = allocate_arpo(now, first, rng, budget=20_000).counts.reshape(3, -1)
    np.testing.assert_allclose(counts.mean(1), [0.5, 1.0, 0.0], atol=0.03)
    early = allocate_arpo(now, first, rng, budget=10)
    assert early.total == 10
    assert early.counts[:40].sum() == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: allocate_vip([0.5, 0.5], budget=1), "budget must be finite and at least the minimum of 2, got 1"),
        (lambda: allocate_vip([0.5], budget=5, minimum=0), "minimum must be at least 1"),
        (lambda: allocate_pcl([0.5], prompts=2, group_size=8), r"prompts must be in \[0, 1\]"),
        (lambda: allocate_pcl([0.5], prompts=1, group_size=0), "group_size must be at least 1"),
        (lambda: allocate_dynamic([2], [1], wanted=1, group_size=8, budget=8), r"successes must be in \[0, trials\]"),
        (lambda: allocate_dynamic([1], [1], wanted=1, group_size=1, budget=8), "group_size must be at least 2"),
        (lambda: allocate_random(CHAINS, np.random.default_rng(0), nodes=0), "nodes must be at least 1"),
        (lambda: allocate_arpo([1.0], [1.0, 2.0], np.random.default_rng(0), budget=1), "of one shape"),
        (lambda: allocate_arpo([1.0], [1.0], np.random.default_rng(0), budget=1, threshold=2), "threshold must be in"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
