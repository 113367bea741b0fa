"""Slices of the test rows, the worst first."""

from __future__ import annotations

import numpy as np
import pytest

from slmops.data.rows import Row
from slmops.evaluation.slices import columns_of, slices
from slmops.evaluation.tally import Tally
from slmops.tasks.base import open_task


def rows_right(shares: dict[str, tuple[int, int]]) -> tuple[Tally, list[str]]:
    """Right answers and rows of each value, and the value of each row."""
    scores = [score for right, rows in shares.values() for score in [1] * right + [0] * (rows - right)]
    return Tally.mean(scores), [value for value, (_, rows) in shares.items() for _ in range(rows)]


def test_the_worst_slice_comes_first_with_its_score_and_its_difference_to_the_other_rows() -> None:
    tally, labels = rows_right({"refund": (54, 60), "delivery": (20, 40), "order": (90, 100)})
    found = slices(tally, {"label": labels}, 0.95).found
    assert [one.value for one in found] == ["delivery", "refund", "order"]
    worst = found[0]
    assert (worst.column, worst.rows, worst.score, worst.word) == ("label", 40, 0.5, "worse")
    assert worst.difference == pytest.approx(0.5 - 144 / 160)
    assert worst.of_difference[0] < worst.difference < worst.of_difference[1] < 0
    assert worst.interval[0] < 0.5 < worst.interval[1]
    assert worst.adjusted == pytest.approx(3 * worst.p_value)
    assert found[1].word == "INCONCLUSIVE"


def test_many_slices_of_one_model_are_not_worse_by_chance() -> None:
    """Of 40 random slices some would be found worse one by one; all together they seldom are."""
    alone = together = 0
    for trial in range(20):
        rng = np.random.default_rng(trial)
        tally = Tally.mean((rng.random(800) < 0.8).astype(float))
        found = slices(tally, {"any": [str(value) for value in rng.integers(0, 40, 800)]}, 0.95).found
        alone += sum(one.p_value < 0.05 for one in found)
        together += any(one.word != "INCONCLUSIVE" for one in found)
    assert alone >= 10
    assert together <= 3


def test_small_slices_and_a_column_of_one_value_are_left_out() -> None:
    tally, labels = rows_right({"a": (0, 9), "b": (10, 10), "c": (15, 30)})
    found = slices(tally, {"label": labels, "source": ["one.csv"] * 49}, 0.95)
    assert {(one.column, one.value) for one in found.found} == {("label", "b"), ("label", "c")}
    assert found.left_out == (("label", "a", 9),)
    nearly_all = ["x"] * 45 + ["y"] * 4
    assert {left[1] for left in slices(tally, {"column": nearly_all}, 0.95).left_out} == {"x", "y"}


def test_rows_without_a_value_are_in_no_slice_but_among_the_others() -> None:
    tally, labels = rows_right({"a": (5, 20), "b": (20, 20)})
    found = slices(tally, {"label": [label if label == "a" else None for label in labels]}, 0.95).found
    assert [(one.value, one.rows, one.difference) for one in found] == [("a", 20, -0.75)]


def f1(rng: np.random.Generator, shares: list[float]) -> Tally:
    rows = np.array([(rng.binomial(3, share), 3, 3) for share in shares], np.float64)
    return Tally(rows, lambda sums: 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2]))


def test_measures_of_the_whole_set_have_slices_too() -> None:
    rng = np.random.default_rng(0)
    lengths = ["short"] * 100 + ["long"] * 60
    tally = f1(rng, [0.9] * 100 + [0.6] * 60)
    found = {one.value: one for one in slices(tally, {"length": lengths}, 0.95).found}
    assert found["long"].word == "worse"
    assert found["short"].word == "better"
    assert found["long"].difference == pytest.approx(-found["short"].difference)
    assert found["long"].score == pytest.approx(tally.take(range(100, 160)).value)
    assert found["long"].of_difference[1] < 0
    same = slices(f1(rng, [0.8] * 160), {"length": lengths}, 0.95).found
    assert {one.word for one in same} == {"INCONCLUSIVE"}


def test_where_lower_is_better_the_highest_is_the_worst() -> None:
    tally = Tally.mean([*np.linspace(1, 2, 40), *np.linspace(3, 5, 40)])
    found = slices(tally, {"kind": ["low"] * 40 + ["high"] * 40}, 0.95, better="lower").found
    assert [(one.value, one.word) for one in found] == [("high", "worse"), ("low", "better")]
    assert found[0].difference > 0


def test_rows_are_cut_by_label_length_source_and_any_column() -> None:
    task = open_task("classification", {"labels": ["yes", "no"]})
    rows = [
        Row.of("x" * (number + 1), "Yes." if number % 3 else "no", f"data/{'a' if number < 12 else 'b'}.csv:{number}")
        for number in range(30)
    ]
    columns = columns_of(rows, task, {"channel": ["mail"] * 30})
    assert list(columns) == ["label", "length", "source", "channel"]
    assert columns["label"][:2] == ["no", "yes"]
    assert columns["length"][9:21] == [
        "short, up to 10 characters",
        *["middle, 11 to 20 characters"] * 10,
        "long, over 20 characters",
    ]
    assert columns["source"][11:13] == ["data/a.csv", "data/b.csv"]
    free = columns_of(rows, open_task("qa", {"kind": "open"}))
    assert list(free) == ["length", "source"]
    same = columns_of([Row.of("four", "yes")] * 5, task)
    assert set(same["length"]) == {"short, up to 4 characters"}
    assert set(same["source"]) == {None}
