"""A training tried on a few real rows before it starts: what the loss is about, how its terms pull, and how long it will take."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import ConfigError
from slmops.sections import TrainingSection
from slmops.signals.distribution import Distribution
from slmops.training.attempt import Attempt, updating
from slmops.training.batches import collate
from slmops.training.findings import Pull, Selected, Tokens
from slmops.training.inputs import open_student
from slmops.training.machine import autocast_type
from slmops.training.matching import LayerLosses, RowLayers
from slmops.training.objectives import WeightedSum
from slmops.training.objectives.modules import OwnPairLoss, OwnTokenLoss
from slmops.training.objectives.own import OwnLoss
from slmops.training.objectives.weighted import Term
from slmops.training.pairs import Pair, PairLoss, into_batch
from slmops.training.projection import Projection

FEW_TOKENS = 512
"""Tokens of the rows that are tried, padding included: enough to time, few enough for seconds."""

_MOST_ROWS = 2000


@dataclass(frozen=True)
class Tried:
    """A few batches of a training.

    Args:
        loss: Mean over the answer tokens, before the first update.
        pulls: What each term does to the weights.
        token_seconds: Forward and backward pass, by token of a batch.
        update_seconds: The optimizer's part of an update.
        parameters: All weights of the student.
    """

    loss: float
    pulls: tuple[Pull, ...]
    token_seconds: float
    update_seconds: float
    parameters: int


@dataclass(frozen=True)
class Beside:
    """What a loss may need beside rows and the teacher's distributions.

    Args:
        layers: What is kept of the teacher's layers.
        pairs: A few pairs of texts.
    """

    layers: RowLayers | None
    pairs: Sequence[Pair]


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below ``count``, evenly spread."""
    return list(range(count)) if count <= most else [number * count // most for number in range(most)]


def few(encoded: Sequence[Encoded], most: int, tokens: int = FEW_TOKENS) -> list[int]:
    """Indices of at most so many rows, evenly spread, that make a batch of at most so many tokens; else of the shortest row."""
    chosen: list[int] = []
    width = 0
    for index in spread(len(encoded), most):
        wider = max(width, len(encoded[index].input_ids))
        if wider * (len(chosen) + 1) <= tokens:
            chosen.append(index)
            width = wider
    return chosen or [min(range(len(encoded)), key=lambda index: len(encoded[index].input_ids))]


def count_tokens(rows: Sequence[Row], template: Template, max_length: int) -> tuple[Tokens, list[Row], list[Encoded]]:
    """Trained tokens of rows, with those of the rows that are trained on; of more than 2,000 an even sample is looked at."""
    looked = [rows[index] for index in spread(len(rows), _MOST_ROWS)]
    answered = [row for row in looked if row.answer]
    encoded = [template.encode(row) for row in answered]
    kept = [(row, one) for row, one in zip(answered, encoded, strict=True) if len(one.input_ids) <= max_length]
    sizes = [len(one.answer_ids) for _, one in kept] or [0]
    tokens = Tokens(
        rows=len(looked),
        least=min(sizes),
        median=median(sizes),
        without=len(looked) - len(answered),
        too_long=len(answered) - len(kept),
        max_length=max_length,
        length=mean(len(one.input_ids) for _, one in kept) if kept else 0.0,
    )
    return tokens, [row for row, _ in kept], [one for _, one in kept]


def read_selected(rows: Sequence[Row], encoded: Sequence[Encoded], template: Template) -> Selected:
    """Decode the tokens that a batch of rows is trained on: each is the one behind a position whose logits are kept."""
    tokenizer = template.tokenizer
    batch = collate(encoded, int(tokenizer.eos_token_id))
    kept = batch["logits_to_keep"]
    of_row, place = batch["answer_index"] // len(kept), batch["answer_index"] % len(kept)
    trained = batch["input_ids"][of_row, kept[place] + 1]
    texts, wrong = [], []
    for number, row in enumerate(rows):
        ids = trained[of_row == number].tolist()
        texts.append(str(tokenizer.decode(ids)))
        if not _is_answer(ids, batch["shift_labels"][of_row == number].tolist(), row, template):
            wrong.append(f"{row.origin or row.id}: {texts[-1][:200]!r}")
    return Selected(len(rows), texts[0], rows[0].origin or rows[0].id, tuple(wrong))


def _is_answer(ids: Sequence[int], labels: Sequence[int], row: Row, template: Template) -> bool:
    tokenizer = template.tokenizer
    if list(ids) != list(labels) or not ids or ids[-1] != tokenizer.eos_token_id:
        return False
    said = str(tokenizer.decode(ids[:-1]))
    answer = template.chat.answer_prefix + str(row.answer)
    # A tokenizer may write a text otherwise than it stands there: in small letters, or with a sign for what it does not know.
    return said in (answer, str(tokenizer.decode(tokenizer(answer, add_special_tokens=False)["input_ids"])))


def try_training(
    base: Path,
    section: TrainingSection,
    objective: WeightedSum,
    rows: Sequence[Row],
    encoded: Sequence[Encoded],
    signals: Sequence[Distribution] | None,
    beside: Beside,
    pad_id: int,
) -> Tried:
    """One batch of rows forward and backward, for each term of the loss and for all; nothing is kept.

    Args:
        base: Folder of the student.
        section: Hyperparameters.
        objective: The loss.
        rows: Of the batch.
        encoded: Their tokens.
        signals: The teacher's at these, where the loss needs them.
        beside: What else the loss needs.
        pad_id: Token that pads.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        model = open_student(base, section).to(device).train()
        projection = Projection.of(model)
        on_layers = None
        if objective.on_layers and beside.layers is not None:
            on_layers = LayerLosses.of(model, objective, beside.layers, rows, encoded, pad_id=pad_id, seed=0)
        internals = None if on_layers is None else on_layers.rows
        whole = {**collate(encoded, pad_id, signals, internals), **into_batch(beside.pairs, pad_id)}
        batch = {name: tensor.to(device) for name, tensor in whole.items()}
        run = Attempt(model, projection, on_layers, PairLoss.of(objective, model), autocast_type(section.precision))
        pulls = tuple(_pull(run, batch, term) for term in objective.terms)
        started = time.perf_counter()
        loss = run.backward(batch, objective, done=0.0)
        seconds = time.perf_counter() - started
        update = updating(model)
        update()
        return Tried(
            loss=loss,
            pulls=pulls,
            token_seconds=seconds / int(batch["attention_mask"].sum()),
            update_seconds=update(),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
        )


def try_own_losses(
    model: Any,
    objective: WeightedSum,
    batch: Mapping[str, torch.Tensor],
    projection: Projection | None,
    dtype: torch.dtype | None,
) -> None:
    """Each loss of the user's own on a batch of the training, forward and backward; nothing is kept.

    Raises:
        ConfigError: Its code fails on real sizes, or value or gradient is not finite.
    """
    own = [term for term in objective.terms if isinstance(term.objective, OwnLoss | OwnTokenLoss | OwnPairLoss)]
    if not own or "input_ids" not in batch:
        return
    device = next(model.parameters()).device
    placed = {name: tensor.to(device) for name, tensor in batch.items()}
    with torch.random.fork_rng():
        run = Attempt(model.train(), projection, None, PairLoss.of(objective, model), dtype)
        for term in own:
            loss, pull = run.backward(placed, WeightedSum((term,)), done=0.0), _pull(run, placed, term)
            if not math.isfinite(loss) or not math.isfinite(pull.norm):
                what = f"the loss is {loss:g}" if not math.isfinite(loss) else "a gradient is not finite"
                raise ConfigError(f"on the first batch {what}", where=term.name, fix="bound what it divides by and takes roots of")
    model.zero_grad(set_to_none=True)


def _pull(run: Attempt, batch: Mapping[str, torch.Tensor], term: Term) -> Pull:
    """How a term pulls at the first update; of one that begins later, at the last."""
    begins = term.weight.at(0.0)
    weight, done = (begins, 0.0) if begins else (term.weight.at(1.0), 1.0)
    run.backward(batch, WeightedSum((term,)), done=done)
    gradients = [parameter.grad.norm() for parameter in run.model.parameters() if parameter.grad is not None]
    norm = float(torch.stack(gradients).norm()) if gradients else 0.0
    return Pull(term.name, weight, norm, term.objective.needs_signal)
