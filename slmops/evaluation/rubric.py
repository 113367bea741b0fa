"""Answers before a judge one by one: a grade from 1 to 5 by a rubric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slmops.data.rows import Row
from slmops.evaluation.judging import ask_judge, shown, verdicts_of
from slmops.evaluation.outputs import Outputs
from slmops.tasks.judge import GRADES_RUBRIC, Grades, grading
from slmops.teachers.answered import Answered
from slmops.teachers.base import Teacher
from slmops.teachers.replies import AskParams

RUBRIC_SCORE = "rubric_score"
"""Name of the measure, and of its scores in ``Outputs.scores``."""


def grade_questions(outputs: Outputs, rubric: str = GRADES_RUBRIC) -> list[Row | None]:
    """What a judge is asked about each answer in its normal form; ``None`` for an invalid one, whose grade is 1."""
    rows = zip(outputs.rows, outputs.read, outputs.expected, strict=True)
    return [
        None if answer is None else Row.of(grading(shown(outputs.task, row), answer, expected, rubric))
        for row, answer, expected in rows
    ]


def ask_grades(judge: Teacher, questions: Sequence[Row | None], params: AskParams, work: Path, attempts: int) -> Answered:
    """Let a judge grade, each question once; one without a grade is asked again, by sampling.

    Args are those of :func:`~slmops.evaluation.judging.ask_judge`; several judges were opened with the task
    :class:`~slmops.tasks.judge.Grades`.

    Raises:
        TeacherError: It refuses for good, or does not answer for too long. Grades so far are kept.
    """
    unique = {question.id: question for question in questions if question is not None}
    return ask_judge(judge, list(unique.values()), params, work, attempts, said=Grades())


def rubric_scores(questions: Sequence[Row | None], answered: Answered) -> list[float]:
    """The grade of each row; NaN where the judge gave none."""
    said = verdicts_of(answered)
    grades = [said.get(question.id) if question is not None else "1" for question in questions]
    return [float(grade) if grade is not None else float("nan") for grade in grades]
