"""Rough figures: they move with what they depend on, and are of the right order."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.config import Recipe
from slmops.data.rows import Row
from slmops.data.sources import RawSplits
from slmops.estimate import Estimate, estimate, matmul_rate

M = 1_000_000
ROWS = [Row.of(f"where is my parcel with the number {number}", "delivery") for number in range(100)]


def needs(
    pool: int = 900, teacher: int = 135 * M, student: int = 56 * M, rate: float = 2e11, length: int = 1, **training: Any
) -> Estimate:
    recipe = Recipe.model_validate(
        {
            "name": "trial",
            "task_type": "classification",
            "output_path": "x",
            "data": {"source": {"name": "files"}},
            "teacher": {"model": "t", "tune": {"lora": {}, "epochs": 10}},
            "training": {"epochs": 3, **training},
        }
    )
    questions = [Row.of(f"question {number} " + "word " * length) for number in range(pool)]
    return estimate(recipe, RawSplits(ROWS, questions, [], []), teacher, student, rate)


def test_a_small_run_takes_minutes_and_a_few_gigabytes() -> None:
    """96 labelled rows and 900 more took six to eight minutes on the machine whose rate this is."""
    found = needs()
    assert 120 < found.seconds < 1200
    assert 1000 < found.disk_mb < 10_000
    assert 1000 < found.memory_mb < 8000
    assert found.describe().startswith("about ")
    assert "GB of disk" in found.describe()


@pytest.mark.parametrize(
    "more",
    [
        {"pool": 3000},
        {"epochs": 6},
        {"student": 135 * M},
        {"teacher": 1000 * M},
        {"length": 50},
        {"rate": 1e11},
        {"max_steps": 5000},
        {"on_policy": {"share": 1}},
    ],
)
def test_more_work_takes_longer(more: dict[str, Any]) -> None:
    assert needs(**more).seconds > 1.15 * needs().seconds


def test_updates_take_the_place_of_epochs() -> None:
    assert needs(max_steps=10, epochs=3).seconds == needs(max_steps=10, epochs=300).seconds
    assert needs(max_steps=10).seconds < needs().seconds
    assert needs(max_steps=20, batch_size=16).seconds == needs(max_steps=10, gradient_accumulation_steps=2).seconds


def test_bigger_models_need_more_room() -> None:
    assert needs(teacher=1000 * M).memory_mb > 2 * needs().memory_mb
    assert needs(teacher=1000 * M).disk_mb > 2 * needs().disk_mb


def test_a_teacher_beside_its_student_needs_room_too() -> None:
    plain, scored = (needs(teacher=1000 * M, student=1000 * M, **more).memory_mb for more in ({}, {"on_policy": {}}))
    assert scored > plain + 1000 * 4


def test_the_rate_of_this_machine_is_that_of_a_processor() -> None:
    assert 1e9 < matmul_rate() < 1e15


def test_a_judge_on_this_machine_takes_its_time_too() -> None:
    values = {
        "name": "trial",
        "task_type": "conversation",
        "output_path": "x",
        "data": {"source": {"name": "files"}},
        "teacher": {"model": "t"},
        "evaluation": {"judge": {"model": "j"}},
    }
    recipe = Recipe.model_validate(values)
    small, large = (estimate(recipe, RawSplits(ROWS, [], [], []), 135 * M, 56 * M, 2e11, judge) for judge in (0, 1000 * M))
    assert large.seconds > 2 * small.seconds
