"""A teacher's distribution as tensors of a batch: what objectives see, and how it travels among a batch's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias, cast

import torch

from slmops.signals.distribution import Distribution
from slmops.signals.sampled import Sampled
from slmops.signals.topk import TopK

_PREFIX = "signal_"


@dataclass(frozen=True)
class TopKTensors:
    """The most likely tokens at ``N`` answer positions, and the rest as one mass.

    Args:
        ids: int64 ``[N, k]``.
        logprobs: Their natural log-probabilities, float32 ``[N, k]``.
        tail: Log of the remaining mass, float32 ``[N]``.
    """

    ids: torch.Tensor
    logprobs: torch.Tensor
    tail: torch.Tensor

    @classmethod
    def join(cls, parts: Sequence[TopK]) -> TopKTensors:
        """Signals of several rows, one after the other."""
        signal = TopK.concatenate(parts)
        return cls(
            torch.from_numpy(signal.ids.astype("int64")),
            torch.from_numpy(signal.logprobs.astype("float32")),
            torch.from_numpy(signal.tail.astype("float32")),
        )

    def at(self, positions: torch.Tensor | slice) -> TopKTensors:
        """The signal at some of the positions."""
        return TopKTensors(self.ids[positions], self.logprobs[positions], self.tail[positions])


@dataclass(frozen=True)
class SampledTensors:
    """Tokens drawn from the teacher at ``N`` answer positions: sums over them are unbiased estimates of means over the teacher.

    Args:
        ids: int64 ``[N, s]``, each token once a position; where there are fewer than ``s``, padded with any id.
        weights: Share of a position's draws, float32 ``[N, s]``; a position's add up to 1, and those of the padding are 0.
        entropy: Of the teacher's whole distribution in nats, float32 ``[N]``.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    entropy: torch.Tensor

    @classmethod
    def join(cls, parts: Sequence[Sampled]) -> SampledTensors:
        """Signals of several rows, one after the other, padded to the most tokens that a position has."""
        signal = Sampled.concatenate(parts)
        sizes = torch.from_numpy(signal.sizes.astype("int64"))
        there = torch.arange(int(sizes.max()) if len(sizes) else 0) < sizes.unsqueeze(-1)
        ids = torch.zeros(there.shape, dtype=torch.int64)
        ids[there] = torch.from_numpy(signal.ids.astype("int64"))
        counts = torch.zeros(there.shape)
        counts[there] = torch.from_numpy(signal.counts.astype("float32"))
        return cls(ids, counts / counts.sum(-1, keepdim=True), torch.from_numpy(signal.entropy.astype("float32")))

    def at(self, positions: torch.Tensor | slice) -> SampledTensors:
        """The signal at some of the positions."""
        return SampledTensors(self.ids[positions], self.weights[positions], self.entropy[positions])


Signal: TypeAlias = TopKTensors | SampledTensors
_FORMS: tuple[type[TopKTensors] | type[SampledTensors], ...] = (TopKTensors, SampledTensors)


def join(parts: Sequence[Distribution]) -> Signal:
    """Signals of several rows, all of one form, one after the other."""
    if isinstance(parts[0], Sampled):
        return SampledTensors.join(cast("Sequence[Sampled]", parts))
    return TopKTensors.join(cast("Sequence[TopK]", parts))


def into_batch(signal: Signal) -> dict[str, torch.Tensor]:
    """The tensors under the names they have in a batch."""
    return {_PREFIX + part.name: getattr(signal, part.name) for part in fields(signal)}


def from_batch(batch: Mapping[str, torch.Tensor]) -> Signal | None:
    """The signal of a batch of :func:`slmops.training.batches.collate`; ``None`` without a teacher."""
    for form in _FORMS:
        names = [part.name for part in fields(form)]
        if all(_PREFIX + name in batch for name in names):
            return form(**{name: batch[_PREFIX + name] for name in names})
    return None
