"""Quantiles of request times, with intervals from the times themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from slmops.evaluation.proportions import Interval, mover
from slmops.evaluation.stats import Estimate

QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
"""Measures that are a quantile of the single requests' times."""


_MANY = 2_000


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share of all stays at or below, between neighbours linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def quantile(times: Sequence[float], share: float, confidence: float) -> Estimate:
    """A quantile of times with an interval between two of them, whatever their distribution (Thompson 1936).

    How many of the times lie below the true quantile is binomial, which says which two hold it. Where no time is certain
    enough to be above it, the longest is the upper end if it is above it with the confidence by itself (59 times for p95 at
    95 %), else the upper end is infinite; the lower end likewise, or 0.

    Args:
        times: Of single requests, in any unit; at least one.
        share: Such as 0.95 for p95.
        confidence: Of the interval.
    """
    ordered = sorted(times)

    def at(more: float) -> Interval:
        return _limits(ordered, share, confidence, round(len(ordered) * more))

    return Estimate(percentile(ordered, share), at(1), rows=len(ordered), method="order statistics of the times", grown=at)


def quantile_difference(
    a: Sequence[float], b: Sequence[float], share: float, confidence: float, *, weight: float = 1.0
) -> Estimate:
    """``a - weight * b`` of one quantile of two models' times, by both intervals (Zou & Donner 2008).

    Args:
        a: One model's times.
        b: The other's.
        share: Such as 0.95 for p95.
        confidence: Of the interval.
        weight: Of the second, above 0.
    """
    of_a, of_b = quantile(a, share, confidence), quantile(b, share, confidence)
    value = of_a.value - weight * of_b.value

    def at(more: float) -> Interval:
        (low_a, high_a), (low_b, high_b) = (found.grown(more) if found.grown else found.interval for found in (of_a, of_b))
        return mover(of_a.value, (low_a, high_a), weight * of_b.value, (weight * low_b, weight * high_b))

    return Estimate(value, at(1), rows=min(of_a.rows, of_b.rows), method=of_a.method, grown=at)


def _limits(ordered: Sequence[float], share: float, confidence: float, count: int) -> Interval:
    """The ends of the interval that so many times would have, if they are spread as these are."""
    outside = (1 - confidence) / 2
    low, high = _ranks(share, outside, count)
    if low is None and (1 - share) ** count <= 2 * outside:
        low = 1
    if high is None and share**count <= 2 * outside:
        high = count
    value = percentile(ordered, share)  # between two times it may lie just outside of these
    least = _at(ordered, low, count) if low is not None else 0.0
    most = _at(ordered, high, count) if high is not None else math.inf
    return (min(least, value), max(most, value))


def _ranks(share: float, outside: float, count: int) -> tuple[int | None, int | None]:
    """The ranks, from 1, of the two times that hold the quantile; ``None`` where no time is certain enough."""
    if count > _MANY:
        middle, half = count * share, NormalDist().inv_cdf(1 - outside) * math.sqrt(count * share * (1 - share))
        return max(1, math.floor(middle - half)), min(count, math.ceil(middle + half) + 1)
    below = 0.0
    low: int | None = None
    high: int | None = None
    for rank in range(count):  # the chance that at most so many times are below the quantile
        below += math.exp(
            math.lgamma(count + 1)
            - math.lgamma(rank + 1)
            - math.lgamma(count - rank + 1)
            + rank * math.log(share)
            + (count - rank) * math.log1p(-share)
        )
        if below <= outside:
            low = rank + 1
        if high is None and below >= 1 - outside:
            high = rank + 1
    return low, high


def _at(ordered: Sequence[float], rank: int, count: int) -> float:
    """The time of a rank among so many; where these are more than there are, the one as far along."""
    return ordered[min(len(ordered) - 1, math.ceil(rank * len(ordered) / count) - 1)]
