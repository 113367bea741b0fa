"""Grades of a scripted judge."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.evaluation.quality import Outputs, tally
from slmops.evaluation.rubric import RUBRIC_SCORE, ask_grades, grade_questions, rubric_scores
from slmops.tasks.base import open_task
from slmops.tasks.judge import read_grade
from slmops.teachers.base import Request
from slmops.teachers.replies import AskParams
from tests.unit.teachers.scripted import Scripted

TASK = open_task("conversation", {"assertions": [{"lacks": "damn"}]})
ROWS = [Row.of(f"what is {number}?", f"it is {number}") for number in range(4)]


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Clear.\nGrade: 4", "4"),
        ("**Grade:** 5/5", "5"),
        ("Grade (1-5): 2", "2"),
        ("Grade: 2. No, Grade: 3", "3"),
        ("4", "4"),
        ("Grade: 10", None),
        ("Grade: 3.5", None),
        ("Grade: 0", None),
        ("good", None),
    ],
)
def test_the_last_grade_of_a_text_counts(text: str, grade: str | None) -> None:
    assert read_grade(text) == grade


def test_each_valid_answer_is_graded_once_and_an_invalid_one_has_the_worst_grade(tmp_path: Path) -> None:
    def says(request: Request) -> str:
        graded = request.messages[1]["content"].partition("Answer to grade:")[2]
        return "hm" if "maybe" in graded else f"Grade: {5 if 'it is' in graded else 2}"

    made = Outputs(TASK, [*ROWS, ROWS[0]], ["it is 0", "no", "damn", "maybe", "it is 0"])
    judge = Scripted("judge", says)
    questions = grade_questions(made, "Be strict.")
    answered = ask_grades(judge, questions, AskParams(max_new_tokens=50), tmp_path, attempts=2)
    scores = rubric_scores(questions, answered)
    assert (scores[:3], math.isnan(scores[3]), scores[4]) == ([5.0, 2.0, 1.0], True, 5.0)
    assert len(judge.asked) == 4  # the same question once, the one without a grade twice
    system, user = (turn["content"] for turn in judge.asked[0].messages)
    assert "Be strict." in system
    assert all(part in user for part in ("what is 0?", "An answer that is right:\nit is 0", "Answer to grade:\nit is 0"))
    counted = Outputs(TASK, made.rows, made.answers, scores={RUBRIC_SCORE: scores})
    assert tally("rubric_score", counted).value == pytest.approx(13 / 4)
