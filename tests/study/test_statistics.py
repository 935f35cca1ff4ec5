"""Statistics of the study, against numbers computed by hand."""

import numpy as np
import pytest

from benchmarks.study.statistics import (
    NO_DIFFERENCE,
    TOO_FEW,
    Interval,
    _redrawn,
    difference,
    improvement,
    interval_of,
    iqm,
    median,
    probability_of_improvement,
    profile,
    rank_agreement,
    verdict,
)


def test_improvement_counts_pairs_and_halves_ties():
    # 3 > 2; 3 = 3; 1 < 2; 1 < 3: one and a half of four pairs
    assert improvement([np.array([3.0, 1.0])], [np.array([2.0, 3.0])]) == pytest.approx(1.5 / 4)
    # settings count alike: the mean of 1.5/4 and 1
    two = improvement([np.array([3.0, 1.0]), np.array([9.0])], [np.array([2.0, 3.0]), np.array([1.0, 2.0, 3.0])])
    assert two == pytest.approx((1.5 / 4 + 1) / 2)


def test_median_is_the_mean_over_settings_of_medians_over_runs():
    assert median([np.array([1.0, 2.0, 9.0]), np.array([4.0, 6.0])]) == pytest.approx((2 + 5) / 2)


def test_iqm_is_the_mean_of_the_middle_half_of_all_runs():
    assert iqm([np.array([0.0, 5.0, 3.0, 4.0]), np.array([1.0, 9.0, 2.0, 99.0])]) == pytest.approx((2 + 3 + 4 + 5) / 4)


@pytest.mark.parametrize("statistic", [median, iqm])
def test_statistics_of_many_samples_at_once_are_those_of_each(statistic):
    many = [np.random.default_rng(0).random((6, count)) for count in (5, 3, 8)]
    each = [float(statistic([one[b] for one in many])) for b in range(6)]
    assert statistic(many).tolist() == each


def test_more_samples_begin_with_the_same():
    """Draws are made sample by sample, whatever the settings' numbers of runs: numbers on the page stay."""
    arrays = [[np.arange(4.0), np.arange(7.0)], [np.arange(3.0)]]
    few, more = _redrawn(arrays, 3, 1), _redrawn(arrays, 9, 1)
    rng = np.random.default_rng(1)
    for b in range(3):
        for group, longer, here in zip(few, more, arrays, strict=True):
            for drawn, again, scores in zip(group, longer, here, strict=True):
                one = scores[rng.integers(len(scores), size=len(scores))]
                assert drawn[b].tolist() == again[b].tolist() == one.tolist()


def test_profile_is_the_share_of_runs_strictly_above():
    shares = profile([[0.2, 0.4, 0.6, 0.8], [0.5, 0.5]], [0.0, 0.4, 0.5, 0.8], samples=50)[0]
    assert shares.tolist() == [1.0, (0.5 + 1) / 2, (0.5 + 0) / 2, 0.0]


def test_profile_bounds_hold_the_profile():
    runs = np.random.default_rng(0).random((2, 12))
    value, low, high = profile(list(runs), np.linspace(0, 1, 11), samples=200)
    assert (low <= value).all()
    assert (value <= high).all()


def test_interval_of_a_mean_is_that_of_the_normal_law():
    runs = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = interval_of([[runs]], lambda one: np.mean(one[0], axis=-1))
    half = 1.96 * runs.std() / 20
    assert found.value == pytest.approx(runs.mean())
    assert found.low == pytest.approx(runs.mean() - half, abs=0.03)
    assert found.high == pytest.approx(runs.mean() + half, abs=0.03)
    assert found.runs == 400


def test_runs_are_drawn_within_their_setting():
    # within a setting all runs are equal, so there is nothing to draw, though settings differ
    found = interval_of([[[1.0, 1.0, 1.0], [7.0, 7.0]]], median, samples=100)
    assert (found.low, found.value, found.high) == (4.0, 4.0, 4.0)


def test_one_run_shows_no_difference():
    assert verdict(difference([[0.9]], [[0.1]])) == TOO_FEW
    assert verdict(probability_of_improvement([[0.9]], [[0.1]]), nothing=0.5) == TOO_FEW
    assert verdict(difference([[0.8, 0.9]], [[0.1, 0.2]])) == TOO_FEW


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.25, -0.1, 0.6004, 5), "0.250 [-0.100, 0.600]"),
        (Interval(0.2, 0.00004, 0.3, 5), "0.200 [4e-05, 0.300]"),
        (Interval(-0.0002, -0.02, -0.0, 5), "-0.0002 [-0.020, 0.000]"),
        (Interval(0.00051, -1e-13, 0.0, 5), "0.001 [0.000, 0.000]"),
        (Interval(1.0, -np.inf, np.inf, 1), "1.000, one run"),
    ],
)
def test_an_end_is_written_as_zero_only_where_it_is(interval, words):
    assert str(interval) == words


