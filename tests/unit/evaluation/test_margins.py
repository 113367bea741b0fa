"""Margins and how many rows they need: by formula, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slmops.evaluation.margins import decided, rows_needed, rows_to_settle, settle
from slmops.evaluation.stats import Estimate, estimate, paired
from slmops.evaluation.tally import Tally


def two_models(rng: np.random.Generator, rows: int, discordant: float, difference: float) -> tuple[Tally, Tally]:
    """Models that differ on a share of the rows; the first is better by the difference."""
    draws = rng.random(rows)
    only_a, only_b = draws < (discordant + difference) / 2, draws > 1 - (discordant - difference) / 2
    both = (rng.random(rows) < 0.85) & ~only_a & ~only_b
    return Tally.mean((both | only_a).astype(float)), Tally.mean((both | only_b).astype(float))


def passed(rows: int, discordant: float, difference: float, margin: float, trials: int = 400) -> float:
    """Share of trials in which the first model is found not to be worse by more than the margin."""
    drawn = (two_models(np.random.default_rng(trial), rows, discordant, difference) for trial in range(trials))
    return sum(settle(paired(*pair, 0.95), -margin)[0] == "passed" for pair in drawn) / trials


def test_the_rows_that_a_margin_needs() -> None:
    # (1.95996 + 0.84162)² = 7.8489 times the discordant share over the squared margin.
    assert rows_needed(0.05, discordant=0.1) == 314
    assert rows_needed(0.03, discordant=0.1) == 873
    assert rows_needed(0.03, variance=0.1) == 873
    assert rows_needed(0.05, discordant=0.1, power=0.9) == 421  # 10.5074
    assert rows_needed(0.05, discordant=0.1, confidence=0.9) == 248  # 6.1826
    assert rows_needed(0.05, discordant=0.1, difference=-0.02) > 2 * rows_needed(0.05, discordant=0.1)


def test_a_margin_that_cannot_be_shown_or_told_is_refused() -> None:
    with pytest.raises(ValueError, match=r"worse by 0\.05 is not within a margin of 0\.05"):
        rows_needed(0.05, discordant=0.1, difference=-0.05)
    with pytest.raises(ValueError, match="discordant rows or the variance"):
        rows_needed(0.05)
    with pytest.raises(ValueError, match="discordant rows or the variance"):
        rows_needed(0.05, discordant=0.1, variance=0.1)


@pytest.mark.parametrize(("margin", "discordant", "difference"), [(0.05, 0.1, 0.0), (0.06, 0.2, 0.0), (0.05, 0.1, -0.02)])
def test_with_the_rows_needed_the_power_is_about_what_was_promised(margin: float, discordant: float, difference: float) -> None:
    rows = rows_needed(margin, discordant=discordant, difference=difference)
    assert 0.74 <= passed(rows, discordant, difference, margin) <= 0.86


def test_a_model_that_is_worse_by_the_margin_seldom_passes() -> None:
    assert passed(300, 0.15, -0.05, 0.05) <= 0.05


def test_the_margin_is_by_the_end_of_the_interval() -> None:
    a, b = Tally.mean([1] * 85 + [0] * 15), Tally.mean([1] * 87 + [0] * 13)
    difference = paired(a, b, 0.95)
    low = difference.interval[0]
    assert settle(difference, low - 1e-6) == ("passed", None)
    verdict, needed = settle(difference, low + 1e-3)
    assert verdict == "INCONCLUSIVE"
    assert needed == rows_to_settle(difference, low + 1e-3)
    assert settle(paired(Tally.mean([1] * 60 + [0] * 40), b, 0.95), -0.05) == ("failed", None)
    turned = paired(b, a, 0.95)  # of a measure where lower is better, the first is the worse one
    assert settle(turned, -low + 1e-6, at_least=False) == ("passed", None)
    assert settle(turned, -low - 1e-3, at_least=False)[0] == "INCONCLUSIVE"


def test_so_many_more_rows_settle_it() -> None:
    """Rows repeated until there are as many as was said give the verdict; without the last repetition they do not."""
    rng = np.random.default_rng(2)
    a, b = rng.beta(8, 3, 120), rng.beta(8, 3.4, 120)
    settle_repeated(Tally.mean((a > 0.7).astype(float)), Tally.mean((b > 0.7).astype(float)), slack=0.0)
    settle_repeated(Tally.mean(a), Tally.mean(b), slack=0.25)


def settle_repeated(a: Tally, b: Tally, slack: float) -> None:
    found = paired(a, b, 0.95)
    more = rows_to_settle(found)
    assert found.word == "INCONCLUSIVE"
    assert more is not None

    def again(times: int) -> str:
        chosen = [*range(120)] * times
        return paired(a.take(chosen), b.take(chosen), 0.95).word

    times = (120 + more) / 120
    assert again(math.ceil(times * (1 + slack))) != "INCONCLUSIVE"
    assert again(math.ceil(times * (1 - slack)) - 1) == "INCONCLUSIVE"


def test_what_no_rows_would_settle() -> None:
    assert rows_to_settle(estimate(Tally.mean([1, 0]), 0.95), 0.5) is None  # exactly on the bound
    assert rows_to_settle(estimate(Tally.mean([1] * 90 + [0] * 10), 0.95), 0.5) == 0
    assert rows_to_settle(Estimate(0.1, (-0.1, 0.3)), 0.0) is None
    rng = np.random.default_rng(0)
    seeds = [Tally.mean(rng.random(2000) < share) for share in (0.6, 0.7, 0.8)]
    assert rows_to_settle(estimate(seeds[0], 0.95, seeds=seeds[1:]), 0.68) is None  # what is open is the seeds


def test_a_bound_is_met_exactly_or_nothing_can_be_told() -> None:
    assert decided((0.5, 0.7), 0.5) == "passed"
    assert decided((0.3, 0.5), 0.5) == "INCONCLUSIVE"
    assert decided((0.3, 0.49), 0.5) == "failed"
    assert decided((float("nan"), float("nan")), 0.5) == "INCONCLUSIVE"
