"""A measure as numbers of rows that add up."""

from __future__ import annotations

import numpy as np
import pytest

from slmops.evaluation.tally import Tally


def test_a_mean_knows_its_scores_and_a_ratio_does_not() -> None:
    mean = Tally.mean([1.0, 0.0, 0.5])
    assert mean.value == pytest.approx(0.5)
    assert mean.scores is not None
    assert mean.scores.tolist() == [1.0, 0.0, 0.5]
    assert Tally.ratio([1, 2], [1, 3]).scores is None
    assert Tally.ratio([1, 2], [1, 3]).value == pytest.approx(0.75)


def test_resampled_sums_give_one_value_each_and_nan_where_nothing_counts() -> None:
    tally = Tally.ratio([1, 0, 1], [1, 1, 0])
    weights = np.array([[1, 1, 1], [2, 1, 0], [0, 0, 3]])
    values = tally.of(weights @ tally.rows)
    assert values[:2].tolist() == pytest.approx([1.0, 2 / 3])
    assert np.isinf(values[2])


def test_some_of_the_rows() -> None:
    assert Tally.mean([1.0, 0.0, 0.5]).take([0, 2]).value == pytest.approx(0.75)
