"""One measured model of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from slmops.artifact import Artifact
from slmops.data.rows import Row
from slmops.evaluation.measures import MEASURES
from slmops.files import read_json
from slmops.tasks.base import Task, rejection

RESULT = "result.json"


@dataclass(frozen=True)
class System:
    """What was measured of one model on the test set.

    Args:
        name: Row of the comparison, such as ``distilled``.
        runtime: Engine it ran on.
        precision: Of its weights.
        measures: By name in the table of measures.
        answers: The answer to each test row, as generated.
        correct: 1 where it is right, in the order of the test rows.
        latencies_ms: Times of single requests.
        primary_measure: The measure that decides.
        scores: That measure of each row by itself, in the order of the test rows.
        beside: The same of further measures.
    """

    name: str
    runtime: str
    precision: str
    measures: Mapping[str, float]
    answers: tuple[str, ...]
    correct: tuple[int, ...]
    latencies_ms: tuple[float, ...]
    primary_measure: str
    scores: tuple[float, ...]
    beside: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """The primary measure over all test rows."""
        return self.measures[self.primary_measure]

    def values(self, measure: str) -> tuple[float, ...] | None:
        """What a measure is the mean of, row by row; ``None`` where it is a measure of the whole set, or not measured."""
        of_rows = MEASURES[measure].of_rows if measure in self.measures else ""
        if not of_rows:
            return None
        known = {**self.beside, self.primary_measure: self.scores}
        return known.get(measure, self.correct if of_rows == "right" else None)

    def decided_by(self, measure: str, scores: Sequence[float]) -> System:
        """The same with another measure that decides, the mean of these scores; what decided before stays beside it."""
        measures = {**self.measures, measure: sum(scores) / len(scores)}
        beside = {**self.beside, self.primary_measure: self.scores}
        return replace(self, measures=measures, primary_measure=measure, scores=tuple(scores), beside=beside)

    @classmethod
    def load(cls, name: str, artifact: Artifact) -> System:
        """Read a measurement under the name of its row."""
        result = read_json(artifact.path / RESULT)
        return cls(
            name=name,
            runtime=result["runtime"],
            precision=result["precision"],
            measures=artifact.manifest.measures,
            answers=tuple(result["answers"]),
            correct=tuple(result["correct"]),
            latencies_ms=tuple(result["latencies_ms"]),
            primary_measure=result["primary_measure"],
            scores=tuple(result["scores"]),
        )


def judged(task: Task, answers: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """The part of ``RESULT`` that is about the answers: measures over all, and what each row counts for.

    ``scores`` has the primary measure of each row by itself, which is 1 or 0 where an answer is right or wrong. Where a row
    has several right answers, an answer is compared with the one that gives it the best primary measure, as SQuAD and SciTLDR do.
    """
    references = [_nearest(task, answer, row) for answer, row in zip(answers, rows, strict=True)]
    pairs = list(zip(answers, references, strict=True))
    correct = [int(task.correct(answer, reference)) for answer, reference in pairs]
    primary = task.primary_measure
    right = MEASURES[primary].of_rows == "right"
    return {
        "quality": task.score(answers, references),
        "answers": list(answers),
        "correct": correct,
        "primary_measure": primary,
        "scores": correct if right else [task.score([answer], [reference])[primary] for answer, reference in pairs],
    }


def _nearest(task: Task, answer: str, row: Row) -> str:
    """Of a row's right answers the one that gives an answer the best primary measure; of equals the first."""
    first, *others = row.answers
    valid = [first, *(other for other in others if rejection(task, other) is None)]
    return valid[0] if len(valid) == 1 else max(valid, key=lambda one: task.score([answer], [one])[task.primary_measure])
