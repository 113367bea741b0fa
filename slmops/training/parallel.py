"""Data parallelism within a process: the rows of a batch, split over threads that share the weights.

The same numbers every time: which rows a thread has depends on the batch alone, and gradients are added in the threads' order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from slmops.signals.tensors import from_batch, into_batch
from slmops.training.batches import padded_width
from slmops.training.cores import THREADS, Cores, bounds_of
from slmops.training.deferred import Deferred, Products, added
from slmops.training.gradients import rows_of_embedding
from slmops.training.machine import drops, few_logits, stays_on_cpu
from slmops.training.projection import Projection
from slmops.training.quick import quicken

_FEWEST_TOKENS = 256
"""Of a batch that is split, padding included: below, a thread has too little to do."""

_LARGE = 4
"""One over the share of the trained weights from which on an output layer is too large."""

_OF_ROWS = ("input_ids", "attention_mask", "position_ids")

PartLoss = Callable[[Any, Projection | None, Mapping[str, torch.Tensor]], torch.Tensor]
"""The loss of some rows under a model, as its share of the whole batch's."""


@dataclass(frozen=True)
class DataParallel:
    """A model and its twins, one a thread, which have its weights and gradients of their own.

    A twin's weights are the model's memory. Those that autocast would convert in each forward pass are instead converted once an
    update, for all twins: the same numbers.

    Args:
        model: That is trained.
        twins: Of it.
        projections: Of each twin.
        lowered: Trained weights of the model, and what they are converted into.
        deferred: Weights whose gradients are made when all threads' backward passes have ended.
        cores: A thread for each twin.
    """

    model: Any
    twins: tuple[Any, ...]
    projections: tuple[Projection | None, ...]
    lowered: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    deferred: Deferred
    cores: Cores

    @classmethod
    @contextmanager
    def of(cls, model: Any, projection: Projection | None, dtype: torch.dtype | None = None) -> Iterator[DataParallel | None]:
        """That of a model that is about to be trained; ``None`` on a GPU, on one core, with dropout, and where it does not pay.

        Threads draw from one generator, so with dropout a run would not give the same numbers again.

        Args:
            model: With float32 weights.
            projection: Of the model.
            dtype: Of autocast, where the losses are computed within one.
        """
        if not stays_on_cpu(model) or torch.get_num_threads() < THREADS or drops(model) or _trains_a_large_vocabulary(model):
            yield None
            return
        lowered = _lowered(model, dtype)
        if lowered and not _same_states(model, _twin(model, lowered), dtype):
            lowered = {}
        with ExitStack() as stack:
            twins = [_twin(model, lowered) for _ in range(THREADS)]
            for twin in twins:
                quicken(twin, dtype if lowered else None)
                stack.enter_context(rows_of_embedding(twin))
            trained = tuple((one, low) for one, low in lowered.items() if one.requires_grad)
            projections = tuple(projection and projection.of_twin(twin) for twin in twins)
            deferred = Deferred.of(model, twins, dtype)
            yield cls(model, tuple(twins), projections, trained, deferred, stack.enter_context(Cores(THREADS)))

    def splits(self, batch: Mapping[str, torch.Tensor]) -> bool:
        """Whether a batch is worth it."""
        rows, width = batch["input_ids"].shape
        return bool(rows >= len(self.twins) and rows * width >= _FEWEST_TOKENS)

    def backward(self, batch: Mapping[str, torch.Tensor], loss: PartLoss) -> torch.Tensor:
        """Add the gradients of a batch's loss to the model's; the loss, without gradient."""
        parts = split(batch, len(self.twins))
        with torch.no_grad():
            for weight, low in self.lowered:
                low.copy_(weight)

        def one(place: int) -> torch.Tensor:
            self.deferred.waiting[place].clear()
            own = loss(self.twins[place], self.projections[place], parts[place])
            own.backward()
            return own.detach()

        def rest(products: list[Products]) -> None:
            for some in products:
                some.add()

        losses = self.cores.each(one, range(len(parts)))
        self.cores.each(rest, self.deferred.shares(len(parts)))
        for parameter, *others in zip(self.model.parameters(), *(twin.parameters() for twin in self.twins), strict=True):
            for other in others:
                if other.grad is not None:
                    parameter.grad = added(parameter.grad, other.grad)
                    other.grad = None
        return torch.stack(losses).sum()


def split(batch: Mapping[str, torch.Tensor], parts: int) -> list[dict[str, torch.Tensor]]:
    """A batch of :func:`slmops.training.batches.collate` as several, of like numbers of rows, in order, without losing an answer.

    Args:
        batch: Of ``B`` rows, with or without signals; nothing else.
        parts: At most ``B``.
    """
    (rows, width), columns = batch["input_ids"].shape, len(batch["logits_to_keep"])
    signal = from_batch(batch)
    row_of = batch["answer_index"] // columns
    found = []
    for first, after in bounds_of(rows, parts):
        start, end = torch.searchsorted(row_of, torch.tensor([first, after])).tolist()
        mask = batch["attention_mask"][first:after]
        pads = width - padded_width(width - int(mask.any(0).int().argmax()))  # padding in all of these rows
        answers = batch["answer_index"][start:end]
        keep, place = (answers % columns).unique(return_inverse=True)
        part = {name: batch[name][first:after, pads:] for name in _OF_ROWS}
        part |= {
            "logits_to_keep": batch["logits_to_keep"][keep] - pads,
            "answer_index": (answers // columns - first) * len(keep) + place,
            "shift_labels": batch["shift_labels"][start:end],
        }
        if signal is not None:
            part |= into_batch(signal.at(slice(start, end)))
        found.append(part)
    return found


def _lowered(model: Any, dtype: torch.dtype | None) -> dict[torch.Tensor, torch.Tensor]:
    """The weights that autocast converts in every forward pass, and memory for the converted: of linear layers but the last.

    What converts the last depends on the number of positions that meet it.
    """
    if dtype is None:
        return {}
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear and module is not head]
    return {module.weight: module.weight.detach().to(dtype) for module in layers}


def _twin(model: Any, lowered: Mapping[torch.Tensor, torch.Tensor]) -> Any:
    """A model with modules and gradients of its own, whose weights are the other's memory, or what that is converted into."""
    shared: dict[int, Any] = {
        id(one): torch.nn.Parameter(lowered.get(one, one).detach(), requires_grad=one.requires_grad) for one in model.parameters()
    }
    twin = copy.deepcopy(model, shared)
    twin.train()
    return twin


def _same_states(model: Any, twin: Any, dtype: torch.dtype | None) -> bool:
    """Whether autocast makes of both the same, tried on a few tokens: some layers compute in float32 whatever surrounds them."""
    own, others = few_logits(model, dtype), few_logits(twin, dtype)
    return own is not None and others is not None and torch.equal(own, others)


def _trains_a_large_vocabulary(model: Any) -> bool:
    """Whether the output layer is much of what is trained: to make and add its gradient twice takes longer than is won."""
    head = model.get_output_embeddings()
    if head is None or not head.weight.requires_grad:
        return False
    return bool(_LARGE * head.weight.numel() > sum(one.numel() for one in model.parameters() if one.requires_grad))
