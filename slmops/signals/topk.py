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

    def remapped(self, new_ids: np.ndarray, size: int) -> TopK:
        """The same distribution over fewer tokens: what was on tokens that are gone is added to the tail.

        Their places are filled with tokens at the end of the vocabulary that are not among the others, with no
        probability. Where all tokens that are left are among the ``k``, there is nothing a tail could be about, so it
        becomes the distribution given these tokens.

        Args:
            new_ids: int64, by old id: the new one, or -1.
            size: Number of tokens that are left.
        """
        k = min(self.ids.shape[-1], size)
        moved = new_ids[self.ids]
        logprobs = np.where(moved >= 0, self.logprobs.astype(np.float64), LOG_ZERO)
        order = np.argsort(-logprobs, axis=-1, kind="stable")[:, :k]
        ids, logprobs = np.take_along_axis(moved, order, -1), np.take_along_axis(logprobs, order, -1)
        for place in np.flatnonzero((ids < 0).any(-1)):
            taken = set(ids[place].tolist())
            free = (number for number in range(size - 1, -1, -1) if number not in taken)
            ids[place] = [number if number >= 0 else next(free) for number in ids[place]]
        if k == size:
            logprobs = np.maximum(logprobs - np.logaddexp.reduce(logprobs, axis=-1, keepdims=True), LOG_ZERO)
        rounded = logprobs.astype(np.float16)
        left = np.maximum(1 - np.exp(rounded.astype(np.float64)).sum(-1), 0)
        tail = np.full(len(self), LOG_ZERO, np.float32)
        if k < size:
            tail[left > 0] = np.log(left[left > 0])
        return TopK(ids.astype(np.int32), rounded, np.maximum(tail, LOG_ZERO))
