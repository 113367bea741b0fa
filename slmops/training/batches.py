"""Which rows stand in which batch, and the tensors of a batch."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence

import torch
from torch.utils.data import Dataset

from slmops.data.templates import Encoded
from slmops.signals.distribution import Distribution
from slmops.signals.internals import RowInternals
from slmops.signals.tensors import into_batch, join
from slmops.training.internals import into_batch as internals_into_batch

_POOL_BATCHES = 8


def plan_batches(lengths: Sequence[int], batch_size: int, seed: int, *, count: int) -> list[list[int]]:
    """Row indices of ``count`` batches: shuffled every epoch, rows of like length together to save padding.

    Each epoch shuffles the rows, sorts stretches of eight batches by length, cuts them into batches and shuffles those.
    The plan depends on the arguments alone, so a resumed run sees the same batches.
    """
    batches: list[list[int]] = []
    epoch = 0
    while len(batches) < count:
        rng = random.Random(f"{seed}:{epoch}")
        order = list(range(len(lengths)))
        rng.shuffle(order)
        stretch = batch_size * _POOL_BATCHES
        ordered = [
            index
            for start in range(0, len(order), stretch)
            for index in sorted(order[start : start + stretch], key=lambda row: (lengths[row], row))
        ]
        one_epoch = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
        rng.shuffle(one_epoch)
        batches += one_epoch
        epoch += 1
    return batches[:count]


def steps_of(rows: int, batch_size: int, accumulation: int, epochs: float) -> int:
    """Optimizer updates of a run over so many rows."""
    return max(1, math.ceil(math.ceil(rows / batch_size) * epochs / accumulation))


def collate(
    rows: Sequence[Encoded],
    pad_id: int,
    signals: Sequence[Distribution] | None = None,
    internals: Sequence[RowInternals] | None = None,
) -> dict[str, torch.Tensor]:
    """Tensors of a batch of ``B`` rows with ``N`` answer tokens in all, padded on the left to ``T``.

    Returns:
        ``input_ids``, ``attention_mask``, ``position_ids``: int64 ``[B, T]``;
        ``logits_to_keep``: int64 ``[K]``, the columns at which any row predicts an answer token, so that the model
        projects only these to the vocabulary;
        ``answer_index``: int64 ``[N]``, the answer positions in the flattened ``[B, K]``;
        ``shift_labels``: int64 ``[N]``, the tokens predicted there;
        with signals also those of :func:`slmops.signals.tensors.into_batch`, with internals those of
        :func:`slmops.training.internals.into_batch`.
    """
    texts = padded([row.input_ids for row in rows], pad_id)
    width = texts["input_ids"].shape[1]
    pads = [width - len(row.input_ids) for row in rows]
    # The logits at column t - 1 predict the token at column t: the only shift in the package.
    columns = [
        [pad + position - 1 for position in range(row.prompt_length, len(row.input_ids))]
        for pad, row in zip(pads, rows, strict=True)
    ]
    keep = sorted({column for own in columns for column in own})
    place = {column: index for index, column in enumerate(keep)}
    batch = {
        **texts,
        "logits_to_keep": torch.tensor(keep),
        "answer_index": torch.tensor([number * len(keep) + place[column] for number, own in enumerate(columns) for column in own]),
        "shift_labels": torch.tensor([token for row in rows for token in row.answer_ids]),
    }
    if signals is not None:
        batch |= into_batch(join(signals))
    if internals is not None:
        batch |= internals_into_batch(internals, rows, width)
    return batch


def padded(sequences: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask`` and ``position_ids`` of ``B`` sequences, int64 ``[B, T]``, padded on the left.

    ``T`` is :func:`padded_width` of the longest.
    """
    width = padded_width(max(map(len, sequences)))
    attention_mask = torch.tensor([[0] * (width - len(own)) + [1] * len(own) for own in sequences])
    return {
        "input_ids": torch.tensor([[pad_id] * (width - len(own)) + list(own) for own in sequences]),
        "attention_mask": attention_mask,
        "position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0),
    }


def padded_width(length: int) -> int:
    """The width of a batch whose longest row has so many tokens: one of eight between powers of two, and any up to 16."""
    return _rounded(length, 3)


def padded_count(count: int) -> int:
    """So many tokens that lie one after the other, or a few more: one of sixteen numbers between powers of two."""
    return _rounded(count, 4)


def _rounded(count: int, bits: int) -> int:
    """The least of ``2 ** bits`` numbers between powers of two that is not below a count.

    Libraries prepare a kernel for each shape of a product that they meet; batches of any size would meet a new one in nearly
    every update.
    """
    step = 1 << max(0, (count - 1).bit_length() - 1 - bits)
    return -(-count // step) * step


class PlannedBatches(Dataset[dict[str, torch.Tensor]]):
    """A data set whose items are whole batches, in the order of a plan; those left out are empty."""

    def __init__(
        self,
        plan: Sequence[Sequence[int]],
        rows: Sequence[Encoded],
        pad_id: int,
        signals: Sequence[Distribution] | None,
        left_out: Collection[int] = (),
        internals: Sequence[RowInternals] | None = None,
    ) -> None:
        self._plan, self._rows, self._pad_id, self._left_out = plan, rows, pad_id, left_out
        self._signals, self._internals = signals, internals

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index in self._left_out:
            return {}
        chosen = self._plan[index]
        signals = None if self._signals is None else [self._signals[row] for row in chosen]
        internals = None if self._internals is None else [self._internals[row] for row in chosen]
        return collate([self._rows[row] for row in chosen], self._pad_id, signals, internals)


def only_item(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collator for :class:`PlannedBatches`: the loader's batch size is 1, and the item is the batch."""
    (batch,) = items
    return batch
