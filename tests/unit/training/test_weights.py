"""Weights on a schedule: their values, the mistakes in them, and that a run follows them update by update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError
from slmops.sections import TrainingSection
from slmops.testing.objectives import example_answers
from slmops.training.loop import train
from slmops.training.objectives import CrossEntropy, ForwardKL, WeightedSum
from slmops.training.objectives.schedule import schedule_of


def test_a_linear_weight_reaches_its_end_after_its_share_and_stays() -> None:
    weight = schedule_of({"from": 0.0, "to": 0.7, "over": 0.5}, "forward_kl")
    assert [weight.at(done) for done in (0, 0.125, 0.25, 0.5, 0.9)] == pytest.approx([0, 0.175, 0.35, 0.7, 0.7])
    falling = schedule_of({"from": 1, "to": 0.2}, "cross_entropy")
    assert [falling.at(done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])


def test_a_cosine_is_slow_at_both_ends_and_half_way_in_the_middle() -> None:
    weight = schedule_of({"from": 1, "to": 3, "over": 0.5, "shape": "cosine"}, "jsd")
    assert [weight.at(done) for done in (0, 0.125, 0.25, 0.375, 0.5, 1)] == pytest.approx(
        [1, 2 - 2**0.5 / 2, 2, 2 + 2**0.5 / 2, 3, 3]
    )


def test_a_number_is_a_weight_that_stays() -> None:
    assert {schedule_of(0.3, "uld").at(done) for done in (0, 0.4, 1)} == {0.3}


@pytest.mark.parametrize(
    ("weight", "problem"),
    [
        ({"from": 0}, "to: Field required"),
        ({"from": -1, "to": 1}, "from: Input should be greater than or equal to 0"),
        ({"from": 0, "to": float("inf")}, "to: Input should be a finite number"),
        ({"from": 0, "to": 1, "over": 0}, "over: Input should be greater than 0"),
        ({"from": 0, "to": 1, "form": "linear"}, "form: unknown key; did you mean 'from'"),
        ({"from": 0, "to": 1, "shape": "steps"}, "shape: Input should be 'linear' or 'cosine'"),
        ("0.5", "the weight of jsd is '0.5', not a number above zero"),
    ],
)
def test_mistakes_in_a_weight_are_named(weight: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        schedule_of(weight, "jsd")


def test_not_all_weights_may_be_zero_at_once() -> None:
    rising, falling = {"from": 0, "to": 1}, {"from": 1, "to": 0, "over": 0.5}
    with pytest.raises(ConfigError, match=r"all weights are zero at the first update\n.*above zero throughout"):
        WeightedSum.of([{"name": "cross_entropy", "weight": rising}])
    with pytest.raises(ConfigError, match="all weights are zero at the last update"):
        WeightedSum.of([{"name": "cross_entropy", "weight": falling}, {"name": "forward_kl", "weight": falling}])
    assert WeightedSum.of([{"name": "cross_entropy", "weight": falling}, {"name": "forward_kl", "weight": rising}]).needs_signal


def test_the_sum_takes_the_weights_of_the_moment() -> None:
    answers = example_answers()
    loss = WeightedSum.of(
        [
            {"name": "cross_entropy", "weight": {"from": 1, "to": 0}},
            {"name": "forward_kl", "weight": {"from": 0, "to": 2, "over": 0.5}},
        ]
    )
    ce, kl = CrossEntropy()(answers), ForwardKL()(answers)
    assert torch.equal(loss(answers, done=0.0), ce)
    assert loss(answers, done=0.25).numpy() == pytest.approx((0.75 * ce + kl).numpy(), rel=1e-6)
    assert torch.equal(loss(answers, done=1.0), 2 * kl)


ROWS = [Row.of(f"question {number}", ("delivery", "refund")[number % 2], f"rows.csv:{number}") for number in range(8)]
FALLING = [{"name": "cross_entropy", "weight": {"from": 1.0, "to": 0.2, "over": 0.5}}]


def test_a_run_follows_it_by_updates_and_goes_on_where_it_was_interrupted(
    tiny_model: Path, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = TrainingSection(
        objectives=tuple(FALLING),
        max_steps=4,
        batch_size=4,
        gradient_accumulation_steps=2,
        precision="float32",
        checkpoint_seconds=0,
    )
    asked: list[float] = []
    call = WeightedSum.__call__

    def recording(self: WeightedSum, answers: Any, *, done: float = 0.0) -> torch.Tensor:
        asked.append(done)
        if interrupted_at is not None and len(asked) == interrupted_at:
            raise KeyboardInterrupt
        return call(self, answers, done=done)

    def run(name: str) -> None:
        train(
            tiny_model, tmp_path / name, tmp_path / f"{name}-work",
            template=template, rows=ROWS, validation=[], section=section, seed=1, what=name,
        )  # fmt: skip

    monkeypatch.setattr(WeightedSum, "__call__", recording)
    interrupted_at: int | None = None
    run("whole")
    assert asked == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]  # two batches an update

    asked.clear()
    interrupted_at = 6  # the second batch of the third update
    with pytest.raises(KeyboardInterrupt):
        run("resumed")
    asked.clear()
    interrupted_at = None
    run("resumed")
    assert asked == [0.5, 0.5, 0.75, 0.75]
    assert (tmp_path / "resumed/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
