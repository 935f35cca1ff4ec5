"""The study's statistics are those of rliable's package."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from benchmarks.study.statistics import Interval, interval_of, iqm, probability_of_improvement, profile

pytestmark = pytest.mark.peers("rliable")


@pytest.fixture(scope="module")
def scores() -> tuple[Any, Any]:
    """Runs by settings of two methods; by columns, as rliable has them. Successes of 16 tasks: many are equal."""
    rng = np.random.default_rng(0)
    return rng.binomial(16, 0.6, (12, 4)) / 16, rng.binomial(16, [0.3, 0.5, 0.6, 0.9], (9, 4)) / 16


def ends(name: str, data: Any, function: Callable[..., Any], reps: int = 1000) -> tuple[float, float, float]:
    """rliable's value and interval."""
    library = import_module("rliable.library")
    np.random.seed(0)  # noqa: NPY002, TID251  it draws from the global state
    values, intervals = library.get_interval_estimates({name: data}, function, reps=reps)
    low, high = np.ravel(intervals[name])
    return float(np.ravel(values[name])[0]), float(low), float(high)


def same(ours: Interval, theirs: tuple[float, float, float]) -> None:
    """The value is the same; the ends are, up to the chance of a bootstrap."""
    assert ours.value == pytest.approx(theirs[0], abs=1e-12)
    width = theirs[2] - theirs[1]
    assert (ours.low, ours.high) == pytest.approx(theirs[1:], abs=0.12 * width)


def test_probability_of_improvement(scores):
    left, right = scores
    metrics = import_module("rliable.metrics")
    theirs = ends("pair", (left, right), lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=400)
    same(probability_of_improvement(list(left.T), list(right.T), samples=1000), theirs)


def test_interquartile_mean(scores):
    metrics = import_module("rliable.metrics")
    for runs in scores:
        theirs = ends("one", runs, lambda x: np.array([metrics.aggregate_iqm(x)]))
        same(interval_of([list(runs.T)], iqm, samples=1000), theirs)


def test_performance_profiles(scores):
    library = import_module("rliable.library")
    at = np.linspace(0, 1, 9)
    for runs in scores:
        np.random.seed(0)  # noqa: NPY002, TID251
        theirs, bounds = library.create_performance_profile({"one": runs}, at, reps=500)
        value, low, high = profile(list(runs.T), at, samples=500)
        assert value == pytest.approx(theirs["one"], abs=1e-12)
        assert np.stack([low, high]) == pytest.approx(bounds["one"], abs=0.05)
