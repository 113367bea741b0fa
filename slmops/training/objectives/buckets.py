"""A dense distribution reduced to the teacher's tokens and one bucket for all others."""

from __future__ import annotations

from typing import Any

import torch

from slmops.signals.topk import LOG_ZERO


def buckets(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of chosen tokens and of all others together.

    Args:
        logits: ``[N, V]``.
        ids: int64 ``[N, k]``, each token at most once.

    Returns:
        ``[N, k + 1]``; where ``k`` is the vocabulary nothing is left for the last one, which is ``LOG_ZERO``.
    """
    if ids.shape[-1] == logits.shape[-1]:
        top = torch.log_softmax(logits, dim=-1).gather(-1, ids)
        return torch.cat([top, torch.full_like(top[:, :1], LOG_ZERO)], dim=-1)
    reduced: torch.Tensor = _Buckets.apply(logits, ids)
    return reduced


class _Buckets(torch.autograd.Function):
    """Keeps one matrix of the size of the logits for the backward pass, and writes one more there."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        top = logits.gather(-1, ids)
        rest = logits.scatter(-1, ids, float("-inf"))
        highest = rest.amax(dim=-1, keepdim=True)
        masses = rest.sub_(highest).exp_()
        mass = masses.sum(dim=-1, keepdim=True)
        reduced = torch.log_softmax(torch.cat([top, highest + mass.log()], dim=-1), dim=-1)
        ctx.save_for_backward(ids, masses, mass, reduced)
        return reduced

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        ids, masses, mass, reduced = ctx.saved_tensors
        (given,) = gradients
        into = given - reduced.exp() * given.sum(dim=-1, keepdim=True)
        # Within the last bucket a token takes part by its share of the bucket's mass.
        slope = masses * (into[:, -1:] / mass)
        return slope.scatter_(-1, ids, into[:, :-1]), None
