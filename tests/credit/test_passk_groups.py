"""PKPO and Pass@k training: every weight against enumeration of all subsets."""

from itertools import combinations

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import passk_training_advantages, pkpo_advantages, rloo_advantages


def group(*groups):
    """One tree per list of rewards, each trajectory one step."""
    parents, rewards, ids = [], [], []
    for tree, values in enumerate(groups):
        parents += [-1] + [len(parents)] * len(values)
        rewards += [0.0, *values]
        ids += [tree] * (len(values) + 1)
    return TreeArrays.build(parents, rewards, tree_ids=ids)


def leaves(result, tree):
    return result.advantages[~tree.is_root]


SIX = [0.3, -1.0, 2.0, 0.3, 5.0, 1.0]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("rewards", [SIX, [1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
def test_pkpo_equals_enumeration(rewards, k):
    n, tree = len(rewards), group(rewards, SIX, [1, 0, 1, 1, 1, 1, 0])
    subsets = list(combinations(range(n), k))
    total, gain = np.zeros(n), np.zeros(n)
    for subset in subsets:
        for i in subset:
            others = [rewards[j] for j in subset if j != i]
            best = max(rewards[j] for j in subset)
            total[i] += best
            gain[i] += best - (max(others) if others else np.mean([rewards[j] for j in range(n) if j != i]))
    plain = leaves(pkpo_advantages(tree, k=k, baseline="none"), tree)[:n]
    np.testing.assert_allclose(plain, total / len(subsets), atol=1e-12)
    np.testing.assert_allclose(leaves(pkpo_advantages(tree, k=k), tree)[:n], gain / len(subsets), atol=1e-12)


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("large", [1e6, -1e12, 1e300])
def test_pkpo_of_a_group_is_the_same_to_the_last_bit_beside_any_other(baseline, k, large):
    groups = [[0.1, 0.7, 0.7, 0.2], [large, 0.0, large / 3], [1, 0, 0, 1, 0], [-large, 0.0, large], SIX]
    tree = group(*groups)
    together = pkpo_advantages(tree, k=k, baseline=baseline).advantages
    for i in (0, 2, 4):
        alone = group(groups[i])
        expected = leaves(pkpo_advantages(alone, k=k, baseline=baseline), alone)
        np.testing.assert_array_equal(together[(tree.tree_ids == i) & ~tree.is_root], expected)


def test_pkpo_worked_numbers():
    tree = group([1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(leaves(pkpo_advantages(tree, k=3, baseline="none"), tree), [0.5] * 2 + [0.35] * 4)


def test_pkpo_special_cases():
    tree = group([0.0, 3.0, 1.0])
    np.testing.assert_allclose(leaves(pkpo_advantages(tree, k=3), tree), [0, 2, 0])  # lead over the second best
    np.testing.assert_allclose(leaves(pkpo_advantages(tree, k=1), tree), leaves(rloo_advantages(tree), tree) / 3)


def test_pkpo_weights_estimate_the_gradient_of_passk_without_bias():
    p, n, k = 0.3, 5, 3
    expected = 0.0
    for bits in range(2**n):
        outcome = [bits >> i & 1 for i in range(n)]
        chance = np.prod([p if o else 1 - p for o in outcome])
        score = np.array([1 / p if o else -1 / (1 - p) for o in outcome])  # d log pi / d p
        expected += chance * (pkpo_advantages(group(outcome), k=k).advantages[1:] @ score)
    assert expected == pytest.approx(k * (1 - p) ** (k - 1))


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_pass_at_k_training_equals_enumeration(k):
    outcomes = [1, 0, 0, 1, 0, 0, 0, 0]
    tree = group(outcomes, [0] * 8, [1] * 8)
    scores = {subset: float(any(outcomes[i] for i in subset)) for subset in combinations(range(8), k)}
    mean = np.mean(list(scores.values()))
    deviation = np.std(list(scores.values()))
    expected = [
        (np.mean([s for subset, s in scores.items() if i in subset]) - mean) / deviation if deviation else 0.0
        for i in range(8)
    ]
    np.testing.assert_allclose(
        leaves(passk_training_advantages(tree, k=k), tree), np.array(expected + [0.0] * 16), atol=1e-12
    )


def test_large_groups_stay_exact():
    outcomes = (np.arange(20_000) % 1000 == 0).astype(float)
    tree = group(outcomes)
    weights = leaves(pkpo_advantages(tree, k=500, baseline="none"), tree)
    n, c, k = 20_000, 20, 500
    np.testing.assert_allclose(weights[outcomes == 1], k / n, rtol=1e-9)
    miss = np.prod([(n - 1 - c - j) / (n - 1 - j) for j in range(k - 1)])
    np.testing.assert_allclose(weights[outcomes == 0], k / n * (1 - miss), rtol=1e-8)


@pytest.mark.parametrize("estimator", [pkpo_advantages, passk_training_advantages])
@pytest.mark.parametrize("broken", [1, 2, 4])
def test_broken_members_do_not_stop_a_run(estimator, broken):
    """Where fewer than k went through, no subset says anything, and the other groups train."""
    tree = TreeArrays.build(
        [-1, 0, 0, 0, 0, -1, 5, 5, 5, 5],
        [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        valid=[True] * (5 - broken) + [False] * broken + [True] * 5,
        tree_ids=[0] * 5 + [1] * 5,
    )
    advantages = estimator(tree, k=2).advantages
    assert not advantages[5 - broken : 5].any()
    assert advantages[6] > 0
    assert np.isfinite(estimator(tree, k=4).advantages).all()


@pytest.mark.parametrize("estimator", [pkpo_advantages, passk_training_advantages])
def test_a_group_that_infrastructure_left_too_small_gets_zero_and_stops_nobody(estimator):
    tree = TreeArrays.build(
        [-1, 0, 0, 0, 0, -1, 5, 5, 5, 5],
        [0, 1, 0, 0, 1, 0, 1, 0, 0, 0],
        tree_ids=[0] * 5 + [1] * 5,
        valid=[True] * 8 + [False] * 2,
    )
    result, whole = estimator(tree, k=3), group([1, 0, 0, 1])
    np.testing.assert_allclose(result.advantages[1:5], leaves(estimator(whole, k=3), whole))
    assert not result.advantages[5:].any()
    all_broken = TreeArrays.build([-1, 0, 0], [0, 0, 0], valid=[True, False, False])
    assert not estimator(all_broken, k=2).advantages.any()


def with_failed_resets(*groups, failed):
    """Puts before some groups a tree of one broken node, as a `reset` that fails for good leaves it."""
    parents, rewards, ids, valid = [], [], [], []
    for tree, values in enumerate(groups):
        count = 1 if tree in failed else len(values)
        parents += [-1] + [len(parents)] * count
        rewards += [0.0, *(values if tree not in failed else [0.0])]
        ids += [tree] * (count + 1)
        valid += [True] + [tree not in failed] * count
    return TreeArrays.build(parents, rewards, tree_ids=ids, valid=valid)


@pytest.mark.parametrize("estimator", [pkpo_advantages, passk_training_advantages])
@pytest.mark.parametrize("failed", [{0}, {1}, {0, 2}, {0, 1, 2}])
def test_a_failed_reset_stops_nobody(estimator, failed):
    groups = [[1, 0, 0, 1], [0, 0, 1, 0, 0], [1, 1, 0, 0]]
    tree = with_failed_resets(*groups, failed=failed)
    result = estimator(tree, k=4).advantages
    for i, values in enumerate(groups):
        alone = group(values)
        expected = [0.0] if i in failed else leaves(estimator(alone, k=4), alone)
        np.testing.assert_allclose(result[(tree.tree_ids == i) & ~tree.is_root], expected, atol=1e-12)
    if len(failed) < 3:
        with pytest.raises(ValueError, match=r"k must be .* in \[1, [45]\], .* smallest unbroken group; got 6"):
            estimator(tree, k=6)


@pytest.mark.parametrize("estimator", [pkpo_advantages, passk_training_advantages])
def test_a_rollout_lost_before_its_forks_stops_nobody(estimator):
    """The second group broke in its trunk, so that nothing could be continued there."""
    tree = TreeArrays.build(
        [-1, 0, 1, 1, 0, 0, -1, 6, 6], [0, 0, 1, 0, 0, 0, 0, 0, 1], tree_ids=[0] * 6 + [1] * 3, valid=[1] * 7 + [0, 1]
    )
    advantages = estimator(tree, k=3).advantages
    assert advantages[:6].any()
    assert not advantages[6:].any()


@pytest.mark.parametrize("estimator", [pkpo_advantages, passk_training_advantages])
@pytest.mark.parametrize("k", [0, 2.5, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("broken", [False, True])
def test_k_is_a_whole_number(estimator, k, broken):
    tree = TreeArrays.build([-1, 0, 0, 0], [0, 1, 0, 0], valid=[True, True, True, not broken])
    with pytest.raises(ValueError, match=rf"k must be a whole number .*; got {k}"):
        estimator(tree, k=k)
    np.testing.assert_array_equal(estimator(tree, k=np.float64(2)).advantages, estimator(tree, k=2).advantages)


def test_refuses():
    tree = group([1, 0, 0], [1, 0])
    for estimator in (pkpo_advantages, passk_training_advantages):
        with pytest.raises(ValueError, match=r"k must be a whole number in \[1, 2\].*got 3"):
            estimator(tree, k=3)
    with pytest.raises(ValueError, match="baseline must be 'none' or 'leave_one_out', got 'mean'"):
        pkpo_advantages(tree, k=1, baseline="mean")  # pyright: ignore[reportArgumentType]
