"""One batch of a training forward and backward, as the training itself does it, on a model that is thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from slmops.training.forward import total_loss
from slmops.training.matching import LayerLosses
from slmops.training.objectives import WeightedSum
from slmops.training.pairs import PairLoss
from slmops.training.parallel import DataParallel
from slmops.training.projection import Projection


@dataclass(frozen=True)
class Attempt:
    """A model and what its losses are made with.

    Args:
        model: In training mode.
        projection: Of the model.
        on_layers: Losses on layers, where there are such.
        on_pairs: The loss on pairs of texts, where there is one.
        dtype: Of autocast.
        parallel: Threads that share a batch, where the training has such.
    """

    model: Any
    projection: Projection | None
    on_layers: LayerLosses | None
    on_pairs: PairLoss | None
    dtype: torch.dtype | None
    parallel: DataParallel | None = None

    def backward(self, batch: Mapping[str, torch.Tensor], losses: WeightedSum, *, done: float) -> float:
        """The loss of an update; its gradient takes the place of the one before.

        Args:
            batch: Of :func:`slmops.training.batches.collate`.
            losses: All of a recipe, or one of them.
            done: Share of the updates that are done.
        """
        self.model.zero_grad(set_to_none=True)
        if self.parallel is not None and self.parallel.splits(batch):
            count = len(batch["shift_labels"])

            def of_part(model: Any, projection: Projection | None, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
                with self._autocast(part):
                    return total_loss(model, part, partial(losses, done=done), projection) / count

            return float(self.parallel.backward(batch, of_part))
        with self._autocast(batch):
            loss = torch.zeros((), device=batch["input_ids"].device)
            if losses.on_tokens or losses.on_layers:
                on_layers = self.on_layers.only(losses.on_layers) if self.on_layers is not None and losses.on_layers else None
                of_rows = total_loss(self.model, batch, partial(losses, done=done), self.projection, on_layers, done)
                loss = loss + of_rows / len(batch["shift_labels"])
            if self.on_pairs is not None and losses.on_pairs is not None:
                loss = loss + self.on_pairs(batch, done=done)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        return float(loss.detach())

    def _autocast(self, batch: Mapping[str, torch.Tensor]) -> torch.autocast:
        return torch.autocast(batch["input_ids"].device.type, dtype=self.dtype, enabled=self.dtype is not None)


def updating(model: Any) -> Callable[[], float]:
    """What makes an optimizer's update of a model that has gradients, with a rate of zero, and says its seconds.

    The first update makes room for the optimizer's state, which stays.
    """
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True) if trained else None

    def update() -> float:
        started = time.perf_counter()
        if optimizer is not None:
            optimizer.step()
        return time.perf_counter() - started

    return update
