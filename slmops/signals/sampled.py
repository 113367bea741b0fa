"""Tokens drawn from a teacher's distribution: few bytes, and losses linear in it are right on average."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slmops.signals.distribution import Sized, id_type

if TYPE_CHECKING:
    import torch

_BLOCK = 128  # positions at once, so that float64 sums over the vocabulary stay small


@dataclass(frozen=True)
class Sampled(Sized):
    """A teacher's distribution at ``N`` positions as ``M`` drawn tokens, each once a position, with counts.

    The idea is Sparse Logit Sampling (Anshumann et al. 2025): a count divided by the draws of its position is an unbiased
    estimate of the token's probability. Here the draws are spaced (systematic sampling): they lie at equal distances on the
    cumulated distribution and share one random offset. That is as unbiased as independent draws and varies less.

    Args:
        sizes: uint8 ``[N]``, different tokens at each position.
        entropy: float16 ``[N]``, the teacher's entropy in nats.
        ids: uint16 ``[M]``, uint32 for a vocabulary beyond 65,536: the tokens, position by position.
        counts: uint8 ``[M]``, how often each was drawn; those of a position add up to the draws.
    """

    by_position: ClassVar[tuple[str, ...]] = ("sizes", "entropy")
    by_token: ClassVar[tuple[str, ...]] = ("ids", "counts")

    sizes: np.ndarray
    entropy: np.ndarray
    ids: np.ndarray
    counts: np.ndarray

    @classmethod
    def from_logits(cls, logits: torch.Tensor, samples: int, offsets: np.ndarray) -> Sampled:
        """Draw from dense logits ``[N, V]``.

        Args:
            logits: Of the teacher.
            samples: Draws a position, at most 255.
            offsets: float64 ``[N]`` in [0, 1), the random offset of each position's draws.
        """
        blocks = range(0, len(offsets), _BLOCK)
        parts = [_draw(logits[start : start + _BLOCK], samples, offsets[start : start + _BLOCK]) for start in blocks]
        return cls.concatenate(parts or [_draw(logits, samples, offsets)])

    @classmethod
    def certain(cls, ids: Sequence[int], vocabulary: int) -> Sampled:
        """What is drawn where at each position one token alone is possible."""
        ones = np.ones(len(ids), np.uint8)
        return cls(ones, np.zeros(len(ids), np.float16), np.array(ids, id_type(vocabulary)), ones.copy())

    def remapped(self, new_ids: np.ndarray, size: int, answer: Sequence[int]) -> Sampled:
        """The distribution given the tokens that are left: what was drawn on tokens that are gone counts no more.

        Where nothing is left of a position, its answer's token is certain. A position that lost draws has the entropy of the
        rest of them, which is a little low: the loss's value, not its gradient, is off by that.

        Args:
            new_ids: int64, by old id: the new one, or -1.
            size: Number of tokens that are left.
            answer: The ``N`` answer tokens under their new ids.
        """
        places = np.repeat(np.arange(len(self)), self.sizes)
        moved = new_ids[self.ids]
        kept = moved >= 0
        none_left = ~np.isin(np.arange(len(self)), places[kept])
        at = np.concatenate([places[kept], np.flatnonzero(none_left)])
        order = np.argsort(at, kind="stable")
        ids = np.concatenate([moved[kept], np.asarray(answer)[none_left]])[order].astype(id_type(size))
        counts = np.concatenate([self.counts[kept], np.ones(none_left.sum(), np.uint8)])[order]
        sizes = np.bincount(at, minlength=len(self))
        lost = np.bincount(places[~kept], minlength=len(self)) > 0
        share = counts / np.bincount(at[order], counts, len(self))[at[order]]
        rest = np.bincount(at[order], -share * np.log(share), len(self))
        return Sampled(sizes.astype(np.uint8), np.where(lost, rest, self.entropy).astype(np.float16), ids, counts)


def offsets_of(input_ids: Sequence[int], positions: int) -> np.ndarray:
    """Random numbers in [0, 1), float64 ``[positions]``, that follow from a row's token ids alone (SHAKE-256 of them)."""
    noise = hashlib.shake_256(np.asarray(input_ids, "<u4").tobytes()).digest(8 * positions)
    return (np.frombuffer(noise, "<u8") >> np.uint64(11)) * 2.0**-53


def _draw(logits: torch.Tensor, samples: int, offsets: np.ndarray) -> Sampled:
    import torch

    vocabulary = logits.shape[-1]
    lowered = logits.float()
    lowered = (lowered - lowered.amax(-1, keepdim=True)).clamp(min=-1e4)  # of forbidden tokens too, the exponential is zero
    masses = lowered.exp()
    cumulated = masses.cumsum(-1, dtype=torch.float64)
    entropy = cumulated[:, -1].log() - (masses * lowered).sum(-1) / cumulated[:, -1]
    places = torch.from_numpy(offsets).to(cumulated.device).unsqueeze(-1)
    points = (torch.arange(samples, dtype=torch.float64, device=cumulated.device) + places) / samples * cumulated[:, -1:]
    below = torch.nextafter(cumulated[:, -1:], torch.zeros_like(places))  # rounding may lift the last point to the sum itself
    drawn = torch.searchsorted(cumulated, torch.minimum(points, below), right=True).cpu().numpy()
    # The draws of a position increase, so equal tokens lie together.
    new = np.ones(drawn.shape, bool)
    new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    first = np.flatnonzero(new)
    return Sampled(
        sizes=new.sum(-1).astype(np.uint8),
        entropy=entropy.clamp(min=0).to(torch.float16).cpu().numpy(),
        ids=drawn.reshape(-1)[first].astype(id_type(vocabulary)),
        counts=np.diff(first, append=drawn.size).astype(np.uint8),
    )
