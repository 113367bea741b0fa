"""Calibration against published and hand-worked values, and confidences against the probabilities themselves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError
from slmops.evaluation.calibration import ece_tally, label_confidences, reliability
from slmops.evaluation.quality import Outputs, fitting, tally
from slmops.tasks.base import open_task

TASK = open_task("classification", {"labels": ["dog", "cat"]})
# The worked example of Mattarei, "Expected Calibration Error (ECE): a step-by-step visual explanation": 0.10444 in five bins.
CONFIDENCES = [0.78, 0.64, 0.92, 0.58, 0.51, 0.85, 0.70, 0.63, 0.83]
RIGHT = [True, True, False, True, False, True, True, False, True]


def made(confidences: list[float], right: list[bool]) -> Outputs:
    rows = [Row.of(f"animal {number}", "dog") for number in range(len(right))]
    return Outputs(TASK, rows, ["dog" if one else "cat" for one in right], confidences=confidences)


def test_the_error_is_that_of_a_published_example() -> None:
    assert ece_tally(made(CONFIDENCES, RIGHT), bins=5).value == pytest.approx(0.10444, abs=1e-5)
    bins = reliability(made(CONFIDENCES, RIGHT), bins=5)
    assert [one.rows for one in bins] == [0, 0, 2, 4, 3]
    assert (bins[3].confidence, bins[3].accuracy) == pytest.approx((0.6875, 0.75))
    assert math.isnan(bins[0].accuracy)


def test_a_bin_has_its_upper_edge_and_not_its_lower() -> None:
    edges = [0.0, 0.1, 0.3, 0.7, 1.0]
    bins = reliability(made(edges, [True] * 5), bins=10)
    assert [one.rows for one in bins] == [2, 0, 1, 0, 0, 0, 1, 0, 0, 1]


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    sure = made([0.75] * 4 + [1.0] * 2, [True, True, True, False, True, True])
    assert tally("ece", sure).value == pytest.approx(0.0)
    assert tally("ece", made([1.0, 1.0], [True, False])).value == pytest.approx(0.5)


def test_a_row_without_a_confidence_counts_for_nothing() -> None:
    known, more = made([0.9, 0.6], [True, False]), made([0.9, 0.6, math.nan], [True, False, False])
    assert tally("ece", more).value == pytest.approx(tally("ece", known).value)
    assert sum(one.rows for one in reliability(more)) == 2
    assert "ece" in fitting(more)


def test_it_adds_up_over_any_choice_of_rows() -> None:
    chosen = [0, 0, 3, 5, 8, 2]
    some = made([CONFIDENCES[place] for place in chosen], [RIGHT[place] for place in chosen])
    assert tally("ece", made(CONFIDENCES, RIGHT)).take(chosen).value == pytest.approx(tally("ece", some).value)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        tally("ece", made([1.5], [True]))


def test_the_confidence_of_a_label_is_its_probability_among_all(tiny_model: Path, template: Template) -> None:
    import torch

    from slmops.models.load import load_model

    model, labels = load_model(tiny_model), ["delivery", "refund of the money", "x"]
    rows = [Row.of("where is my parcel"), Row.of("please refund")]
    found = label_confidences(model, template, rows, labels, ["refund of the money", None], batch_tokens=40)
    exact = load_model(tiny_model).double()
    logs = []
    for label in labels:
        one = template.encode(rows[0].with_answer(label))
        with torch.no_grad():
            scores = exact(torch.tensor([one.input_ids])).logits.double().log_softmax(-1)[0]
        logs.append(sum(float(scores[place - 1, one.input_ids[place]]) for place in range(one.prompt_length, len(one.input_ids))))
    total = sum(math.exp(log - max(logs)) for log in logs)
    assert found[0] == pytest.approx(math.exp(logs[1] - max(logs)) / total, rel=1e-4)
    assert math.isnan(found[1])
    each = [label_confidences(model, template, rows[:1], labels, [label])[0] for label in labels]
    assert sum(each) == pytest.approx(1)
