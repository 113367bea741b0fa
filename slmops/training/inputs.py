"""What a training starts from: rows as token ids, the teacher's signals at their answers, and the student's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import TrainingError
from slmops.models.load import load_model
from slmops.sections import TrainingSection
from slmops.signals.distribution import Distribution
from slmops.signals.tensors import from_batch
from slmops.signals.topk import TopK
from slmops.training.batches import collate
from slmops.training.objectives import WeightedSum


class Signals(Protocol):
    """A teacher's distributions by row."""

    def get(self, row: Row) -> Distribution:
        """The one at the answer tokens of a row."""


def encode_rows(rows: Sequence[Row], template: Template, max_length: int) -> tuple[list[Row], list[Encoded]]:
    """The rows that are no longer than ``max_length`` tokens, and their token ids; longer ones are left out, never cut."""
    pairs = [(row, template.encode(row)) for row in rows]
    fitting = [(row, encoded) for row, encoded in pairs if len(encoded.input_ids) <= max_length]
    return [row for row, _ in fitting], [encoded for _, encoded in fitting]


def signals_of(
    rows: Sequence[Row], encoded: Sequence[Encoded], store: Signals | None, objective: WeightedSum, pad_id: int
) -> list[Distribution]:
    """The signals of rows; those of another tokenizer are fitted to the student's tokens, position by position.

    Raises:
        TrainingError: There are none, or they are about other tokens than the student's.
        ConfigError: An objective is not defined for signals of this form.
        FingerprintError: A row has no signal.
    """
    if store is None:
        raise TrainingError("an objective needs the teacher's signals and there are none", fix="use cross_entropy alone")
    signals = [store.get(row) for row in rows]
    objective.check(from_batch(collate(encoded[:1], pad_id, signals[:1])))
    if objective.across_tokenizers:
        whole = [signal for signal in signals if isinstance(signal, TopK)]  # the check lets no other form pass
        return [signal.fitted(len(own.answer_ids)) for own, signal in zip(encoded, whole, strict=True)]
    for row, own, signal in zip(rows, encoded, signals, strict=True):
        if len(signal) != len(own.answer_ids):
            raise TrainingError(
                f"{len(signal)} signal positions for {len(own.answer_ids)} answer tokens",
                where=row.origin,
                fix="teacher and student tokenize differently: use uld, or objectives without signals",
            )
    return signals


def open_student(base: Path, section: TrainingSection) -> Any:
    """The model that is trained: in float32, with an adapter or frozen embeddings where the section says so.

    Raises:
        ModelError: It cannot be loaded.
    """
    model: Any = load_model(base, dtype="float32", attention="eager")
    if section.lora is not None:
        model = _with_lora(model, section)
    if section.freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    return model


def _with_lora(model: Any, section: TrainingSection) -> Any:
    from peft import LoraConfig, get_peft_model

    assert section.lora is not None
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules="all-linear",
        r=section.lora.r,
        lora_alpha=section.lora.alpha,
        lora_dropout=section.lora.dropout,
    )
    return get_peft_model(model, config)
