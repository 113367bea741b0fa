"""What a measure is made of, row by row: numbers that add up, and how their sums become the measure.

Every measure of answers has this form: a mean adds up scores and counts rows, BLEU adds up matched n-grams, F1 adds up right,
wrong and missed answers. Intervals and paired tests resample rows and need nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tally:
    """A measure as numbers of each test row.

    Args:
        rows: Shape (test rows, numbers of a row), float64, in the order of the test rows.
        of: From sums over rows, shape (..., numbers of a row), to the measure, shape (...). NaN where the sums say nothing.
    """

    rows: np.ndarray
    of: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def mean(cls, scores: Sequence[float]) -> Tally:
        """The mean of one score a row."""
        values = np.asarray(scores, dtype=np.float64)
        return cls.ratio(values, np.ones_like(values))

    @classmethod
    def ratio(cls, above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray) -> Tally:
        """The sum of one number a row over the sum of another, such as right answers over rows that count."""
        return cls(np.stack([np.asarray(above, np.float64), np.asarray(below, np.float64)], axis=1), _ratio)

    @classmethod
    def fixed(cls, value: float, rows: int) -> Tally:
        """A number of the whole set that no sums give: it is NaN for any other choice of rows, so it has no interval."""
        # Numbers that no other choice of as many rows adds up to.
        marks = np.random.default_rng(0).random((rows, 2))
        return cls(marks, _Whole(value, marks.sum(axis=0)))

    @property
    def whole(self) -> bool:
        """Whether the measure is known of all rows alone; it has no interval then."""
        return isinstance(self.of, _Whole)

    @property
    def value(self) -> float:
        """The measure over all rows."""
        return float(self.of(self.rows.sum(axis=0)))

    @property
    def scores(self) -> np.ndarray | None:
        """One score a row, shape (rows,), where the measure is their mean; else ``None``."""
        return self.rows[:, 0] if self.of is _ratio and bool((self.rows[:, 1] == 1).all()) else None

    @property
    def each(self) -> np.ndarray:
        """The measure of each row by itself, shape (rows,); 0 where a row alone says nothing."""
        values: np.ndarray = np.nan_to_num(self.of(self.rows), nan=0.0, posinf=0.0, neginf=0.0)
        return values

    def take(self, chosen: Sequence[int]) -> Tally:
        """The same measure of some of the rows."""
        return Tally(self.rows[list(chosen)], self.of)


@dataclass(frozen=True)
class _Whole:
    """The value where the sums are those of all rows, else NaN."""

    value: float
    sums: np.ndarray

    def __call__(self, sums: np.ndarray) -> np.ndarray:
        return np.where(np.isclose(sums, self.sums, rtol=1e-9, atol=0).all(axis=-1), self.value, np.nan)


def _ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: np.ndarray = sums[..., 0] / sums[..., 1]
    return quotient
