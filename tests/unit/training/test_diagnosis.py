"""A curve in words."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.training.diagnosis import diagnose


def curve(losses: list[float], validation: list[float] | None = None) -> list[dict[str, float | None]]:
    looks: list[float | None] = list(validation) if validation else [None] * len(losses)
    return [
        {"step": 10 * n + 10, "loss": loss, "validation": look} for n, (loss, look) in enumerate(zip(losses, looks, strict=True))
    ]


@pytest.mark.parametrize(
    ("losses", "validation", "kind", "since"),
    [
        ([3.0, 1.0, 0.5, 0.4], [2.0, 1.2, 1.0, 1.0], "good", None),
        ([3.0, 1.0, 0.5, 0.4], [2.0, 1.2, 1.0, 0.8], "still learning", None),
        ([3.0, 1.0, 0.5, 0.1], [2.0, 1.2, 1.4, 1.9], "overfitting", 20),
        ([3.0, 3.1, 5.0, 9.0], [2.0, 2.5, 5.0, 9.0], "diverged", 20),
        ([3.0, 3.0, 2.99, 3.01], [2.0, 2.0, 2.0, 1.99], "nothing learned", None),
        ([3.0, 2.5, 2.0, 1.8], [2.0, 1.97, 1.95, 1.94], "hardly learned", None),
        ([3.0, 1.0], None, "unknown", None),
        ([3.0], [2.0], "unknown", None),
    ],
)
def test_what_is_wrong_is_named(losses: list[float], validation: list[float] | None, kind: str, since: int | None) -> None:
    found = diagnose(curve(losses, validation), planned=40)
    assert (found.kind, found.since) == (kind, since)
    assert bool(found.advice) == (kind not in ("good",) and not (kind == "unknown" and len(losses) > 1))
    assert str(found).startswith(f"{kind}: ")


def test_a_run_that_stopped_early_is_not_still_learning() -> None:
    assert diagnose(curve([3.0, 1.0, 0.5], [2.0, 1.2, 1.0]), planned=40).kind == "good"


def test_labels_that_no_training_row_has_come_first() -> None:
    labels = {"refund": {"train": 3, "validation": 1}, "delivery": {"train": 0, "validation": 2}, "rare": {"train": 0, "test": 1}}
    found = diagnose(curve([3.0, 1.0], [2.0, 1.0]), planned=20, labels=labels)
    assert found.kind == "labels never seen"
    assert "label delivery," in found.sentence


FLAT: list[float] = [3.0, 1.0, 0.5, 0.4]
LEARNED = curve(FLAT, [2.0, 1.2, 1.0, 1.0])


def scored(tuned: float, same: float, word: str, rows: int = 40) -> dict[str, Any]:
    return {
        "rows": rows,
        "after": {"value": tuned},
        "constant": {"answer": "joy", "value": same},
        "against_constant": {"word": word},
    }


@pytest.mark.parametrize(
    ("points", "scores", "kind"),
    [
        (LEARNED, scored(0.50, 0.50, "INCONCLUSIVE"), "base too weak"),
        (LEARNED, scored(0.20, 0.50, "worse"), "base too weak"),
        (LEARNED, scored(0.51, 0.50, "INCONCLUSIVE"), "base too weak"),
        (LEARNED, scored(0.60, 0.50, "INCONCLUSIVE"), "good"),  # better, though too few rows to be sure
        (LEARNED, scored(0.515, 0.50, "better"), "good"),  # of very many rows
        (LEARNED, scored(0.50, 0.50, "INCONCLUSIVE", rows=6), "good"),  # six rows say nothing
        (LEARNED, None, "good"),
        (curve([3.0, 2.5, 2.0, 1.8], [2.0, 1.97, 1.95, 1.94]), scored(0.5, 0.5, "INCONCLUSIVE"), "base too weak"),
        (curve([3.0, 2.5, 2.0, 1.8], [2.0, 1.97, 1.95, 1.94]), scored(0.9, 0.5, "better"), "hardly learned"),
        (curve([3.0, 1.0, 0.5, 0.1], [2.0, 1.2, 1.4, 1.9]), scored(0.5, 0.5, "INCONCLUSIVE"), "overfitting"),
        (curve([3.0, 3.1, 5.0, 9.0], [2.0, 2.5, 5.0, 9.0]), scored(0.0, 0.5, "worse"), "diverged"),
        (curve([3.0, 3.0, 2.99, 3.01], [2.0, 2.0, 2.0, 1.99]), scored(0.0, 0.5, "worse"), "nothing learned"),
        (curve([3.0, 1.0, 0.5, 0.4], [2.0, 1.2, 1.0, 0.8]), scored(0.5, 0.5, "INCONCLUSIVE"), "still learning"),
    ],
)
def test_a_base_is_too_weak_where_one_answer_to_all_is_as_good(
    points: list[dict[str, float | None]], scores: dict[str, Any] | None, kind: str
) -> None:
    found = diagnose(points, planned=40, scores=scores)
    assert found.kind == kind
    if kind == "base too weak":
        assert "'joy' to every row" in found.sentence
        assert "0.500 on 40 validation rows" in found.sentence
        assert found.advice
