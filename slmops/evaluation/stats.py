"""Intervals, paired tests and families of comparisons over test rows, for any tally."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from slmops.evaluation.proportions import Interval as Interval
from slmops.evaluation.proportions import mcnemar, paired_shares
from slmops.evaluation.proportions import wilson as wilson
from slmops.evaluation.resampling import ends, resampled, resamples_of, swapped
from slmops.evaluation.seeds import over_seeds
from slmops.evaluation.tally import Tally

Word = Literal["better", "worse", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Estimate:
    """A figure of some test rows, with its interval.

    Args:
        value: As measured; NaN where the rows say nothing.
        interval: Low and high end; NaN where nothing can be told.
        rows: Test rows.
        method: How the interval came about, for the report.
        grown: The interval that so many times the rows would give, if they score as these do.
    """

    value: float
    interval: Interval
    rows: int = field(default=0, kw_only=True)
    method: str = field(default="", kw_only=True)
    grown: Callable[[float], Interval] | None = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference of two models on the same rows and what it says in a word.

    Args:
        p_value: Two-sided, that there is no difference.
        adjusted: The same for a family of comparisons, by :func:`in_family`.
    """

    p_value: float | None = None
    adjusted: float | None = field(default=None, kw_only=True)

    @property
    def word(self) -> Word:
        """``better`` or ``worse`` where the interval leaves out zero, else ``INCONCLUSIVE``."""
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "INCONCLUSIVE"


def interval(tally: Tally, confidence: float, *, seeds: Sequence[Tally] = ()) -> Interval:
    """The interval of :func:`estimate`."""
    return estimate(tally, confidence, seeds=seeds).interval


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """The interval of a mean of one score a row."""
    return interval(Tally.mean(values), confidence)


def estimate(tally: Tally, confidence: float, *, seeds: Sequence[Tally] = ()) -> Estimate:
    """A measure with its interval: Wilson's where each row is right or wrong, else from the bootstrap over rows.

    Args:
        tally: The measure by rows.
        confidence: Such as 0.95.
        seeds: The same model trained with other seeds, on the same rows. The figure is then the mean over all seeds, and the
            interval holds for other rows and other seeds; without them it says nothing of other seeds.
    """
    if seeds:
        found = over_seeds([(1.0, [tally, *seeds])], confidence)
        return Estimate(found.value, found.interval, rows=found.rows, method=found.method, grown=found.grown)
    rows, right = len(tally.rows), right_scores(tally)
    if right is not None:
        count = float(right.sum())

        def at(times: float) -> Interval:
            return wilson(count * times, rows * times, confidence)

        return Estimate(tally.value, at(1), rows=rows, method="Wilson's score interval", grown=at)
    values = resampled([tally])[0]
    grown = _bootstrapped(tally.value, values, rows, confidence, (0.0, _scale(tally.value)))
    method = f"bootstrap over rows, {resamples_of([tally]):,} resamples"
    return Estimate(tally.value, grown(1), rows=rows, method=method, grown=grown)


