"""A teacher against its own cached signals."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.signals.forms import Form, SampledForm, TopKForm
from slmops.teachers.agreement import compare
from slmops.teachers.local import LocalTeacher
from slmops.testing.tiny import save_tiny_model

ROWS = [Row.of(f"question {number}" + " please" * number, "refund of the money", "here") for number in range(4)]


@pytest.mark.parametrize("form", [TopKForm(1), TopKForm(8), TopKForm(384), SampledForm(16)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_signals_made_row_by_row_agree(tiny_model: Path, template: Template, form: Form, precision: str) -> None:
    teacher = LocalTeacher.load(tiny_model, template, precision)
    encoded = [template.encode(row) for row in ROWS]
    alone = [teacher.signals([row], form)[0] for row in encoded]
    found = compare(teacher, encoded, alone)
    assert found.tokens == sum(len(row.answer_ids) for row in encoded)
    assert found.apart <= found.apart_most
    assert found.self_kl <= found.self_kl_most
    if isinstance(form, TopKForm):
        assert found.self_kl < (1e-5 if precision == "float32" else 1e-3)
        assert found.largest < (1e-3 if precision == "float32" else 1e-2)


@pytest.mark.parametrize("form", [TopKForm(8), SampledForm(64)])
def test_signals_of_another_teacher_do_not(tiny_model: Path, template: Template, form: Form, tmp_path: Path) -> None:
    other = LocalTeacher.load(save_tiny_model(tmp_path / "other", seed=1), template, "float32")
    encoded = [template.encode(row) for row in ROWS]
    found = compare(LocalTeacher.load(tiny_model, template, "float32"), encoded, other.signals(encoded, form))
    assert found.self_kl > found.self_kl_most
    if isinstance(form, TopKForm):
        assert found.apart > found.apart_most


def test_signals_that_are_shifted_by_one_do_not(tiny_model: Path, template: Template) -> None:
    teacher = LocalTeacher.load(tiny_model, template, "float32")
    encoded = [template.encode(row) for row in ROWS]
    signals = teacher.signals(encoded, TopKForm(8))
    shifted = [type(one).concatenate([one[1:], one[:1]]) for one in signals]
    found = compare(teacher, encoded, shifted)
    assert found.apart > found.apart_most
    assert found.self_kl > found.self_kl_most
