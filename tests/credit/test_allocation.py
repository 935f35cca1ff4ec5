"""Allocators against exact dynamic programming, a heap, simulation and worked numbers."""

import heapq
import itertools

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import allocate_prefixes, allocate_roots, allocate_uniform, effective_ratio
from agentenv.credit.trace import prefix_contrast, prefixes_of, root_contrast, success_shares

EIGHT = [0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.95, 0.99]


def best_value(value, budget, minimum, maximum):
    """Exact dynamic programming over `value [A, K]` of giving k units to item i."""
    best = np.full(budget + 1, -np.inf)
    best[0] = 0.0
    for row in value:
        new = np.full(budget + 1, -np.inf)
        for k in range(minimum, min(maximum, budget) + 1):
            new[k:] = np.maximum(new[k:], best[: budget + 1 - k] + row[k])
        best = new
    return best.max()


def test_roots_worked_example():
    allocation = allocate_roots(EIGHT, budget=32)
    assert allocation.counts.tolist() == [0, 3, 9, 6, 5, 6, 3, 0]
    assert allocation.value == pytest.approx(3.598, abs=5e-4)
    assert root_contrast(EIGHT, np.full(8, 4)).sum() == pytest.approx(3.172, abs=5e-4)


@pytest.mark.parametrize("seed", range(300))
def test_roots_equal_dynamic_programming(seed):
    rng = np.random.default_rng(seed)
    size, budget = int(rng.integers(1, 7)), int(rng.integers(0, 22))
    minimum, maximum = [(0, 30), (0, 4), (0, 3), (0, 2), (1, 30), (2, 5)][seed % 6]
    v = np.round(rng.random(size), 1 if seed % 2 else 6)
    if budget < minimum * size:
        with pytest.raises(ValueError, match="budget must be finite and at least the minimum"):
            allocate_roots(v, budget=budget, minimum=minimum, maximum=maximum)
        return
    table = np.array([root_contrast(np.full(31, p), np.arange(31)) for p in v])
    allocation = allocate_roots(v, budget=budget, minimum=minimum, maximum=maximum)
    assert allocation.value == pytest.approx(best_value(table, budget, minimum, maximum), abs=1e-12)
    assert allocation.total <= budget
    assert ((allocation.counts >= minimum) & (allocation.counts <= maximum)).all()
    assert allocation.value == pytest.approx(table[np.arange(size), allocation.counts].sum())


@pytest.mark.parametrize("seed", range(40))
def test_prefixes_equal_a_heap(seed):
    rng = np.random.default_rng(seed)
    size, budget, maximum = int(rng.integers(1, 40)), int(rng.integers(0, 200)), [None, 3][seed % 2]
    v, r = rng.random(size), rng.integers(0, 2, size)
    q = r * v + (1 - r) * (1 - v)
    heap, counts = [(-(1 - q[i]), i) for i in range(size)], np.zeros(size, int)
    heapq.heapify(heap)
    for _ in range(budget):
        if not heap:
            break
        _, i = heapq.heappop(heap)
        counts[i] += 1
        if maximum is None or counts[i] < maximum:
            heapq.heappush(heap, (-(q[i] ** counts[i]) * (1 - q[i]), i))
    allocation = allocate_prefixes(v, r, budget=budget, maximum=maximum)
    assert allocation.counts.tolist() == counts.tolist()
    assert allocation.value == pytest.approx(prefix_contrast(v, r, counts).sum())


@pytest.mark.parametrize("seed", range(30))
def test_group_caps_equal_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    v, r, groups = rng.random(5), rng.integers(0, 2, 5), np.array([7, 7, 3, 3, 3])
    budget, cap, group_cap = int(rng.integers(0, 8)), 3, int(rng.integers(0, 4))
    best = max(
        prefix_contrast(v, r, counts).sum()
        for counts in itertools.product(range(cap + 1), repeat=5)
        if sum(counts) <= budget and sum(counts[:2]) <= group_cap and sum(counts[2:]) <= group_cap
    )
    allocation = allocate_prefixes(v, r, budget=budget, maximum=cap, groups=groups, group_maximum=group_cap)
    assert allocation.value == pytest.approx(best, abs=1e-12)
    assert allocation.counts[:2].sum() <= group_cap
    assert allocation.counts[2:].sum() <= group_cap


def test_costs_are_within_one_unit_of_the_optimum():
    rng = np.random.default_rng(0)
    for _ in range(30):
        v, r, costs = rng.random(4), rng.integers(0, 2, 4), rng.integers(1, 6, 4)
        budget = int(rng.integers(1, 25))
        allocation = allocate_prefixes(v, r, budget=budget, costs=costs, maximum=10)
        assert (allocation.counts * costs).sum() <= budget
        best = max(
            prefix_contrast(v, r, counts).sum()
            for counts in itertools.product(range(11), repeat=4)
            if (np.array(counts) * costs).sum() <= budget
        )
        q = r * v + (1 - r) * (1 - v)
        assert best - (1 - q).max() <= allocation.value <= best + 1e-12
    assert allocate_roots(EIGHT, budget=100.0, costs=np.arange(1.0, 9.0)).total > 0


