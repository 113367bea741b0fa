"""The student's logits and losses at answer positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from slmops.signals.tensors import from_batch
from slmops.training.internals import has_layers
from slmops.training.objectives.base import Answers
from slmops.training.projection import Losses, Projection, each, summed

if TYPE_CHECKING:
    from slmops.training.matching import LayerLosses


def answers_of(model: Any, batch: Mapping[str, torch.Tensor]) -> Answers:
    """Run a causal language model on a batch of ``training.batches.collate``; only answer columns reach the vocabulary."""
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=batch["logits_to_keep"],
        use_cache=False,
    ).logits
    chosen = logits.flatten(0, 1).index_select(0, batch["answer_index"]).float()
    return Answers(logits=chosen, labels=batch["shift_labels"], signal=from_batch(batch))


def total_loss(
    model: Any,
    batch: Mapping[str, torch.Tensor],
    losses: Losses,
    projection: Projection | None,
    on_layers: LayerLosses | None = None,
    done: float = 0.0,
) -> torch.Tensor:
    """The sum of the losses of a batch's answer tokens: in chunks, or of the model as a whole where it has no projection.

    Args:
        model: The student.
        batch: Of :func:`slmops.training.batches.collate`.
        losses: Those on tokens.
        projection: Of the model.
        on_layers: Those on layers, out of the same forward pass; a batch without a teacher's layers has none.
        done: Share of the updates that are done, for these.
    """
    if on_layers is not None and has_layers(batch):
        with on_layers.watching() as seen:
            total = total_loss(model, batch, losses, projection.whole if projection is not None else None)
        return total + on_layers.summed(seen, batch, done=done)
    if projection is not None:
        return summed(projection, batch, losses)
    return _without_autocast(answers_of(model, batch), losses).sum()


def losses_of(model: Any, batch: Mapping[str, torch.Tensor], losses: Losses, projection: Projection | None) -> torch.Tensor:
    """The loss at each answer token of a batch, ``[N]``, without gradient."""
    if projection is not None:
        return each(projection, batch, losses)
    with torch.no_grad():
        return _without_autocast(answers_of(model, batch), losses)


def _without_autocast(answers: Answers, losses: Losses) -> torch.Tensor:
    with torch.autocast(answers.logits.device.type, enabled=False):
        return losses(answers)
