"""Intervals against published values and approximations that are independent of the code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slmops.evaluation.stats import bootstrap_mean, paired, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        (10, 20, 0.2993, 0.7007),
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3: the score interval without correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(successes: int, total: int, low: float, high: float) -> None:
    assert wilson(successes, total, 0.95) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(total - successes, total, 0.95)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilsons_interval_of_nothing_is_everything() -> None:
    assert wilson(0, 0, 0.95) == (0.0, 1.0)


@pytest.mark.parametrize("total", [1, 5, 6, 7, 10, 300])
def test_all_right_reaches_one_and_all_wrong_zero_without_rounding(total: int) -> None:
    assert wilson(total, total, 0.95)[1] == 1.0
    assert wilson(0, total, 0.95)[0] == 0.0


def test_more_confidence_and_fewer_rows_widen_the_interval() -> None:
    def width(successes: int, total: int, confidence: float) -> float:
        low, high = wilson(successes, total, confidence)
        return high - low

    assert width(80, 100, 0.99) > width(80, 100, 0.95) > width(800, 1000, 0.95)


@pytest.mark.parametrize(("share", "rows", "confidence", "z"), [(0.8, 400, 0.95, 1.95996), (0.5, 1000, 0.9, 1.64485)])
def test_the_bootstrap_interval_of_a_share_is_close_to_the_normal_one(share: float, rows: int, confidence: float, z: float) -> None:
    values = np.array([1.0] * round(share * rows) + [0.0] * round((1 - share) * rows))
    half = z * math.sqrt(share * (1 - share) / rows)
    assert bootstrap_mean(values, confidence) == pytest.approx((share - half, share + half), abs=0.004)


def test_the_bootstrap_of_values_that_are_no_shares() -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, size=500)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert bootstrap_mean(values, 0.95) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_intervals_are_the_same_every_time() -> None:
    values = np.array([0.0, 1.0, 1.0])
    assert bootstrap_mean(values, 0.95) == bootstrap_mean(values, 0.95)


def test_a_paired_difference_uses_that_the_rows_are_the_same() -> None:
    """Two models that err on the same rows are far better compared by rows than by their shares."""
    b = [1] * 60 + [0] * 40
    a = [1] * 70 + [0] * 30
    difference = paired(a, b, 0.95)
    assert difference.value == pytest.approx(0.1)
    assert difference.interval == pytest.approx((0.05, 0.16), abs=0.011)
    assert difference.word == "better"
    assert paired(b, a, 0.95).word == "worse"
    assert paired(b, a, 0.95).value == pytest.approx(-0.1)

    on_other_rows = [0] * 30 + [1] * 70
    assert paired(on_other_rows, b, 0.95).word == "INCONCLUSIVE"


def test_equal_models_are_inconclusive() -> None:
    same = paired([1, 0, 1], [1, 0, 1], 0.95)
    assert (same.value, same.interval, same.word) == (0.0, (0.0, 0.0), "INCONCLUSIVE")


def test_a_weight_scales_the_second_model() -> None:
    assert paired([1, 1, 0, 1], [1, 1, 1, 1], 0.95, weight=0.5).value == pytest.approx(0.25)
