"""Intervals and tests of shares against published tables."""

from __future__ import annotations

import math

import pytest

from slmops.evaluation.proportions import fisher, mcnemar, mover, paired_shares, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        (10, 20, 0.2993, 0.7007),
        # Newcombe (1998), Statistics in Medicine 17, 857, table I, method 3: the score interval without correction.
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


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, 2635, table III, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((0, 29, 1, 0), 0.6666, 0.9882),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((53, 0, 0, 1), -0.0729, 0.0729),
        ((27, 0, 0, 27), -0.0351, 0.0351),
    ],
)
def test_the_interval_of_paired_shares_is_the_published_one(cells: tuple[int, ...], low: float, high: float) -> None:
    assert paired_shares(*cells, 0.95) == pytest.approx((low, high), abs=5.1e-5)
    both, only_a, only_b, neither = cells
    assert paired_shares(both, only_b, only_a, neither, 0.95) == pytest.approx((-high, -low), abs=5.1e-5)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, 873, table II, method 10: 56/70 - 48/80, 9/10 - 3/10, 10/10 - 0/20.
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_the_interval_of_two_groups_is_the_published_one(a: tuple[int, int], b: tuple[int, int], low: float, high: float) -> None:
    found = mover(a[0] / a[1], wilson(*a, 0.95), b[0] / b[1], wilson(*b, 0.95))
    assert found == pytest.approx((low, high), abs=5.1e-5)


@pytest.mark.parametrize("weight", [0.5, 0.92, 1.0, 1.2])
def test_rows_that_all_agree_still_leave_room(weight: float) -> None:
    """Ten rows that both have right do not show that one model is as good as the other."""
    low, high = paired_shares(10, 0, 0, 0, 0.95, weight=weight)
    assert low < 1 - weight < high
    wide = high - low
    assert 0.15 < wide < 0.75
    narrow = paired_shares(1000, 0, 0, 0, 0.95, weight=weight)
    assert 0 < narrow[1] - narrow[0] < 0.02


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    # Seven against one of eight discordant pairs: twice (1 + 8) of 256.
    [(1, 7, 18 / 256), (7, 1, 18 / 256), (0, 0, 1.0), (5, 5, 1.0), (0, 6, 2 / 64), (0, 5, 2 / 32)],
)
def test_mcnemars_exact_test(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p)


def test_mcnemars_test_of_many_rows_is_close_to_the_normal_one() -> None:
    z = (2150 - 2000 - 1) / math.sqrt(4150)
    assert mcnemar(2150, 2000) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


def test_fishers_exact_test() -> None:
    # The lady tasting tea (Fisher 1935): three of four cups.
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher(4, 4, 0, 4) == pytest.approx(2 / 70)
    assert fisher(0, 4, 0, 9) == 1.0
    # 252 of 15504 tables of this kind on each side.
    assert fisher(10, 10, 5, 10) == pytest.approx(0.0325, abs=5e-5)
