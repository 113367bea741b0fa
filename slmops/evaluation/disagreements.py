"""The test rows on which two models answer most differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slmops.data.rows import Row

MOST = 10
"""How many a report shows."""


@dataclass(frozen=True)
class Answered:
    """What a row of the comparison answered, in the order of the test rows.

    Args:
        name: Of the row.
        answers: As generated.
        scores: The primary measure of each answer by itself; None where it has none.
        right: Whether each answer is right; None where answers are neither right nor wrong.
    """

    name: str
    answers: Sequence[str]
    scores: Sequence[float] | None
    right: Sequence[bool] | None


def largest_disagreements(rows: Sequence[Row], a: Answered, b: Answered) -> list[dict[str, Any]]:
    """The :data:`MOST` rows whose answers differ by the largest difference of scores, as parts of a report.

    Answers that differ in case and outer spaces alone are the same. Of equal differences the earlier row comes first.

    Args:
        rows: The test rows.
        a: The teacher, where there is one.
        b: What is packaged, where something is.
    """
    differing = [at for at in range(len(rows)) if _plain(a.answers[at]) != _plain(b.answers[at])]
    if a.scores is not None and b.scores is not None:
        gaps = [abs(x - y) for x, y in zip(a.scores, b.scores, strict=True)]
        differing.sort(key=lambda at: -gaps[at])
    return [
        {
            "question": rows[at].question,
            "expected": str(rows[at].answer),
            "a": a.name,
            "b": b.name,
            "a_answer": a.answers[at].strip(),
            "b_answer": b.answers[at].strip(),
            "a_right": None if a.right is None else bool(a.right[at]),
            "b_right": None if b.right is None else bool(b.right[at]),
            "a_score": None if a.scores is None else float(a.scores[at]),
            "b_score": None if b.scores is None else float(b.scores[at]),
        }
        for at in differing[:MOST]
    ]


def _plain(answer: str) -> str:
    return answer.strip().casefold()
