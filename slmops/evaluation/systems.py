"""One measured model of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slmops.artifact import Artifact
from slmops.files import read_json

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
    """

    name: str
    runtime: str
    precision: str
    measures: Mapping[str, float]
    answers: tuple[str, ...]
    correct: tuple[int, ...]
    latencies_ms: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.correct) / len(self.correct)

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
        )
