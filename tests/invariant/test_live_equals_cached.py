"""A training run cannot tell a teacher's cached signals from those of the live teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slmops.config import TrainingSection
from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import FingerprintError
from slmops.models.load import load_model
from slmops.signals.store import SignalStore, row_key, write_signals
from slmops.signals.topk import TopK
from slmops.teachers.local import LocalTeacher
from slmops.teachers.signals import signal_rows
from slmops.testing.tiny import save_tiny_model
from slmops.training.loop import train

K = 8
ROWS = [
    Row.of(f"question {number}" + " please" * (number % 5), ("delivery", "refund of the money")[number % 2]) for number in range(11)
]
FINGERPRINTS = {"teacher": "t", "template": "c", "form": "top-8"}


@pytest.fixture(scope="module")
def teacher_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another random model than the student."""
    return save_tiny_model(tmp_path_factory.mktemp("teacher"), layers=2, seed=7)


@pytest.fixture(scope="module")
def teacher(teacher_model: Path, template: Template) -> LocalTeacher:
    return LocalTeacher.load(teacher_model, template, "float32")


@pytest.fixture(scope="module")
def live(teacher: LocalTeacher, template: Template) -> SignalStore:
    """Asked directly, a batch of four rows of like length at a time, and kept in memory."""
    ordered = sorted(ROWS, key=lambda row: (len(template.encode(row).input_ids), row_key(row)))
    found: dict[str, TopK] = {}
    for start in range(0, len(ordered), 4):
        batch = ordered[start : start + 4]
        signals = teacher.signals([template.encode(row) for row in batch], K)
        found |= {row_key(row): signal for row, signal in zip(batch, signals, strict=True)}
    spans, start = {}, 0
    for key, signal in found.items():
        spans[key] = (start, len(signal))
        start += len(signal)
    return SignalStore(TopK.concatenate(list(found.values())), spans)


@pytest.fixture(scope="module")
def cached(teacher: LocalTeacher, template: Template, tmp_path_factory: pytest.TempPathFactory) -> SignalStore:
    """Taken in chunks of four rows, written, and opened again."""
    folder = tmp_path_factory.mktemp("signals")
    signals = signal_rows(teacher, ROWS, template, k=K, chunk_rows=4, work=folder / "work")
    write_signals(folder, ROWS, signals, FINGERPRINTS)
    return SignalStore.open(folder, FINGERPRINTS)


def test_cached_signals_are_the_live_ones_bit_for_bit(live: SignalStore, cached: SignalStore, template: Template) -> None:
    for row in ROWS:
        a, b = live.get(row), cached.get(row)
        assert len(a) == len(b) == len(template.encode(row).answer_ids)
        for name in ("ids", "logprobs", "tail"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
            assert getattr(a, name).dtype == getattr(b, name).dtype


def test_a_signal_is_about_the_token_that_follows(teacher_model: Path, cached: SignalStore, template: Template) -> None:
    """The first signal is the distribution after the prompt alone, the second that after the answer's first token."""
    import torch

    model, encoded = load_model(teacher_model), template.encode(ROWS[3])
    for position in range(len(encoded.answer_ids)):
        with torch.no_grad():
            logits = model(torch.tensor([encoded.input_ids[: encoded.prompt_length + position]])).logits[0, -1]
        expected = torch.log_softmax(logits, -1).topk(K)
        assert cached.get(ROWS[3]).ids[position].tolist() == expected.indices.tolist()
        assert cached.get(ROWS[3]).logprobs[position] == pytest.approx(expected.values.numpy(), rel=2e-3)


def test_training_on_cached_signals_gives_the_bytes_of_training_on_live_ones(
    live: SignalStore, cached: SignalStore, template: Template, tiny_model: Path, tmp_path: Path
) -> None:
    objectives = ({"name": "cross_entropy", "weight": 0.3}, {"name": "forward_kl", "weight": 0.7, "kd_temperature": 2.0})
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
