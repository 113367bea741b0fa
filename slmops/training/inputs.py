"""What a training starts from: rows as token ids, the teacher's signals at their answers, and the student's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from slmops.data.blocks import blocks_of
from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import ConfigError, TrainingError, nearest
from slmops.models.adapter import Adapter, put_on
from slmops.models.bottleneck import insert, load_own
from slmops.models.bottleneck_folder import refuse_bottleneck
from slmops.models.classifier import head_of, new_classifier
from slmops.models.load import load_model
from slmops.models.quantized import load_quantized
from slmops.models.widening import token_rows, widen
from slmops.sections import LoraSection, TrainingSection
from slmops.signals.distribution import Distribution
from slmops.signals.tensors import from_batch
from slmops.signals.topk import TopK
from slmops.training.batches import collate
from slmops.training.machine import autocast_type
from slmops.training.objectives import WeightedSum
from slmops.training.watching import looked_at


class Signals(Protocol):
    """A teacher's distributions by row."""

    def get(self, row: Row) -> Distribution:
        """The one at the answer tokens of a row."""


def encode_rows(rows: Sequence[Row], template: Template, max_length: int) -> tuple[list[Row], list[Encoded]]:
    """The rows that are no longer than ``max_length`` tokens, and their token ids; longer ones are left out, never cut.

    Texts become blocks of so many tokens instead, each with the row that it begins in.
    """
    if template.trained_on == "text":
        blocks = blocks_of([template.text_ids(row) for row in rows], int(template.tokenizer.eos_token_id), max_length)
        return [rows[place] for place, _ in blocks], [block for _, block in blocks]
    pairs = [(row, template.encode(row)) for row in rows]
    fitting = [(row, encoded) for row, encoded in pairs if len(encoded.input_ids) <= max_length]
    return [row for row, _ in fitting], [encoded for _, encoded in fitting]


def encode_validation(rows: Sequence[Row], template: Template, updates: int, section: TrainingSection) -> list[Encoded]:
    """The validation rows, or blocks of texts, of every look."""
    if template.trained_on == "text":
        return looked_at(encode_rows(rows, template, section.max_length)[1], updates, section)
    return [template.encode(row) for row in looked_at(rows, updates, section)]


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


def open_student(
    base: Path,
    section: TrainingSection,
    added: Sequence[int] = (),
    adapter: Path | None = None,
    labels: Sequence[str] | None = None,
) -> Any:
    """The model that is trained: in float32 or frozen in few bits, with an adapter or frozen embeddings as the section says.

    Of a model in few bits the rest lies in the type of autocast, as in the paper: nothing of it is trained.

    Args:
        base: Folder of the model.
        section: What is trained of it.
        added: Ids of tokens that are new to it. Their rows are trained, beside an adapter too.
        adapter: Folder of an adapter that is trained on; absent: a new one, where the section has one.
        labels: What a new classification head chooses from; absent: it is a language model.

    Raises:
        ModelError: It cannot be loaded, or the adapter does not fit it.
        ConfigError: It has no layer of a name that is to get an adapter, or cannot do without its activations.
    """
    refuse_bottleneck(base)
    bits = section.lora.bits if section.lora is not None else None
    model: Any
    if labels is not None:
        model = new_classifier(base, labels)
    elif bits is not None:
        model = load_quantized(base, bits, autocast_type(section.precision) or torch.float32)
    else:
        model = load_model(base, dtype="float32", attention="eager")
    if section.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ConfigError(
            "this model cannot compute its activations again", where="training.gradient_checkpointing", fix="leave it out"
        )
    if added:
        widen(model, added)
    if section.bottleneck is not None:
        insert(model, section.bottleneck.kind, section.bottleneck.size_for(model.config.get_text_config().hidden_size))
        if adapter is not None:
            load_own(model, adapter)
    elif adapter is not None:
        model = put_on(Adapter.read(adapter), model, trained=True)
    elif section.lora is not None:
        model = _with_lora(model, section.lora, added)
    if section.freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    return model


def _with_lora(model: Any, lora: LoraSection, added: Sequence[int]) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM" if head_of(model) is None else "SEQ_CLS",  # which trains the head whole
        target_modules=list(lora.target_modules) if lora.target_modules is not None else "all-linear",
        modules_to_save=list(lora.modules_to_save) or None,
        trainable_token_indices=token_rows(model, added, lora.modules_to_save) or None,
        use_dora=lora.dora,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
    )
    known = [name for name, _ in model.named_modules()]
    for field in ("target_modules", "modules_to_save"):
        for wanted in getattr(lora, field) or ():
            if not any(name == wanted or name.endswith(f".{wanted}") for name in known):
                ends = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
                raise ConfigError(f"this model has no layer {wanted!r}", where=f"lora.{field}", fix=nearest(wanted, sorted(ends)))
    return get_peft_model(model, config)
