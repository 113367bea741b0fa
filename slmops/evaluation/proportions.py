"""Shares of rows that are right: their intervals and tests in closed form, which hold for few rows too.

Where a few rows all agree a bootstrap has no width at all; these intervals have one.
"""

from __future__ import annotations

import math
from statistics import NormalDist

Interval = tuple[float, float]


def wilson(successes: float, total: float, confidence: float) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); it stays within 0 and 1 and is right for few rows."""
    if total == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # Rounding must not keep a bound from 0 or 1, which gates compare with.
    return (max(0.0, centre - half) if successes else 0.0, min(1.0, centre + half) if successes < total else 1.0)


def mover(a: float, of_a: Interval, b: float, of_b: Interval, correlation: float = 0.0) -> Interval:
    """Interval of ``a - b`` from the intervals of both: the method of variance estimates recovery (Zou & Donner 2008).

    Args:
        a: A figure.
        of_a: Its interval.
        b: What is taken from it.
        of_b: Its interval.
        correlation: Of the two estimates, -1 to 1.
    """
    (low_a, high_a), (low_b, high_b) = of_a, of_b
    return (a - b - _joined(a - low_a, high_b - b, correlation), a - b + _joined(high_a - a, b - low_b, correlation))


def paired_shares(both: float, only_a: float, only_b: float, neither: float, confidence: float, *, weight: float = 1.0) -> Interval:
    """Interval of ``share a - weight * share b`` where both are of the same rows.

    Method 10 of Newcombe (1998, Statistics in Medicine 17, 2635): Wilson's limits and the correlation of the two shares,
    corrected for continuity where it is positive. With a weight it is the same by :func:`mover`.

    Args:
        both: Rows that both have right.
        only_a: Rows that the first has right alone.
        only_b: Rows that the second has right alone.
        neither: Rows that neither has right.
        confidence: Such as 0.95.
        weight: Of the second share, above 0.
    """
    total = both + only_a + only_b + neither
    if total == 0:
        return (-weight, 1.0)
    right_a, right_b = both + only_a, both + only_b
    spread = math.sqrt(right_a * right_b * (total - right_a) * (total - right_b))
    together = both * neither - only_a * only_b
    correlation = (max(together - total / 2, 0) if together > 0 else together) / spread if spread else 0.0
    low, high = wilson(right_b, total, confidence)
    of_b = (weight * low, weight * high)
    return mover(right_a / total, wilson(right_a, total, confidence), weight * right_b / total, of_b, correlation)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value that two models are right equally often (McNemar 1947), from the rows that one has right alone."""
    discordant = only_a + only_b
    tail = sum(math.comb(discordant, count) for count in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / (1 << discordant))


def fisher(right_a: int, rows_a: int, right_b: int, rows_b: int) -> float:
    """Two-sided exact p-value that two groups of different rows have one share of right ones (Fisher 1922).

    It adds up all tables that are no likelier than the one seen.
    """
    right, total = right_a + right_b, rows_a + rows_b
    counts = range(max(0, right - rows_b), min(rows_a, right) + 1)
    logs = {count: _log_comb(rows_a, count) + _log_comb(rows_b, right - count) - _log_comb(total, right) for count in counts}
    seen = logs[right_a] + 1e-7  # tables as likely as the one seen differ by rounding
    return min(1.0, sum(math.exp(log) for log in logs.values() if log <= seen))


def _joined(one: float, other: float, correlation: float) -> float:
    if not correlation:
        return math.hypot(one, other)  # also where one of them is infinite
    return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))


def _log_comb(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
