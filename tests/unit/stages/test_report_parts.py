"""Sentences and parts that reports share."""

from __future__ import annotations

from slmops.evaluation.stats import Difference, paired
from slmops.evaluation.tally import Tally
from slmops.stages.parts import needed_part


def difference(right_a: int, right_b: int, rows: int) -> Difference:
    return paired(Tally.mean([1] * right_a + [0] * (rows - right_a)), Tally.mean([1] * right_b + [0] * (rows - right_b)), 0.95)


def test_so_many_more_rows_would_tell_two_models_apart() -> None:
    [said] = needed_part("a", "b", difference(42, 40, 60))
    assert said.endswith("more test rows would tell a and b apart, if they come out as these did.")
    assert int(said.split()[1].replace(",", "")) > 60
    assert needed_part("a", "b", difference(50, 20, 60)) == []


def test_a_handful_of_rows_is_never_said_to_be_enough() -> None:
    [said] = needed_part("a", "b", difference(44, 40, 60))  # 9 by the formula
    assert said.startswith("About 15 more test rows")