def test_contrast_equals_simulation():
    rng = np.random.default_rng(0)
    draws = rng.random((200_000, 5)) < 0.3
    mixed = draws.any(1) & ~draws.all(1)
    assert root_contrast([0.3], [5])[0] == pytest.approx(mixed.mean(), abs=0.005)
    assert prefix_contrast([0.3], [0], [5])[0] == pytest.approx(draws.any(1).mean(), abs=0.005)
    assert prefix_contrast([0.3], [1], [5])[0] == pytest.approx((~draws).any(1).mean(), abs=0.005)


def test_certain_anchors_get_nothing():
    assert allocate_roots([0, 1, 0.5], budget=100, maximum=8).counts.tolist() == [0, 0, 8]
    assert allocate_prefixes([0, 1, 0.5], [0, 1, 0], budget=100, maximum=8).counts.tolist() == [0, 0, 8]


@pytest.mark.parametrize("seed", range(10))
def test_prefixes_without_outcomes_equal_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    v, budget = rng.random(3), int(rng.integers(1, 8))
    plan = allocate_prefixes(v, budget=budget)
    best = max(
        sum(root_contrast([p], [k + 1])[0] for p, k in zip(v, counts, strict=True))
        for counts in itertools.product(range(budget + 1), repeat=3)
        if sum(counts) == budget
    )
    assert plan.value == pytest.approx(best)
    assert plan.total == budget
    assert allocate_prefixes(v, budget=budget, maximum=2).counts.max() <= 2


def test_prefixes_without_outcomes_do_not_depend_on_which_side_is_success():
    plan = allocate_prefixes([0.1, 0.9, 0.5, 0.0, 1.0], budget=10)
    assert abs(plan.counts[0] - plan.counts[1]) <= 1  # the last of an odd number
    assert min(plan.counts[:3]) > 0
    assert plan.counts[3:].tolist() == [0, 0]


@pytest.mark.parametrize("success", [np.full(1000, 0.3), np.full(1000, 1 - 1e-13), np.full(1000, 1e-200)])
def test_ties_and_plateaus_are_spread_evenly(success):
    counts = allocate_prefixes(success, np.ones(1000), budget=2500).counts
    assert counts.sum() <= 2500
    assert np.ptp(counts) <= 1


def test_uniform():
    assert allocate_uniform(3, budget=8).counts.tolist() == [3, 3, 2]
    assert allocate_uniform([4, 9], budget=8, maximum=3).items() == [(4, 3), (9, 3)]
    assert allocate_uniform(0, budget=5).total == 0


TREE = TreeArrays.build(
    parents=[-1, 0, 1, 2, 0, 4, 4, -1, 7, 8],
    rewards=[0, 0, 0, 1, 0, 0, 1, 0, 0, 0],
    tree_ids=[0] * 7 + [1] * 3,
)


def test_prefixes_and_targets_of_a_tree():
    np.testing.assert_allclose(success_shares(TREE), [3 / 4, 1, 1, 1, 0.5, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(success_shares(TREE, weights="counts")[0], 2 / 3)
    assert success_shares(TREE, threshold=1).tolist() == [0] * 10
    prefixes = prefixes_of(TREE)
    assert prefixes.nodes.tolist() == [1, 2, 8]
    assert prefixes.outcomes.tolist() == [1, 1, 0]
    assert prefixes_of(TREE, mixed=True).nodes.tolist() == [1, 2, 4, 8]
    assert effective_ratio(TREE) == 0.5
    chosen = allocate_prefixes([0.5, 0.9, 0.1], prefixes.outcomes, budget=2, anchors=prefixes.nodes)
    assert chosen.items() == [(1, 2)]
    assert allocate_uniform(prefixes.nodes, budget=3).in_trees(TREE) == [(0, 1, 1), (0, 2, 1), (1, 1, 1)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: allocate_roots([0.5, 1.5], budget=4),
            r"must be probabilities in \[0, 1\]; success\[1\] is 1.5",
        ),
        (lambda: allocate_roots([0.5, np.nan], budget=4), r"success\[1\] is nan"),
        (lambda: allocate_roots([0.5] * 3, budget=5, minimum=2), "at least the minimum of 6, got 5"),
        (lambda: allocate_roots([0.5], budget=-1), "budget must be finite"),
        (lambda: allocate_roots([0.5], budget=4, minimum=3, maximum=2), "maximum must be at least minimum"),
        (lambda: allocate_roots([0.5], budget=4, costs=[0]), "costs must be 1 positive finite numbers"),
        (lambda: allocate_prefixes([0.5], [1, 0], budget=1), "one length, got 1 and 2"),
        (lambda: allocate_prefixes([0.5], [1], budget=1, anchors=[1, 2]), "anchors must have shape"),
        (lambda: allocate_prefixes([0.5], [1], budget=1, group_maximum=2), "group_maximum needs groups"),
        (lambda: allocate_uniform(3, budget=-1), "budget must be finite and at least the minimum of 0, got -1"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
