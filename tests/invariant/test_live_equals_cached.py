"""A training run cannot tell a teacher's cached signals from those of the live teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import FingerprintError
from slmops.models.load import load_model
from slmops.sections import TrainingSection
from slmops.signals.distribution import Distribution
from slmops.signals.forms import Form, SampledForm, TopKForm
from slmops.signals.store import SignalStore, row_key, write_signals
from slmops.signals.tensors import join
from slmops.teachers.local import LocalTeacher
from slmops.teachers.signals import signal_rows
from slmops.testing.tiny import save_tiny_model
from slmops.training.loop import train

FORMS = (TopKForm(8), SampledForm(12))
ROWS = [
    Row.of(f"question {number}" + " please" * (number % 5), ("delivery", "refund of the money")[number % 2]) for number in range(11)
]
FINGERPRINTS = {"teacher": "t", "template": "c", "form": "f"}


class Live(dict[str, Distribution]):
    """Signals in memory, as the loop asks for them."""

    def get(self, row: Row) -> Distribution:
        return self[row_key(row)]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.fingerprint.split()[0])
def form(request: pytest.FixtureRequest) -> Form:
    return request.param


@pytest.fixture(scope="module")
def teacher_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another random model than the student."""
    return save_tiny_model(tmp_path_factory.mktemp("teacher"), layers=2, seed=7)


@pytest.fixture(scope="module")
def teacher(teacher_model: Path, template: Template) -> LocalTeacher:
    return LocalTeacher.load(teacher_model, template, "float32")


@pytest.fixture(scope="module")
def live(teacher: LocalTeacher, template: Template, form: Form) -> Live:
    """Asked directly, a batch of four rows of like length at a time, and kept in memory."""
    ordered = sorted(ROWS, key=lambda row: (len(template.encode(row).input_ids), row_key(row)))
    found = Live()
    for start in range(0, len(ordered), 4):
        batch = ordered[start : start + 4]
        signals = teacher.signals([template.encode(row) for row in batch], form)
        found |= {row_key(row): signal for row, signal in zip(batch, signals, strict=True)}
    return found


@pytest.fixture(scope="module")
def cached(teacher: LocalTeacher, template: Template, form: Form, tmp_path_factory: pytest.TempPathFactory) -> SignalStore:
    """Taken in chunks of four rows, written, and opened again."""
    folder = tmp_path_factory.mktemp("signals")
    write_signals(folder, signal_rows(teacher, ROWS, template, form, chunk_rows=4, work=folder / "work"), FINGERPRINTS)
    return SignalStore.open(folder, FINGERPRINTS)


def test_cached_signals_are_the_live_ones_bit_for_bit(live: Live, cached: SignalStore, template: Template) -> None:
    for row in ROWS:
        a, b = live.get(row), cached.get(row)
        assert len(a) == len(b) == len(template.encode(row).answer_ids)
        assert type(a) is type(b)
        for name in a.names():
            assert np.array_equal(getattr(a, name), getattr(b, name))
            assert getattr(a, name).dtype == getattr(b, name).dtype


def test_a_row_has_the_same_tokens_in_whatever_batch(teacher: LocalTeacher, live: Live, template: Template, form: Form) -> None:
    for row in ROWS[:3]:
        (alone,) = teacher.signals([template.encode(row)], form)
        assert join([alone]).ids.tolist() == join([live.get(row)]).ids.tolist()


def test_a_signal_is_about_the_token_that_follows(teacher_model: Path, cached: SignalStore, template: Template, form: Form) -> None:
    """The first signal is the distribution after the prompt alone, the second that after the answer's first token."""
    import torch

    model, encoded = load_model(teacher_model), template.encode(ROWS[3])
    rows = []
    for position in range(len(encoded.answer_ids)):
        with torch.no_grad():
            rows.append(model(torch.tensor([encoded.input_ids[: encoded.prompt_length + position]])).logits[0, -1])
    expected, found = join([form.reduce(torch.stack(rows), [encoded])]), join([cached.get(ROWS[3])])
    assert torch.equal(found.ids, expected.ids)
    values = [name for name in vars(found) if name != "ids"]
    for name in values:
        assert torch.allclose(getattr(found, name), getattr(expected, name), rtol=2e-3), name


def test_training_on_cached_signals_gives_the_bytes_of_training_on_live_ones(
    live: Live, cached: SignalStore, template: Template, form: Form, tiny_model: Path, tmp_path: Path
) -> None:
    temperature = 2.0 if isinstance(form, TopKForm) else 1.0
    objectives = (
        {"name": "cross_entropy", "weight": 0.3},
        {"name": "forward_kl", "weight": 0.7, "kd_temperature": temperature},
    )
    section = TrainingSection(objectives=objectives, max_steps=2, batch_size=4, precision="float32")
    for name, signals in (("live", live), ("cached", cached)):
        train(
            tiny_model,
            tmp_path / name,
            tmp_path / f"{name}-work",
            template=template,
            rows=ROWS,
            validation=[],
            section=section,
            seed=1,
            what=name,
            signals=signals,
        )
    trained = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("live", "cached")]
    assert trained[0] == trained[1]
    assert trained[0] != (tiny_model / "model.safetensors").read_bytes()


def test_a_row_that_the_teacher_never_saw_stops_the_run(
    cached: SignalStore, template: Template, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(FingerprintError, match=r"new\.csv:1: no cached signal for this row and answer"):
        train(
            tiny_model,
            tmp_path / "model",
            tmp_path / "work",
            template=template,
            rows=[*ROWS, Row.of("never seen", "delivery", "new.csv:1")],
            validation=[],
            section=TrainingSection(objectives=({"name": "forward_kl"},), max_steps=1),
            seed=1,
            what="trial",
            signals=cached,
        )
