"""Answers before and after a training: scores by hand, and which rows are shown."""

from __future__ import annotations

import pytest

from slmops.data.rows import Row
from slmops.stages.before_after import compare, is_scored
from slmops.tasks.base import open_task

LABELS = ["joy", "fear"]
ROWS = [Row.of(f"question {n}", LABELS[n % 2], f"rows.csv:{n}") for n in range(40)]
RIGHT = [str(row.answer) for row in ROWS]


def test_scores_have_intervals_and_one_answer_to_all_beside_them() -> None:
    task = open_task("classification", {"labels": LABELS})
    found = compare(task, ROWS, ["nothing at all"] * 40, [*RIGHT[:36], "joy", "joy", "joy", "joy"], "joy")
    assert (found["measure"], found["rows"]) == ("accuracy", 40)
    assert found["before"]["value"] == 0
    assert found["after"]["value"] == pytest.approx(38 / 40)
    low, high = found["after"]["interval"]
    assert 0.8 < low < 38 / 40 < high < 1
    assert found["constant"]["answer"] == "joy"
    assert found["constant"]["value"] == 0.5
    assert (found["difference"]["word"], found["against_constant"]["word"]) == ("better", "better")
    assert found["against_constant"]["value"] == pytest.approx(18 / 40)


def test_wrong_answers_are_shown_first_then_those_that_became_right() -> None:
    task = open_task("classification", {"labels": LABELS})
    before = [*RIGHT[:38], "fear", "joy"]  # wrong in the last two
    after = ["fear", *RIGHT[1:]]
    shown = compare(task, ROWS, before, after, "joy")["examples"]
    assert len(shown) == 8
    assert [one["right"] for one in shown] == [False] + [True] * 7
    assert (shown[0]["question"], shown[0]["reference"], shown[0]["after"]) == ("question 0", "joy", "fear")
    assert [one["was_right"] for one in shown[1:]] == [False, False] + [True] * 5


def test_without_rows_there_is_nothing_to_say() -> None:
    assert compare(open_task("classification", {"labels": LABELS}), [], [], [], "joy") == {"rows": 0}


@pytest.mark.parametrize(
    ("task", "scored"),
    [("classification", True), ("extraction", True), ("qa", True), ("generation", False), ("conversation", False)],
)
def test_free_text_is_not_scored(task: str, scored: bool) -> None:
    assert is_scored(task) == scored
