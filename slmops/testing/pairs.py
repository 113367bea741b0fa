"""Whether a loss on pairs of texts is about the right tokens, however the pairs come to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from slmops.data.templates import IGNORED, Encoded
from slmops.training.batches import PlannedBatches
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.objectives.modules import OwnPairLoss
from slmops.training.objectives.schedule import schedule_of
from slmops.training.pairs import Pair, PairLoss, WithPairs, among

_TOKENS, _WIDTH, _PAD, _END = 9, 6, 0, 1
_PAIRS = (
    Pair((2, 3, _END), (4, _END), False),
    None,
    Pair((5, 6, 7, 8, _END), (2, 2, _END), True),
    Pair((3, _END), (8, 7, 6, 5, 4, _END), True),
    Pair((7, 3, _END), (3, 7, _END), False),
)
_ROW = Encoded((2, 3, _END), (IGNORED, 3, _END))


def check_pairs(objective: Contrastive) -> None:
    """Raise ``AssertionError`` with the promise that a loss on pairs breaks.

    The promises: one finite loss a pair, with finite gradients, also far from zero and at equal texts; it depends on its
    pair alone, and not on which text is the first; equal texts that are the same cost nothing, equal ones that are different
    cost the most, the square of the margin; different ones that are farther apart than the margin cost nothing; the loss of an
    update is the mean over its pairs, whatever the padding, and however they are spread over its batches.
    """
    _check_values(objective)
    _check_updates(objective, lambda table, pair: _by_hand(objective, table, pair))


def check_own_pairs(objective: OwnPairLoss) -> None:
    """Raise ``AssertionError`` with the promise that a user's loss on pairs of rows breaks.

    The promises: a finite loss with finite gradients, also of equal embeddings and of opposite ones; something has a gradient;
    the loss of an update is the mean over its pairs, each of its own tokens, whatever the padding, and however they are spread
    over its batches.
    """
    generator = torch.Generator().manual_seed(0)
    one = torch.nn.functional.normalize(torch.randn(4, _WIDTH, generator=generator), dim=-1)
    near = torch.nn.functional.normalize(one + 0.3 * one.flip(0), dim=-1)
    steepest = 0.0
    for other, what in ((near, "like"), (one.clone(), "equal"), (-one, "opposite")):
        left = one.clone().requires_grad_(True)
        losses = objective.losses(left, other, torch.tensor([False, True, False, True]))
        assert losses.dtype == torch.float32, f"the losses are {losses.dtype}, not float32"
        assert losses.isfinite().all(), f"a loss of {what} embeddings is not finite"
        (gradient,) = torch.autograd.grad(losses.sum(), left, allow_unused=True)
        assert gradient is not None, "the first embedding has no gradient"
        assert gradient.isfinite().all(), f"a gradient of {what} embeddings is not finite"
        steepest = max(steepest, float(gradient.abs().max()))
    assert steepest > 0, "nothing has a gradient"

    def by_hand(table: torch.Tensor, pair: Pair) -> torch.Tensor:
        sides = [torch.nn.functional.normalize(table[list(ids)].mean(0), dim=-1).float() for ids in (pair.left, pair.right)]
        return objective.losses(sides[0][None], sides[1][None], torch.tensor([pair.different]))[0].double()

    _check_updates(objective, by_hand)


def _check_values(objective: Contrastive) -> None:
    generator = torch.Generator().manual_seed(0)
    different = torch.tensor([False, True, False, True])
    for scale in (0.0, 1.0, 1e4):
        left, right = (scale * torch.randn(4, _WIDTH, generator=generator) for _ in range(2))
        right[2:3] = left[2:3]
        left.requires_grad_(True)
        losses = objective.losses(left, right, different)
        (gradient,) = torch.autograd.grad(losses.sum(), left)
        assert losses.shape == (4,), f"the losses have the shape {tuple(losses.shape)}, not one a pair (4,)"
        finite = bool(losses.isfinite().all()) and bool(gradient.isfinite().all())
        assert finite, f"a loss or gradient is not finite at the size {scale:g}"
        part = objective.losses(left[1:3], right[1:3], different[1:3])
        assert torch.allclose(part, losses[1:3], atol=1e-6), "a pair's loss depends on the other pairs"
        assert torch.allclose(objective.losses(right, left, different), losses, atol=1e-6), "the order of a pair's texts counts"
    equal = torch.randn(1, _WIDTH, generator=generator)
    same, most = (float(objective.losses(equal, equal, torch.tensor([label]))) for label in (False, True))
    assert same < 1e-6, "equal texts that are the same cost something"
    assert abs(most - objective.margin**2) < 1e-4, "equal texts that are different do not cost the square of the margin"
    assert float(objective.losses(equal, -equal, torch.tensor([True]))) == 0, (
        "different texts as far apart as can be cost something"
    )


def _check_updates(objective: Contrastive | OwnPairLoss, by_hand: Callable[[torch.Tensor, Pair], torch.Tensor]) -> None:
    body = _Table()
    whole = _update(objective, body, [[0, 1, 2, 3, 4]])
    table = body.table.detach().double()
    expected = torch.stack([by_hand(table, pair) for pair in _PAIRS if pair is not None]).mean()
    assert abs(whole[0] - float(expected)) < 1e-5, "the loss of an update is not the mean over its pairs, each of its own tokens"
    for name, plan in (("in three batches", [[0, 1], [2, 3], [4]]), ("with a batch that has none", [[0, 2, 3, 4], [1]])):
        value, gradient = _update(objective, body, plan)
        same = abs(value - whole[0]) < 1e-5 and torch.allclose(gradient, whole[1], atol=1e-5)
        assert same, f"it differs for an update {name}"


class _Table(torch.nn.Module):
    """A body whose hidden states are looked up, and are so large at padding that one that is read is noticed."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.randn(_TOKENS, _WIDTH, generator=torch.Generator().manual_seed(5))
        table[_PAD] = 1e3
        self.table = torch.nn.Parameter(table)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        return (self.table[input_ids],)


def _by_hand(objective: Contrastive, table: torch.Tensor, pair: Pair) -> torch.Tensor:
    """The loss of one pair in float64."""
    states = [table[list(ids)] for ids in (pair.left, pair.right)]
    left, right = (own[-1] if objective.pooling == "last" else own.mean(0) for own in states)
    cosine = left @ right / (left.norm() * right.norm())
    apart = 1 - cosine if objective.distance == "cosine" else (2 - 2 * cosine).clamp(min=0).sqrt()
    return (objective.margin - apart).clamp(min=0) ** 2 if pair.different else apart**2


def _update(objective: Contrastive | OwnPairLoss, body: _Table, plan: Sequence[Sequence[int]]) -> tuple[float, torch.Tensor]:
    body.zero_grad()
    loss = PairLoss(schedule_of(1.0, "contrastive"), objective, body)
    batches = WithPairs(PlannedBatches(plan, [_ROW] * len(_PAIRS), _PAD, None), among(plan, _PAIRS), len(plan), _PAD)
    parts = [loss(batches[index]) for index in range(len(batches))]
    value = torch.stack(parts).sum()
    value.backward()  # type: ignore[no-untyped-call,unused-ignore]
    assert body.table.grad is not None
    return float(value.detach()), body.table.grad.clone()
