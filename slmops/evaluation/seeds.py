"""Several training seeds: what they differ by enters the interval beside what the test rows do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from slmops.evaluation.proportions import Interval
from slmops.evaluation.resampling import resampled, resamples_of, student, student_p
from slmops.evaluation.tally import Tally


@dataclass(frozen=True)
class OverSeeds:
    """A figure over rows and training seeds; the fields are those of ``stats.Difference``."""

    value: float
    interval: Interval
    p_value: float
    rows: int
    method: str
    grown: Callable[[float], Interval]


def over_seeds(groups: Sequence[tuple[float, Sequence[Tally]]], confidence: float) -> OverSeeds:
    """A weighted sum of models, each the mean over its training seeds, by a bootstrap over rows and seeds.

    Each resample draws rows, the same for all, and the seeds of each model (the hierarchical bootstrap, Davison & Hinkley
    1997, section 3.8). Drawing from so few seeds shows too little of what seeds do: their part is made larger by the usual
    ``n / (n - 1)``, and the ends are moved out by Student's distribution with Satterthwaite's degrees of freedom (1946).

    Args:
        groups: Of each model its weight and its tallies, one a seed. All are of the same rows.
        confidence: Such as 0.95.
    """
    tallies = [tally for _, of_model in groups for tally in of_model]
    drawn, rows = iter(resampled(tallies)), len(tallies[0].rows)
    rng = np.random.default_rng(1)
    values, by_rows, value = np.zeros(()), np.zeros(()), 0.0
    of_seeds: list[tuple[float, float]] = []  # variance, degrees of freedom
    for weight, of_model in groups:
        own = np.stack([next(drawn) for _ in of_model])
        seeds, mean = len(of_model), own.mean(axis=0)
        by_rows = by_rows + weight * mean
        values = values + weight * mean
        points = np.array([tally.value for tally in of_model])
        value += weight * float(points.mean())
        if seeds > 1:
            chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=own.shape[1]).T
            off = (chosen * own).mean(axis=0) - mean
            values = values + weight * math.sqrt(seeds / (seeds - 1)) * off
            of_seeds.append((weight**2 * float(points.var(ddof=1)) / seeds, seeds - 1))
    told = ~np.isnan(values)
    from_rows, from_seeds = float(by_rows[told].var()) if told.any() else 0.0, sum(variance for variance, _ in of_seeds)
    most = max(len(of_model) for _, of_model in groups)
    method = f"bootstrap over rows and {most} training seeds, {resamples_of(tallies):,} resamples"
    total = from_rows + from_seeds
    if not told.any() or total == 0:  # nothing varies, so nothing is known of what could
        return OverSeeds(value, (math.nan, math.nan), 1.0, rows, method, lambda times: (math.nan, math.nan))
    parts = [(from_rows, rows - 1), *of_seeds]
    freedom = total**2 / sum(variance**2 / max(free, 1) for variance, free in parts)
    outside = (1 - confidence) / 2
    further = student(confidence, freedom) / NormalDist().inv_cdf(1 - outside)
    low, high = (float(end) for end in np.quantile(values[told], [outside, 1 - outside]))
    shares = len(groups) == 1 and all(_is_share(tally) for tally in tallies)

    def grown(times: float) -> Interval:
        narrower = math.sqrt((from_rows / times + from_seeds) / total)
        found = (value + narrower * further * (low - value), value + narrower * further * (high - value))
        return (max(0.0, found[0]), min(1.0, found[1])) if shares else found

    return OverSeeds(value, grown(1), student_p(value / math.sqrt(total), freedom), rows, method, grown)


def _is_share(tally: Tally) -> bool:
    scores = tally.scores
    return scores is not None and bool(((scores >= 0) & (scores <= 1)).all())
