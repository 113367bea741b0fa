"""Intervals of quantiles of request times."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slmops.evaluation.quantiles import percentile, quantile, quantile_difference


@pytest.mark.parametrize(
    ("count", "share", "low", "high"),
    # The binomial tables' ranks for the median (Conover 1999, Practical Nonparametric Statistics, section 3.2), and p95.
    [(10, 0.5, 2, 9), (20, 0.5, 6, 15), (30, 0.5, 10, 21), (100, 0.95, 90, 100), (60, 0.95, 53, 60), (5, 0.5, 1, 5)],
)
def test_the_interval_lies_between_two_of_the_times(count: int, share: float, low: int, high: int) -> None:
    assert quantile(range(1, count + 1), share, 0.95).interval == (low, high)


@pytest.mark.parametrize("count", [1, 20, 58])
def test_a_few_times_have_no_upper_end_for_p95(count: int) -> None:
    found = quantile([5.0] * count, 0.95, 0.95)
    assert (found.value, found.interval[1]) == (5.0, math.inf)
    assert quantile([5.0] * 59, 0.95, 0.95).interval[1] == 5.0


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_it_holds_the_truth_about_as_often_as_it_says(share: float) -> None:
    truth = -math.log(1 - share)
    hits = 0
    for trial in range(300):
        low, high = quantile(np.random.default_rng(trial).exponential(size=100).tolist(), share, 0.95).interval
        hits += low <= truth <= high
    assert 0.92 <= hits / 300 <= 0.995


def test_many_times_narrow_it() -> None:
    rng = np.random.default_rng(1)
    few, many = (quantile(rng.exponential(size=count).tolist(), 0.95, 0.95) for count in (200, 5000))
    assert many.interval[1] - many.interval[0] < 0.4 * (few.interval[1] - few.interval[0])
    assert few.grown is not None
    low, high = few.grown(25)
    assert high - low < 0.5 * (few.interval[1] - few.interval[0])


def test_two_models_are_compared_by_both_intervals() -> None:
    rng = np.random.default_rng(2)
    fast, slow = rng.normal(50, 5, 80).tolist(), rng.normal(100, 5, 80).tolist()
    found = quantile_difference(fast, slow, 0.5, 0.95)
    assert found.value == pytest.approx(percentile(fast, 0.5) - percentile(slow, 0.5))
    assert found.interval[0] < found.value < found.interval[1] < -40
    half = quantile_difference(fast, slow, 0.5, 0.95, weight=0.5)
    assert half.interval[0] < 0 < half.interval[1]
    unknown = quantile_difference(fast[:10], slow, 0.95, 0.95)
    assert unknown.interval[1] == math.inf
