"""How likely a causal language model finds given tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slmops.data.templates import Encoded
from slmops.errors import MissingExtraError

try:
    import torch
except ModuleNotFoundError as missing:
    raise MissingExtraError("torch", "train") from missing
from typing import TYPE_CHECKING

from slmops.training.batches import collate
from slmops.training.forward import losses_of as answer_losses
from slmops.training.objectives.base import CrossEntropy
from slmops.training.projection import Projection

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def losses_of(model: PreTrainedModel, rows: Sequence[Encoded], batch_tokens: int) -> list[float]:
    """Negative log-likelihood in nats of the labelled tokens of each row, summed in float64.

    Args:
        model: In evaluation mode.
        rows: Token ids; those without a label are only read.
        batch_tokens: Tokens of a batch, padding included; a longer row is a batch of its own.
    """
    losses = [0.0] * len(rows)
    projection = Projection.of(model)
    for chosen in _batches([len(row.input_ids) for row in rows], batch_tokens):
        batch = {name: values.to(model.device) for name, values in collate([rows[place] for place in chosen], 0).items()}
        with torch.inference_mode():
            each = answer_losses(model, batch, CrossEntropy(), projection).double().cpu()
        parts = each.split([len(rows[place].answer_ids) for place in chosen])
        for place, part in zip(chosen, parts, strict=True):
            losses[place] = float(part.sum())
    return losses


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of like length together, the longest first, so that what does not fit into memory is seen at once."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
