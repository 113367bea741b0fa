"""Top-k log-probabilities with the rest of the distribution kept as one tail mass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LOG_ZERO = -1e4
"""Log-probability of an empty tail; finite, so that arithmetic with it is."""


@dataclass(frozen=True)
class TopK:
    """A teacher's distribution at ``N`` positions, already shifted and masked: entry ``i`` is about answer token ``i``.

    Args:
        ids: int32 ``[N, k]``, the most likely tokens.
        logprobs: float16 ``[N, k]``, their natural log-probabilities. Live and cached signals are rounded alike.
        tail: float32 ``[N]``, natural log of the probability of all other tokens together (``LOG_ZERO`` if none).
    """

    ids: np.ndarray
    logprobs: np.ndarray
    tail: np.ndarray

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @classmethod
    def from_logits(cls, logits: torch.Tensor, k: int) -> TopK:
        """Reduce dense logits ``[N, V]``; with ``k >= V`` nothing is lost but rounding.

        The tail is what the *rounded* top-k leaves, so that the stored masses add up to one.
        """
        import torch

        logprobs = torch.log_softmax(logits.float(), dim=-1)
        values, ids = logprobs.topk(min(k, logprobs.shape[-1]), dim=-1)
        rounded = values.clamp(min=LOG_ZERO).to(torch.float16)
        if ids.shape[-1] == logprobs.shape[-1]:
            tail = torch.full(rounded.shape[:1], LOG_ZERO)
        else:
            tail = torch.log1p(-rounded.double().exp().sum(-1).clamp(max=1.0)).clamp(min=LOG_ZERO).float()
        return cls(ids.to(torch.int32).numpy(), rounded.numpy(), tail.numpy())

    @classmethod
    def concatenate(cls, parts: Sequence[TopK]) -> TopK:
        """Join along the positions."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.logprobs for part in parts]),
            np.concatenate([part.tail for part in parts]),
        )

    def __getitem__(self, positions: slice) -> TopK:
        return TopK(self.ids[positions], self.logprobs[positions], self.tail[positions])

    def fitted(self, positions: int) -> TopK:
        """Cut or filled up to so many positions; those that are filled in have no mass, which no real position has."""
        missing = positions - len(self)
        if missing <= 0:
            return self[:positions]
        k = self.ids.shape[1]
        nothing = TopK(
            np.zeros((missing, k), dtype=self.ids.dtype),
            np.full((missing, k), LOG_ZERO, dtype=self.logprobs.dtype),
            np.full(missing, LOG_ZERO, dtype=self.tail.dtype),
        )
        return TopK.concatenate([self, nothing])
