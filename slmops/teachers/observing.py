"""What a model thinks at the answer tokens of rows, with few logits in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slmops.data.templates import Encoded
from slmops.models.watching import Watcher
from slmops.signals.distribution import D, Distribution
from slmops.signals.forms import Form
from slmops.signals.internals import Internals, Layers
from slmops.training.batches import collate
from slmops.training.cores import THREADS, Cores, bounds_of
from slmops.training.forward import answers_of
from slmops.training.internals import kept_of
from slmops.training.projection import Projection


@dataclass(frozen=True)
class Observer:
    """A model that is only looked at.

    Args:
        model: In the number type that it computes in.
        projection: Of the model, with a last layer that reads all positions; ``None`` where its logits are made all at once.
        pad_id: Token id of the padding.
    """

    model: Any
    projection: Projection | None
    pad_id: int

    def signals(self, rows: Sequence[Encoded], form: Form) -> list[Distribution]:
        """The distribution at every answer token of a batch of rows, in order; on a processor by threads with a part each."""

        def one(part: Sequence[Encoded]) -> list[Distribution]:
            with torch.inference_mode():
                return self._signals(part, self._batch(part), form, self.projection)

        if self.model.device.type != "cpu" or torch.get_num_threads() < THREADS or len(rows) < THREADS:
            return one(rows)
        with Cores(THREADS) as cores:
            found = cores.each(one, [rows[start:end] for start, end in bounds_of(len(rows), THREADS)])
        return [signal for part in found for signal in part]

    def signals_and_internals(
        self, rows: Sequence[Encoded], form: Form, layers: Layers
    ) -> tuple[list[Distribution], list[Internals]]:
        """The same, and out of the same pass what is kept of layers.

        Raises:
            ModelError: There is no such layer, or nothing is seen of it.
        """
        batch = self._batch(rows)
        with torch.inference_mode():
            with Watcher(self.model, layers).watching() as seen:
                signals = self._signals(rows, batch, form, self.projection and self.projection.whole)
            return signals, by_row(kept_of(seen, layers, batch, rows), rows)

    def _batch(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        return {name: values.to(self.model.device) for name, values in collate(rows, self.pad_id).items()}

    def _signals(
        self, rows: Sequence[Encoded], batch: Mapping[str, torch.Tensor], form: Form, projection: Projection | None
    ) -> list[Distribution]:
        if projection is None:
            return list(by_row(form.reduce(answers_of(self.model, batch).logits, rows), rows))
        hidden = projection.hidden(batch)
        found: list[Distribution] = []
        start = 0
        for some in _groups(rows, projection.chunk_positions):
            end = start + sum(len(row.answer_ids) for row in some)
            found += by_row(form.reduce(projection.logits(hidden[start:end]), some), some)
            start = end
        return found


def by_row(joined: D, rows: Sequence[Encoded]) -> list[D]:
    """What is about the answer tokens of a batch, cut into its rows."""
    parts, start = [], 0
    for row in rows:
        end = start + len(row.answer_ids)
        parts.append(joined[start:end])
        start = end
    return parts


def _groups(rows: Sequence[Encoded], positions: int) -> Iterator[Sequence[Encoded]]:
    """Neighbouring rows with so many answer tokens at most; one with more is alone."""
    first, count = 0, 0
    for place, row in enumerate(rows):
        if place > first and count + len(row.answer_ids) > positions:
            yield rows[first:place]
            first, count = place, 0
        count += len(row.answer_ids)
    if rows:
        yield rows[first:]
