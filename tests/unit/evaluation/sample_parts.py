"""Parts of the sample reports: labels, slices, calibration and load."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

DECODING = {
    "sampling": "greedy, at most 16 new tokens, stops at the end token",
    "template": "{{ messages[-1]['content'] }} =>",
    "prompt": "Which of the 18 subjects is this message about? Answer with the subject alone.",
}


def throughput(rate: float, p50: float) -> list[dict[str, Any]]:
    """A rate that grows up to four requests at once, and times that grow with them."""
    gains = {1: 0.62, 2: 0.85, 4: 1.0, 8: 0.98}
    return [
        {"concurrency": at, "requests_per_s": rate * gain, "p50_ms": p50 * at / gain, "p95_ms": 1.2 * p50 * at / gain}
        for at, gain in gains.items()
    ]


def classes(labels: Sequence[str], rows: Sequence[str]) -> list[dict[str, Any]]:
    """Scores of every label and row."""
    chance = random.Random(5)
    scores = []
    for row in rows:
        for label in labels:
            precision, recall = chance.uniform(0.68, 1), chance.uniform(0.62, 1)
            f1 = 2 * precision * recall / (precision + recall)
            scores.append({"row": row, "label": label, "precision": precision, "recall": recall, "f1": f1, "rows": 22})
    return scores


def reliability(row: str, gap: float) -> dict[str, Any]:
    """Eight bins of a model that is surer than it is right."""
    bins = [
        {"confidence": at, "accuracy": max(0.0, at - gap * math.sin(math.pi * at) * 1.6), "rows": round(8 + 190 * at**6)}
        for at in (0.28, 0.36, 0.45, 0.55, 0.66, 0.75, 0.86, 0.97)
    ]
    return {"row": row, "ece": gap, "bins": bins}


def slices() -> list[dict[str, Any]]:
    """Slices of what is packaged, good and bad."""
    table = (
        ("label", "exchange size", 22, 0.636, 0.43, 0.80, -0.235, "worse"),
        ("question length", "over 120 characters", 41, 0.732, 0.58, 0.84, -0.140, "worse"),
        ("source", "chat", 118, 0.822, 0.74, 0.88, -0.051, "INCONCLUSIVE"),
        ("question length", "under 40 characters", 96, 0.844, 0.76, 0.90, -0.019, "INCONCLUSIVE"),
        ("source", "mail", 282, 0.873, 0.83, 0.91, 0.051, "INCONCLUSIVE"),
        ("label", "newsletter", 23, 1.0, 0.86, 1.0, 0.151, "better"),
    )
    return [
        {
            "row": "packaged",
            "column": column,
            "value": value,
            "rows": rows,
            "measure": "accuracy",
            "score": score,
            "interval": [low, high],
            "difference": difference,
            "word": word,
        }
        for column, value, rows, score, low, high, difference, word in table
    ]
