"""The bootstrap over test rows (Efron 1979) and the test by swapping, for any tally; always with the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from slmops.evaluation.tally import Tally

RESAMPLES = 10_000
"""Of means and ratios, where rows are few or repeat each other."""

WIDE_RESAMPLES = 2_000
"""Of measures with more numbers a row, such as F1 over many labels, and of many different rows."""

_NARROW = 2
_AT_ONCE = 2_000_000
_MOST_DRAWS = 6_000_000
_LARGE = 1_000


def resamples_of(tallies: Sequence[Tally]) -> int:
    """How often rows are drawn for these tallies."""
    if any(tally.rows.shape[1] > _NARROW for tally in tallies):
        return WIDE_RESAMPLES
    distinct = len(np.unique(np.hstack([tally.rows for tally in tallies]), axis=0))
    return max(WIDE_RESAMPLES, min(RESAMPLES, _MOST_DRAWS // max(distinct, 1)))


def resampled(tallies: Sequence[Tally]) -> np.ndarray:
    """The measures of rows drawn again and again with replacement, the same rows for all tallies.

    Args:
        tallies: Of the same test rows.

    Returns:
        Shape (tallies, resamples); NaN where the rows that were drawn say nothing.
    """
    if len(tallies[0].rows) == 0:
        return np.full((len(tallies), 1), np.nan)
    levels, level_of, found = np.unique(
        np.hstack([tally.rows for tally in tallies]), axis=0, return_inverse=True, return_counts=True
    )
    parts = []
    for weights in _weights(level_of.ravel(), found, resamples_of(tallies)):
        sums = weights @ levels
        parts.append(np.stack(_split(tallies, sums)))
    return np.concatenate(parts, axis=1)


def drawn_rows(rows: int, count: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, shape (some resamples, rows), until there are ``count`` resamples."""
    yield from _weights(np.arange(rows), np.ones(rows), count)


def swapped(a: Tally, b: Tally) -> float:
    """Two-sided p-value that two models have the same measure: in each row the two are swapped or not.

    The paired permutation test, for measures of the whole set too (Noreen 1989; Riezler & Maxwell 2005 for BLEU).

    Args:
        a: One model's numbers.
        b: The other's, of the same measure and rows.
    """
    rng = np.random.default_rng(0)
    seen = abs(a.value - b.value)
    between, sums_a, sums_b = a.rows - b.rows, a.rows.sum(axis=0), b.rows.sum(axis=0)
    moved = between[between.any(axis=1)]
    total, extreme, count = 0, 0, resamples_of((a, b))
    for size in _chunks(count, len(moved)):
        taken = rng.integers(0, 2, size=(size, len(moved)), dtype=np.int8) @ moved
        differences = np.abs(_finite(a.of(sums_a - taken)) - _finite(b.of(sums_b + taken)))
        told = differences[~np.isnan(differences)]
        total += len(told)
        extreme += int((told >= seen - 1e-12).sum())
    return (extreme + 1) / (total + 1)


def ends(values: np.ndarray, rows: int, confidence: float) -> tuple[float, float]:
    """Percentile interval of resampled values, a little wider for few rows.

    Percentiles of few rows are too narrow; they are taken further out, by Student's distribution (Hesterberg 2015,
    "expanded percentile interval"). Resamples that say nothing are left out.

    Args:
        values: Shape (resamples,).
        rows: Test rows.
        confidence: Such as 0.95.

    Returns:
        Both ends; NaN where no resample says anything, or there are not two rows.
    """
    told = _finite(values)
    told = told[~np.isnan(told)]
    if len(told) == 0 or rows < 2:
        return (math.nan, math.nan)
    outside = NormalDist().cdf(-math.sqrt(rows / (rows - 1)) * student(confidence, rows - 1))
    low, high = np.quantile(told, [outside, 1 - outside])
    return (float(low), float(high))


def student(confidence: float, freedom: float) -> float:
    """The two-sided quantile of Student's distribution, such as 2.228 for 0.95 and 10 degrees of freedom."""
    if freedom > _LARGE:
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        return z + (z**3 + z) / (4 * freedom)
    angle, inside = _student_shares(freedom)
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence, inside, angle)))


def student_p(deviation: float, freedom: float) -> float:
    """The two-sided p-value of a deviation in standard errors by Student's distribution."""
    angle, inside = _student_shares(min(freedom, _LARGE))
    return max(0.0, 1 - float(np.interp(math.atan(abs(deviation) / math.sqrt(min(freedom, _LARGE))), angle, inside)))


@lru_cache(maxsize=64)
def _student_shares(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles, and the share of the distribution within each: with x = sqrt(freedom) tan(angle) its density is a power of cos."""
    angle = np.linspace(0, np.pi / 2, 20_001)
    mass = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((mass[1:] + mass[:-1]) / 2)])
    return angle, below / below[-1]


def _weights(level_of: np.ndarray, found: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """How often each distinct row is drawn, shape (some resamples, distinct rows), until there are ``count``."""
    rng = np.random.default_rng(0)
    rows, levels = len(level_of), len(found)
    for size in _chunks(count, max(rows, levels)):
        if 5 * levels <= rows:  # drawing how often each distinct row occurs is drawing rows, and faster
            yield rng.multinomial(rows, found / rows, size=size).astype(np.float64)
        else:
            drawn = level_of[rng.integers(0, rows, size=(size, rows))] + levels * np.arange(size)[:, None]
            yield np.bincount(drawn.ravel(), minlength=size * levels).reshape(size, levels).astype(np.float64)


def _chunks(count: int, width: int) -> Iterator[int]:
    most = max(1, _AT_ONCE // max(width, 1))
    for start in range(0, count, most):
        yield min(most, count - start)


def _split(tallies: Sequence[Tally], sums: np.ndarray) -> list[np.ndarray]:
    """The measure of each tally from sums over all their numbers side by side."""
    values, start = [], 0
    for tally in tallies:
        width = tally.rows.shape[1]
        values.append(_finite(tally.of(sums[:, start : start + width])))
        start += width
    return values


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
