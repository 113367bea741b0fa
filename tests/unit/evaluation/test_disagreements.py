"""Which test rows are shown as disagreements."""

from __future__ import annotations

from slmops.data.rows import Row
from slmops.evaluation.disagreements import MOST, Answered, largest_disagreements

ROWS = [Row.of(f"question {index}", f"answer {index}") for index in range(20)]


def test_the_largest_differences_come_first_and_equal_answers_not_at_all() -> None:
    teacher = Answered("teacher", [f"Answer {index} " for index in range(20)], [1.0] * 20, None)
    ours = Answered(
        "packaged", [f"answer {index}" if index % 2 else "other" for index in range(20)], [i / 20 for i in range(20)], None
    )
    found = largest_disagreements(ROWS, teacher, ours)
    assert [item["question"] for item in found[:3]] == ["question 0", "question 2", "question 4"]
    assert len(found) == MOST
    assert found[1] == {
        "question": "question 2",
        "expected": "answer 2",
        "a": "teacher",
        "b": "packaged",
        "a_answer": "Answer 2",
        "b_answer": "other",
        "a_right": None,
        "b_right": None,
        "a_score": 1.0,
        "b_score": 0.1,
    }


def test_rows_that_one_of_both_has_right_come_before_those_that_both_have_wrong() -> None:
    teacher = Answered("teacher", ["x"] * 20, [0.0] * 19 + [1.0], [False] * 19 + [True])
    ours = Answered("packaged", ["y"] * 20, [0.0] * 20, [False] * 20)
    first, second, *_ = largest_disagreements(ROWS, teacher, ours)
    assert (first["question"], first["a_right"], first["b_right"]) == ("question 19", True, False)
    assert second["question"] == "question 0"


def test_without_scores_the_rows_come_in_their_order() -> None:
    teacher, ours = (Answered(name, [name] * 20, None, None) for name in "ab")
    assert [item["question"] for item in largest_disagreements(ROWS, teacher, ours)] == [row.question for row in ROWS[:MOST]]