def paired(
    a: Tally, b: Tally, confidence: float, *, weight: float = 1.0, seeds_a: Sequence[Tally] = (), seeds_b: Sequence[Tally] = ()
) -> Difference:
    """``a - weight * b`` of two models on the same rows.

    Where each row is right or wrong: Newcombe's interval for paired shares, and McNemar's exact test. Else a bootstrap that
    draws the same rows for both, and the test by swapping. With a weight, the p-value is the level at which the interval
    reaches zero.

    Args:
        a: One model's measure by rows.
        b: The other's, of the same rows in the same order.
        confidence: Such as 0.95.
        weight: Of the second, for bounds such as "at least 0.92 of the teacher".
        seeds_a: The first model trained with other seeds, as in :func:`estimate`.
        seeds_b: The second with other seeds.
    """
    if seeds_a or seeds_b:
        found = over_seeds([(1.0, [a, *seeds_a]), (-weight, [b, *seeds_b])], confidence)
        return Difference(
            found.value, found.interval, found.p_value, rows=found.rows, method=f"paired {found.method}", grown=found.grown
        )
    value, rows = a.value - weight * b.value, len(a.rows)
    right_a, right_b = right_scores(a), right_scores(b)
    if right_a is not None and right_b is not None:
        return _paired_right(value, right_a, right_b, confidence, weight)
    of_a, of_b = resampled([a, b])
    values = of_a - weight * of_b
    scale = _scale(max(abs(a.value), abs(b.value)))
    grown = _bootstrapped(value, values, rows, confidence, (-weight * scale, scale))
    method = f"paired bootstrap, {resamples_of([a, b]):,} resamples"
    if weight == 1 and a.rows.shape == b.rows.shape:
        return Difference(value, grown(1), swapped(a, b), rows=rows, method=f"{method}; permutation test", grown=grown)
    return Difference(value, grown(1), _centred(value, values), rows=rows, method=method, grown=grown)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family of comparisons, adjusted so that the chance of any false finding is bounded (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def in_family(differences: Sequence[Difference]) -> list[Difference]:
    """The same comparisons, each with its p-value adjusted for all of them; those without a p-value stay as they are."""
    told = [difference.p_value for difference in differences if difference.p_value is not None]
    adjusted = iter(holm(told))
    return [one if one.p_value is None else replace(one, adjusted=next(adjusted)) for one in differences]


def right_scores(tally: Tally) -> np.ndarray | None:
    """The scores where all are 0 or 1."""
    scores = tally.scores
    return scores if scores is not None and bool(np.isin(scores, (0, 1)).all()) else None


def _paired_right(value: float, a: np.ndarray, b: np.ndarray, confidence: float, weight: float) -> Difference:
    both, only_a, only_b = int((a * b).sum()), int((a * (1 - b)).sum()), int(((1 - a) * b).sum())
    cells = (both, only_a, only_b, len(a) - both - only_a - only_b)

    def at(times: float, confidence: float = confidence) -> Interval:
        one, two, three, four = (times * cell for cell in cells)
        return paired_shares(one, two, three, four, confidence, weight=weight)

    if weight == 1:
        method = "Newcombe's interval for paired shares; McNemar's exact test"
        return Difference(value, at(1), mcnemar(only_a, only_b), rows=len(a), method=method, grown=at)
    method = "Newcombe's interval for paired shares, with a weight"
    return Difference(value, at(1), _reaching_zero(value, lambda level: at(1, level)), rows=len(a), method=method, grown=at)


def _reaching_zero(value: float, at: Callable[[float], Interval]) -> float:
    """One minus the confidence at which the interval reaches zero."""
    if value == 0:
        return 1.0
    least, most = 0.0, 1.0
    for _ in range(40):
        middle = (least + most) / 2
        low, high = at(1 - middle) if middle < 1 else (value, value)
        if low > 0 or high < 0:
            most = middle
        else:
            least = middle
    return most


def _bootstrapped(value: float, values: np.ndarray, rows: int, confidence: float, scale: Interval) -> Callable[[float], Interval]:
    """The interval from resampled values, by how many times there are the rows.

    Where all rows agree the resamples do too. Then it has room for rows not seen yet, as many as Wilson's interval has for
    rows that are all right, which may lie anywhere on the scale.
    """
    told = values[~np.isnan(values)]
    if math.isnan(value) or not len(told):
        return lambda times: (math.nan, math.nan)
    if rows < 2 or told.max() - told.min() < 1e-12:

        def unvaried(times: float) -> Interval:
            seen = wilson(rows * times, rows * times, confidence)[0]
            return (seen * value + (1 - seen) * scale[0], seen * value + (1 - seen) * scale[1])

        return unvaried
    low, high = ends(values, rows, confidence)
    return lambda times: (value + (low - value) / math.sqrt(times), value + (high - value) / math.sqrt(times))


def _centred(value: float, values: np.ndarray) -> float:
    """Two-sided p-value from the bootstrap around its own centre (Davison & Hinkley 1997, section 4.4)."""
    told = values[~np.isnan(values)]
    return float((np.abs(told - value) >= abs(value) - 1e-12).sum() + 1) / (len(told) + 1)


def _scale(value: float) -> float:
    """The highest that a measure can be by its value: shares go to 1, BLEU and the like to 100, others as far as seen."""
    return 1.0 if abs(value) <= 1 else max(100.0, abs(value))
