"""A curve in words."""

from __future__ import annotations

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
