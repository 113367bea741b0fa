"""Top-k log-probabilities with the rest of the distribution kept as one tail mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slmops.signals.distribution import Distribution, id_type

if TYPE_CHECKING:
    import torch

LOG_ZERO = -1e4
"""Log-probability of an empty tail; finite, so that arithmetic with it is."""


@dataclass(frozen=True)
class TopK(Distribution):
    """A teacher's distribution at ``N`` positions as its most likely tokens.

    Args:
        ids: uint16 ``[N, k]``, uint32 for a vocabulary beyond 65,536: the most likely tokens.
        logprobs: float16 ``[N, k]``, their natural log-probabilities. Live and cached signals are rounded alike.
        tail: float32 ``[N]``, natural log of the probability of all other tokens together (``LOG_ZERO`` if none).
    """

    by_position: ClassVar[tuple[str, ...]] = ("ids", "logprobs", "tail")

    ids: np.ndarray
    logprobs: np.ndarray
    tail: np.ndarray

    @classmethod
    def from_logits(cls, logits: torch.Tensor, k: int) -> TopK:
        """Reduce dense logits ``[N, V]``; with ``k >= V`` nothing is lost but rounding.

        The tail is what the *rounded* top-k leaves, so that the stored masses add up to one.
        """
        import torch

        vocabulary = logits.shape[-1]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        values, ids = logprobs.topk(min(k, vocabulary), dim=-1)
        rounded = values.clamp(min=LOG_ZERO).to(torch.float16)
        if ids.shape[-1] == vocabulary:
            tail = torch.full(rounded.shape[:1], LOG_ZERO)
        else:
            tail = torch.log1p(-rounded.double().exp().sum(-1).clamp(max=1.0)).clamp(min=LOG_ZERO).float()
        return cls(ids.cpu().numpy().astype(id_type(vocabulary)), rounded.cpu().numpy(), tail.cpu().numpy())

    def __getitem__(self, positions: slice) -> TopK:
        return self.cut(positions, slice(0))

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
        return TopK(ids.astype(id_type(size)), rounded, np.maximum(tail, LOG_ZERO))
