"""A teacher's distributions are those of each row alone, on any number of threads and with any number of logits at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.models.load import load_model
from slmops.signals.forms import Form, SampledForm, TopKForm
from slmops.signals.internals import Layers
from slmops.teachers.observing import Observer
from slmops.training import projection as projection_module
from slmops.training.projection import Projection

K = 6
TEXTS = [Row.of(f"where is my parcel {number}" + " please" * number, "delivery of goods" * (1 + number % 3)) for number in range(7)]


@pytest.fixture
def rows(template: Template) -> list[Encoded]:
    return [template.encode(row) for row in TEXTS]


@pytest.fixture
def observer(tiny_model: Path, template: Template) -> Observer:
    model = load_model(tiny_model)
    projection = Projection.of(model)
    assert projection is not None
    return Observer(model, projection.whole, int(template.tokenizer.eos_token_id))


def logits_alone(observer: Observer, row: Encoded) -> torch.Tensor:
    with torch.no_grad():
        return observer.model(torch.tensor([row.input_ids])).logits[0, row.prompt_length - 1 : -1]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("positions", [1, 7, 10**6], ids=["a row at a time", "some rows", "all rows"])
def test_signals_are_those_of_a_row_alone(
    observer: Observer, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch, threads: int, positions: int
) -> None:
    monkeypatch.setattr(projection_module, "_CHUNK_VALUES", positions * 384)
    seen: list[int] = []
    observer.model.lm_head.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = observer.signals(rows, TopKForm(K))
    finally:
        torch.set_num_threads(before)
    answers = [len(row.answer_ids) for row in rows]
    assert sum(seen) == sum(answers)
    assert max(seen) <= max(positions, max(answers))
    chunks = {1: [7], 7: [3, 4, 5, 6, 7], 10**6: [threads]}
    assert len(seen) in chunks[positions]
    for row, own in zip(rows, found, strict=True):
        expected = logits_alone(observer, row).log_softmax(-1).topk(K)
        np.testing.assert_array_equal(own.ids, expected.indices.numpy())
        np.testing.assert_allclose(own.logprobs, expected.values.numpy(), atol=5e-3)


@pytest.mark.parametrize("form", [TopKForm(K), SampledForm(20)], ids=["topk", "sampled"])
def test_without_parts_a_model_is_called_as_a_whole(observer: Observer, rows: list[Encoded], form: Form) -> None:
    whole = replace(observer, projection=None)
    for own, other in zip(observer.signals(rows, form), whole.signals(rows, form), strict=True):
        assert type(own) is type(other)
        for name in own.names():
            np.testing.assert_allclose(getattr(own, name), getattr(other, name), atol=5e-3)


def test_who_looks_at_layers_sees_the_same_distributions(observer: Observer, rows: list[Encoded]) -> None:
    signals, internals = observer.signals_and_internals(rows, TopKForm(K), Layers((0,), (1,)))
    assert len(internals) == len(rows)
    for own, other in zip(signals, observer.signals(rows, TopKForm(K)), strict=True):
        np.testing.assert_array_equal(own.ids, other.ids)


def test_one_row_needs_no_threads(observer: Observer, rows: list[Encoded]) -> None:
    assert len(observer.signals(rows[:1], TopKForm(K))) == 1
