"""Intervals and paired tests over test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """A paired difference of two models on the same rows, with its interval and what it says in a word."""

    value: float
    interval: Interval

    @property
    def word(self) -> str:
        """``better`` or ``worse`` where the interval leaves out zero, else ``INCONCLUSIVE``."""
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "INCONCLUSIVE"


def wilson(successes: int, total: int, confidence: float) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); it stays within 0 and 1 and is right for few rows."""
    if total == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # Rounding must not keep a bound from 0 or 1, which gates compare with.
    return (max(0.0, centre - half) if successes else 0.0, min(1.0, centre + half) if successes < total else 1.0)


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """Interval of a mean over rows: Wilson's where every row is 0 or 1, else from the bootstrap."""
    if all(value in (0, 1) for value in values):
        return wilson(round(sum(values)), len(values), confidence)
    return bootstrap_mean(np.asarray(values, dtype=np.float64), confidence)


def paired(a: Sequence[float], b: Sequence[float], confidence: float, *, weight: float = 1.0) -> Difference:
    """Mean of ``a - weight * b`` over the same rows with a percentile bootstrap interval (Efron 1979), seeded.

    ``weight`` serves bounds such as "at least 0.92 of the teacher".
    """
    each = np.asarray(a, dtype=np.float64) - weight * np.asarray(b, dtype=np.float64)
    return Difference(float(each.mean()), bootstrap_mean(each, confidence))


def bootstrap_mean(values: np.ndarray, confidence: float) -> Interval:
    """Percentile interval of a mean from :data:`RESAMPLES` resamples, with a fixed seed."""
    rng = np.random.default_rng(0)
    levels, counts = np.unique(values, return_counts=True)
    # Resampling rows is drawing how often each distinct value occurs.
    draws = rng.multinomial(len(values), counts / len(values), size=RESAMPLES)
    means = draws @ levels / len(values)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return (float(low), float(high))
