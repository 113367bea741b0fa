"""The rows of the comparison: their names, titles and what they are."""

from __future__ import annotations

from dataclasses import dataclass

QUANTIZED = "teacher-quantized"
AS_PACKAGED = "teacher-as-packaged"


@dataclass(frozen=True)
class RowInfo:
    """How a row is shown."""

    name: str
    title: str
    note: str


ROWS = (
    RowInfo("tfidf", "TF-IDF + logistic regression", "no language model, labelled rows alone"),
    RowInfo("teacher", "Teacher", "the reference"),
    RowInfo(QUANTIZED, "Teacher, quantized", "the teacher on the student's engine"),
    RowInfo(AS_PACKAGED, "Teacher, converted as the package", "the teacher on the student's engine and precision"),
    RowInfo("untuned", "Student, untuned", "before any training"),
    RowInfo("control", "Control: fine-tuned", "the student on the labelled rows alone, as many updates"),
    RowInfo("answers-only", "Student on answers", "the teacher's answers, without its signals"),
    RowInfo("distilled", "Distilled", "the teacher's answers and signals"),
    RowInfo("packaged", "Packaged", "what is served"),
)
STUDENTS = ("control", "answers-only", "distilled")
