"""One measured model of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from slmops.artifact import Artifact
from slmops.data.rows import Row
from slmops.evaluation.tally import Tally
from slmops.files import read_json
from slmops.tasks.base import Task, nearest_answer

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
        tallies: Measures of the answers by rows, in the order of the test rows, the one that decides among them.
        seeds: The same of the model trained with other seeds, on the same rows.
        throughput: Requests a second by how many are asked at once, as ``Row.throughput`` of a report.
        decoding: How the answers were made: sampling, template, prompts, whether they can depend on batching.
    """

    name: str
    runtime: str
    precision: str
    measures: Mapping[str, float]
    answers: tuple[str, ...]
    correct: tuple[int, ...]
    latencies_ms: tuple[float, ...]
    primary_measure: str
    tallies: Mapping[str, Tally] = field(default_factory=dict, compare=False)
    seeds: tuple[Mapping[str, Tally], ...] = field(default=(), compare=False)
    throughput: tuple[Mapping[str, float], ...] = ()
    decoding: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """The primary measure over all test rows."""
        return self.measures[self.primary_measure]

    def decided_by(self, measure: str, scores: Sequence[float]) -> System:
        """The same with another measure that decides, the mean of these scores; what decided before stays beside it."""
        tally = Tally.mean(scores)
        measures, tallies = {**self.measures, measure: tally.value}, {**self.tallies, measure: tally}
        return replace(self, measures=measures, primary_measure=measure, tallies=tallies)

    @classmethod
    def load(cls, name: str, artifact: Artifact, tallies: Mapping[str, Tally]) -> System:
        """Read a measurement under the name of its row.

        Args:
            name: Of the row of the comparison.
            artifact: The measurement.
            tallies: Its answers as measures by rows; their values stand for those of the measurement.
        """
        result = read_json(artifact.path / RESULT)
        values = {measure: tally.value for measure, tally in tallies.items() if not math.isnan(tally.value)}
        return cls(
            name=name,
            runtime=result["runtime"],
            precision=result["precision"],
            measures={**artifact.manifest.measures, **values},
            answers=tuple(result["answers"]),
            correct=tuple(result["correct"]),
            latencies_ms=tuple(result["latencies_ms"]),
            primary_measure=result["primary_measure"],
            tallies=tallies,
            throughput=tuple(result.get("throughput", ())),
            decoding=result.get("decoding", {}),
        )


def judged(task: Task, answers: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """The part of ``RESULT`` that is about the answers: measures over all, and which are right.

    Where a row has several right answers, an answer is compared with the one that gives it the best primary measure, as
    SQuAD and SciTLDR do.
    """
    references = [nearest_answer(task, answer, row) for answer, row in zip(answers, rows, strict=True)]
    return {
        "quality": task.score(answers, references),
        "answers": list(answers),
        "correct": [int(task.correct(answer, reference)) for answer, reference in zip(answers, references, strict=True)],
        "primary_measure": task.primary_measure,
    }