@pytest.mark.parametrize(
    ("interval", "nothing", "said"),
    [
        (Interval(0.1, 0.0, 0.2, 5), 0.0, NO_DIFFERENCE),
        (Interval(0.1, 0.01, 0.2, 5), 0.0, "better"),
        (Interval(-0.1, -0.2, -0.01, 5), 0.0, "worse"),
        (Interval(0.6, 0.45, 0.7, 5), 0.5, NO_DIFFERENCE),
        (Interval(0.9, 0.8, 1.0, 5), 0.5, "better"),
        (Interval(float("nan"), float("nan"), float("nan"), 5), 0.0, NO_DIFFERENCE),
    ],
)
def test_no_claim_whose_interval_holds_nothing(interval, nothing, said):
    assert verdict(interval, nothing=nothing) == said


def test_clear_differences_are_shown():
    assert verdict(difference([[0.8, 0.9, 0.85, 0.8]], [[0.1, 0.2, 0.15, 0.1]])) == "better"
    found = probability_of_improvement([[0.1, 0.2, 0.15, 0.1]], [[0.8, 0.9, 0.85, 0.8]])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert verdict(found, nothing=0.5) == "worse"


@pytest.mark.parametrize("counts", [(3, 3), (5, 5), (3, 10), (10, 10)])
@pytest.mark.parametrize("compare", ["probability", "difference"])
def test_of_equals_one_in_twenty_passes_for_different(compare, counts):
    rng, claims = np.random.default_rng(0), 0
    for _ in range(300):
        left, right = (rng.normal(size=count).round(1) for count in counts)
        if compare == "probability":
            found = verdict(probability_of_improvement([left], [right], samples=200), nothing=0.5)
        else:
            found = verdict(difference([left], [right], samples=200))
        claims += found != NO_DIFFERENCE
    assert claims <= 24  # of 300, 15 expected at most; 24 is beyond the 98th percentile


def test_runs_of_one_seed_are_compared_with_each_other():
    """What seeds share is no noise of the difference: here it is a tenth of what the runs vary by."""
    seeds = np.linspace(0.2, 0.6, 10)
    better = seeds + 0.01 + 0.001 * np.arange(10)
    found = difference([better], [seeds])
    assert verdict(found) == "better"
    assert (found.low, found.high) > (0.0, 0.0)
    assert found.high < 0.03
    assert verdict(difference([better], [seeds[:-1]])) == NO_DIFFERENCE  # not as many: no pairs


def test_equal_runs_show_no_difference():
    assert verdict(difference([[0.1] * 10], [[0.1] * 10])) == NO_DIFFERENCE
    assert verdict(probability_of_improvement([[0.1] * 10], [[0.1] * 10]), nothing=0.5) == NO_DIFFERENCE


def test_a_setting_with_one_run_leaves_nothing_to_say():
    assert verdict(difference([[0.9], [0.8, 0.9, 0.9]], [[0.1], [0.1, 0.2, 0.1]])) == TOO_FEW


def test_settings_without_runs_are_refused():
    with pytest.raises(ValueError, match="at least one run"):
        interval_of([[[], [1.0]]], median)
    with pytest.raises(ValueError, match="level"):
        interval_of([[[1.0]]], median, level=95)


def test_the_order_of_methods_is_compared_by_ranks_with_ties_in_the_middle():
    runs = [np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.5]), np.array([0.5, 0.4, 0.9])]  # medians 0.2, 0.5, 0.5
    curves = [np.array([0.0]), np.array([3.0]), np.array([2.0])]
    assert rank_agreement(runs, curves) == pytest.approx(0.8660254)  # ranks 0, 1.5, 1.5 and 0, 2, 1
    assert rank_agreement(runs, curves[:1] * 3) == 0.0  # all alike: no order
    drawn = rank_agreement([np.tile(one, (4, 1)) for one in runs], [np.tile(one, (4, 1)) for one in curves])
    assert drawn.tolist() == pytest.approx([0.8660254] * 4)
