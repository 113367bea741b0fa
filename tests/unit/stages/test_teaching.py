"""What a student trains on where there are no signals of the teacher."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.sections import TrainingSection
from slmops.stages.teaching import without_signals

KL: dict[str, Any] = {"name": "forward_kl"}


@pytest.mark.parametrize(
    ("objectives", "left"),
    [
        ([KL], [{"name": "cross_entropy"}]),
        ([{"name": "cross_entropy", "weight": 0.3}, KL], [{"name": "cross_entropy", "weight": 0.3}]),
        ([{"name": "cross_entropy"}], [{"name": "cross_entropy"}]),
        # A weight that falls to zero in favour of a term that is gone.
        ([{"name": "cross_entropy", "weight": {"from": 0.8, "to": 0}}, KL], [{"name": "cross_entropy", "weight": 0.8}]),
        ([KL, {"name": "contrastive", "weight": 0.1}], [{"name": "cross_entropy"}, {"name": "contrastive", "weight": 0.1}]),
        ([{"name": "cross_entropy"}, {"name": "hidden_states", "weight": 0.1}], [{"name": "cross_entropy"}]),
        ([{"name": "uld"}, {"name": "jsd", "beta": 0.1}], [{"name": "cross_entropy"}]),
    ],
)
def test_the_objectives_that_need_none_are_left(objectives: list[dict[str, Any]], left: list[dict[str, Any]]) -> None:
    section = TrainingSection(objectives=tuple(objectives))
    assert list(without_signals(section).objectives) == left
