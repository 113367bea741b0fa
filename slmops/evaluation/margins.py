"""Margins: not worse by more than so much, and how many test rows it takes to show that."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

from slmops.evaluation.proportions import Interval
from slmops.evaluation.stats import Estimate

Verdict = Literal["passed", "failed", "INCONCLUSIVE"]

_MOST_ROWS = 100_000_000


def settle(found: Estimate, bound: float, *, at_least: bool = True) -> tuple[Verdict, int | None]:
    """Whether a figure keeps to a bound, and where that is open, how many more rows would settle it (``None``: no number would).

    It is by the end of the two-sided interval. For "not worse by more than a margin", a difference that is at least minus the
    margin, that is stricter than the one-sided test at the same confidence: with 0.95 a model that is worse by the whole
    margin passes in 2.5 % of cases, not in 5 % (ICH E9; Piaggio et al. 2012).

    Args:
        found: The figure, or the difference of two.
        bound: What it is held against, in the measure's own unit.
        at_least: Whether the bound is the least it may be, else the most.
    """
    upward, least = (found, bound) if at_least else (negative(found), -bound)
    verdict = decided(upward.interval, least)
    return verdict, rows_to_settle(upward, least) if verdict == "INCONCLUSIVE" else None


def decided(interval: Interval, bound: float) -> Verdict:
    """Whether a figure is at least a bound: by the ends of its interval; INCONCLUSIVE where nothing can be told."""
    low, high = interval
    if low >= bound:
        return "passed"
    return "failed" if high < bound else "INCONCLUSIVE"


def negative(found: Estimate) -> Estimate:
    """The same figure with its sign turned, for measures where lower is better."""
    grown = found.grown

    def turned(times: float) -> Interval:
        low, high = grown(times) if grown else found.interval
        return (-high, -low)

    return Estimate(-found.value, turned(1), rows=found.rows, method=found.method, grown=turned if grown else None)


def rows_needed(
    margin: float,
    *,
    discordant: float | None = None,
    variance: float | None = None,
    difference: float = 0.0,
    confidence: float = 0.95,
    power: float = 0.8,
) -> int:
    """How many test rows a margin needs, said before the run.

    ``(z + z')² variance / distance²`` with the quantiles of the two-sided confidence and of the power (Julious 2004; for
    paired shares Lu & Bean 1995): with so many rows the lower end of the interval stays within the margin in that share of
    runs.

    Args:
        margin: What a model may be worse by; for a single model, how far from the bound it is thought to be.
        discordant: For answers right or wrong: share of rows that just one of both models has right.
        variance: For other scores, in place of ``discordant``: of the differences row by row. For a single model the
            variance of its scores, such as ``p * (1 - p)``.
        difference: The true difference of the models; 0 where they are equally good.
        confidence: Of the interval.
        power: Share of runs that should come to a verdict.

    Raises:
        ValueError: Both or neither of ``discordant`` and ``variance``, or the difference is beyond the margin.
    """
    spread = _spread(discordant, variance, difference)
    distance = margin + difference
    if distance <= 0:
        raise ValueError(f"a model that is worse by {-difference:g} is not within a margin of {margin:g}, whatever the rows")
    return max(1, math.ceil(_quantiles(confidence, power) ** 2 * spread / distance**2))


def rows_to_settle(found: Estimate, bound: float = 0.0) -> int | None:
    """How many more rows would settle which side of a bound a figure is on, if they score as those so far.

    0 where it is settled; ``None`` where no number of rows would do: the figure is exactly on the bound, or what is open is
    what other training seeds would give.
    """
    grown = found.grown
    if decided(found.interval, bound) != "INCONCLUSIVE":
        return 0
    if grown is None or math.isnan(found.value) or math.isclose(found.value, bound, rel_tol=0, abs_tol=1e-12):
        return None

    def settles(more: int) -> bool:
        return decided(grown(1 + more / found.rows), bound) != "INCONCLUSIVE"

    most = 1
    while not settles(most):
        most *= 2
        if most > _MOST_ROWS:
            return None
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if settles(middle) else (middle, most)
    return most


def _spread(discordant: float | None, variance: float | None, difference: float) -> float:
    if discordant is not None and variance is None:
        return discordant - difference**2
    if variance is not None and discordant is None:
        return variance
    raise ValueError("give the share of discordant rows or the variance of the differences")


def _quantiles(confidence: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(0.5 + confidence / 2) + normal.inv_cdf(power)
