"""Intervals, tests and families: against other computations, properties, and how often they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from slmops.evaluation.resampling import RESAMPLES, WIDE_RESAMPLES, ends, resampled, student, student_p, swapped
from slmops.evaluation.stats import Difference, estimate, holm, in_family, interval, paired
from slmops.evaluation.tally import Tally


def f1(rows: Sequence[tuple[int, int, int]]) -> Tally:
    """F1 of a whole set from right, claimed and expected answers of each row."""
    return Tally(np.array(rows, np.float64), lambda sums: 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2]))


def drawn_f1(rng: np.random.Generator, rows: int, share: float) -> Tally:
    return f1([(int(rng.binomial(size, share)), size, size) for size in rng.integers(1, 4, rows)])


@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),
    [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 10, 2.228), (0.99, 30, 2.750), (0.95, 1e6, 1.960), (0.9, 5, 2.015)],
)
def test_students_quantiles_are_those_of_the_tables(confidence: float, freedom: float, expected: float) -> None:
    assert student(confidence, freedom) == pytest.approx(expected, abs=6e-4)
    assert student_p(expected, freedom) == pytest.approx(1 - confidence, abs=2e-3)


@pytest.mark.parametrize(("share", "rows", "confidence", "z"), [(0.8, 400, 0.95, 1.95996), (0.5, 1000, 0.9, 1.64485)])
def test_the_bootstrap_interval_of_a_share_is_close_to_the_normal_one(share: float, rows: int, confidence: float, z: float) -> None:
    values = Tally.mean([1.0] * round(share * rows) + [0.0] * round((1 - share) * rows))
    half = z * math.sqrt(share * (1 - share) / rows)
    assert ends(resampled([values])[0], rows, confidence) == pytest.approx((share - half, share + half), abs=0.004)


@pytest.mark.parametrize("distinct", [500, 20])
def test_the_bootstrap_of_values_that_are_no_shares(distinct: int) -> None:
    """Both ways of drawing: rows by rows, and how often each distinct row occurs."""
    values = np.repeat(np.random.default_rng(1).gamma(2.0, 3.0, size=distinct), 500 // distinct)
    half = 1.96 * values.std() / math.sqrt(len(values))
    low, high = interval(Tally.mean(values), 0.95)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.12 * half)


def test_intervals_are_the_same_every_time_and_say_how_they_came_about() -> None:
    rng = np.random.default_rng(3)
    tally = drawn_f1(rng, 50, 0.7)
    assert interval(tally, 0.95) == interval(tally, 0.95)
    assert estimate(tally, 0.95).method == f"bootstrap over rows, {WIDE_RESAMPLES:,} resamples"
    assert estimate(Tally.mean([0.5, 0.2]), 0.95).method == f"bootstrap over rows, {RESAMPLES:,} resamples"
    assert estimate(Tally.mean([1, 0]), 0.95).method == "Wilson's score interval"


def test_resamples_that_say_nothing_are_left_out() -> None:
    one_counts = Tally.ratio([1.0, 0, 0, 0], [1.0, 0, 0, 0])
    assert np.isnan(resampled([one_counts])).any()
    low, high = interval(one_counts, 0.95)
    assert 0 < low < high == 1
    nothing = interval(Tally.ratio([0.0, 0], [0.0, 0]), 0.95)
    assert all(math.isnan(end) for end in nothing)


def test_no_rows_tell_nothing() -> None:
    none = Tally.mean([])
    assert interval(none, 0.95) == (0.0, 1.0)
    assert paired(none, none, 0.95, weight=0.9).interval == (-0.9, 1.0)
    assert all(math.isnan(end) for end in interval(Tally(np.zeros((0, 3)), lambda sums: sums[..., 0] / 2), 0.95))
    assert paired(none, none, 0.95).word == "INCONCLUSIVE"


@pytest.mark.parametrize("rows", [1, 3, 12, 500])
def test_rows_that_all_agree_leave_room_for_those_not_seen(rows: int) -> None:
    """A perfect F1, a constant score and two equal models: no interval has no width."""
    low, high = interval(f1([(2, 2, 2)] * rows), 0.95)
    assert low < high == 1
    assert low == pytest.approx(rows / (rows + 1.96**2), abs=1e-4)
    low, high = interval(Tally.mean([0.4] * rows), 0.95)
    assert low < 0.4 < high
    same = paired(f1([(1, 2, 2)] * rows), f1([(1, 2, 2)] * rows), 0.95)
    assert same.interval[0] < 0 < same.interval[1]
    assert (same.value, same.word, same.p_value) == (0.0, "INCONCLUSIVE", 1.0)
    assert paired(Tally.mean([1] * rows), Tally.mean([1] * rows), 0.95, weight=0.92).interval[0] < 0.08


def test_a_paired_difference_uses_that_the_rows_are_the_same() -> None:
    """Two models that err on the same rows are far better compared by rows than by their shares."""
    b, a = Tally.mean([1] * 60 + [0] * 40), Tally.mean([1] * 70 + [0] * 30)
    difference = paired(a, b, 0.95)
    assert difference.value == pytest.approx(0.1)
    assert difference.interval == pytest.approx((0.05, 0.16), abs=0.02)
    assert difference.p_value == pytest.approx(2 / 2**10)
    assert difference.word == "better"
    assert paired(b, a, 0.95).word == "worse"
    assert paired(b, a, 0.95).value == pytest.approx(-0.1)
    assert paired(Tally.mean([0] * 30 + [1] * 70), b, 0.95).word == "INCONCLUSIVE"


def test_a_weight_scales_the_second_model() -> None:
    a, b = Tally.mean([1] * 93 + [0] * 7), Tally.mean([1] * 95 + [0] * 5)
    found = paired(a, b, 0.95, weight=0.92)
    assert found.value == pytest.approx(0.93 - 0.92 * 0.95)
    # The bootstrap's percentiles of the same difference, where both are far from 0 and 1.
    a, b = Tally.mean([1] * 600 + [0] * 400), Tally.mean([1] * 550 + [0] * 450)
    of_a, of_b = resampled([a, b])
    assert paired(a, b, 0.95, weight=0.92).interval == pytest.approx(ends(of_a - 0.92 * of_b, 1000, 0.95), abs=0.004)


def test_the_p_value_with_a_weight_is_the_level_at_which_the_interval_reaches_zero() -> None:
    a, b = Tally.mean([1] * 94 + [0] * 6), Tally.mean([1] * 95 + [0] * 5)
    found = paired(a, b, 0.95, weight=0.92)
    p = found.p_value
    assert found.word == "better" if p < 0.05 else found.word == "INCONCLUSIVE"
    assert paired(a, b, 1 - p, weight=0.92).interval[0] == pytest.approx(0, abs=1e-6)


def test_measures_of_the_whole_set_are_compared_by_rows_too() -> None:
    rng = np.random.default_rng(5)
    b = drawn_f1(rng, 200, 0.6)
    better = np.minimum(b.rows[:, 0] + rng.binomial(1, 0.3, 200), b.rows[:, 1])
    a = Tally(np.column_stack([better, b.rows[:, 1:]]), b.of)
    found = paired(a, b, 0.95)
    assert found.value == pytest.approx(a.value - b.value)
    assert found.word == "better"
    assert found.p_value < 0.01
    assert paired(a, b, 0.95, weight=0.5).value == pytest.approx(a.value - b.value / 2)
    assert paired(a, b, 0.95, weight=0.5).p_value < 0.01
    low, high = interval(a, 0.95)
    apart = math.hypot(high - low, interval(b, 0.95)[1] - interval(b, 0.95)[0])
    assert found.interval[1] - found.interval[0] < 0.6 * apart  # being paired is worth much


def test_swapping_all_rows_of_a_few_is_the_exact_permutation_test() -> None:
    a, b = [0.9, 0.8, 0.7, 0.9, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.2, 0.45]
    each = np.array(a) - np.array(b)
    signs = np.array(np.meshgrid(*[[1, -1]] * 6)).reshape(6, -1).T
    exact = (np.abs((signs * each).mean(axis=1)) >= abs(each.mean()) - 1e-12).mean()
    assert swapped(Tally.mean(a), Tally.mean(b)) == pytest.approx(exact, abs=0.006)


def test_holms_adjusted_p_values() -> None:
    # Holm's procedure by hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 0.04 not below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    family = in_family([Difference(0.1, (0, 1), 0.01), Difference(0.1, (0, 1)), Difference(0.1, (0, 1), 0.04)])
    assert [one.adjusted for one in family] == [0.02, None, 0.04]


def test_training_seeds_widen_the_interval_and_more_of_them_narrow_it() -> None:
    rng = np.random.default_rng(7)

    def model(share: float) -> Tally:
        return Tally.mean((rng.random(400) < share).astype(float))

    apart = [model(share) for share in (0.70, 0.78, 0.86, 0.72, 0.84, 0.76, 0.80, 0.74)]
    alike = [apart[1], apart[1], apart[1]]

    def width(tallies: Sequence[Tally]) -> float:
        low, high = interval(tallies[0], 0.95, seeds=tallies[1:])
        return high - low

    assert width(apart[:3]) > 2 * width(apart[:1])
    assert width(apart) < width(apart[:3])
    assert width(alike) == pytest.approx(width(alike[:1]), rel=0.1)
    found = estimate(apart[0], 0.95, seeds=apart[1:])
    assert found.value == pytest.approx(np.mean([tally.value for tally in apart]))
    assert found.method == "bootstrap over rows and 8 training seeds, 10,000 resamples"
    against = paired(apart[2], apart[0], 0.95)
    assert against.word == "better"
    over_seeds = paired(apart[2], apart[0], 0.95, seeds_a=apart[3:5], seeds_b=apart[5:7])
    assert over_seeds.word == "INCONCLUSIVE"
    assert over_seeds.p_value > 0.05


def covered(rows: int, trials: int, truth: float, draw: object, of: object) -> float:
    """Share of trials whose interval holds the truth."""
    hits = 0
    for trial in range(trials):
        low, high = of(draw(np.random.default_rng(trial), rows))
        hits += low <= truth <= high
    return hits / trials


def test_intervals_of_few_rows_hold_the_truth_about_as_often_as_they_say() -> None:
    """Thirty rows, 95 %: the trials stay within about three standard errors."""

    def right(rng: np.random.Generator, rows: int) -> Tally:
        return Tally.mean((rng.random(rows) < 0.85).astype(float))

    def scores(rng: np.random.Generator, rows: int) -> Tally:
        return Tally.mean(rng.beta(2, 1, rows))

    assert 0.91 <= covered(30, 250, 0.85, right, lambda tally: interval(tally, 0.95)) <= 0.99
    assert 0.89 <= covered(30, 120, 2 / 3, scores, lambda tally: interval(tally, 0.95)) <= 1
    assert 0.89 <= covered(30, 120, 0.6, lambda rng, rows: drawn_f1(rng, rows, 0.6), lambda tally: interval(tally, 0.95)) <= 1


@pytest.mark.parametrize("weight", [1.0, 0.92])
def test_paired_intervals_of_few_rows_hold_the_truth(weight: float) -> None:
    def pair(rng: np.random.Generator, rows: int) -> tuple[Tally, Tally]:
        hard = rng.random(rows) < 0.2
        return tuple(Tally.mean((rng.random(rows) < np.where(hard, 0.3, share)).astype(float)) for share in (0.95, 0.90))

    truth = (0.8 * 0.95 + 0.2 * 0.3) - weight * (0.8 * 0.90 + 0.2 * 0.3)
    assert 0.92 <= covered(30, 400, truth, pair, lambda both: paired(*both, 0.95, weight=weight).interval) <= 1


def test_intervals_over_three_seeds_hold_the_truth() -> None:
    """Seeds differ by 0.06, rows by what 100 of them do; drawing three seeds alone would hold it far less often."""

    def seeds(rng: np.random.Generator, rows: int) -> list[Tally]:
        return [Tally.mean(rng.normal(0.6 + shift, 0.2, rows)) for shift in rng.normal(0, 0.06, 3)]

    assert 0.88 <= covered(40, 60, 0.6, seeds, lambda tallies: interval(tallies[0], 0.95, seeds=tallies[1:])) <= 1
