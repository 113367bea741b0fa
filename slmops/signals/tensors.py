"""A teacher's distribution as tensors of a batch: what objectives see, and how it travels among a batch's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch

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
        joined = TopK.concatenate(parts)
        return cls(
            torch.from_numpy(joined.ids.astype("int64")),
            torch.from_numpy(joined.logprobs.astype("float32")),
            torch.from_numpy(joined.tail.astype("float32")),
        )

    def at(self, positions: torch.Tensor | slice) -> TopKTensors:
        """The signal at some of the positions."""
        return TopKTensors(self.ids[positions], self.logprobs[positions], self.tail[positions])


@dataclass(frozen=True)
class SampledTensors:
    """Tokens sampled from the teacher at ``N`` answer positions (Sparse Logit Sampling, Anshumann et al. 2025).

    Args:
        ids: int64 ``[N, s]``, each token once.
        weights: Share of the samples that are this token, float32 ``[N, s]``; they sum to 1, and 0 is padding.
        entropy: The teacher's entropy in nats, float32 ``[N]``, so that the loss is a KL and no bare cross-entropy.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    entropy: torch.Tensor

    def at(self, positions: torch.Tensor | slice) -> SampledTensors:
        """The signal at some of the positions."""
        return SampledTensors(self.ids[positions], self.weights[positions], self.entropy[positions])


Signal = TopKTensors | SampledTensors
"""A teacher's distribution in one of its forms."""


def into_batch(signal: Signal) -> dict[str, torch.Tensor]:
    """The tensors under the names they have in a batch."""
    return {_PREFIX + part.name: getattr(signal, part.name) for part in fields(signal)}


def from_batch(batch: Mapping[str, torch.Tensor]) -> Signal | None:
    """The signal of a batch of :func:`slmops.training.batches.collate`; ``None`` without a teacher."""
    for form in (TopKTensors, SampledTensors):
        names = [part.name for part in fields(form)]
        if all(_PREFIX + name in batch for name in names):
            return form(**{name: batch[_PREFIX + name] for name in names})
    return None
