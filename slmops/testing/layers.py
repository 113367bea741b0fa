"""What every loss on layers must keep, on small made-up layers of a student and a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from slmops.data.templates import Encoded
from slmops.errors import ConfigError
from slmops.models.watching import Attended, Seen
from slmops.signals.internals import Layers, RowInternals
from slmops.testing.batches import ROWS
from slmops.training.batches import collate
from slmops.training.internals import kept_of
from slmops.training.matching import LayerLosses
from slmops.training.objectives.base import Answers, Matched
from slmops.training.objectives.matching import Matching
from slmops.training.objectives.schedule import schedule_of
from slmops.training.objectives.weighted import Term

_WIDTH, _HEADS, _SHARED, _HEAD = 6, 4, 2, 3
_PAD = 0


def check_layer_loss(objective: Matching) -> None:
    """Raise ``AssertionError`` with the promise that a loss on layers breaks.

    The promises: one finite float32 loss a position, with finite gradients; ``ConfigError`` where there are no layers; zero, with
    a gradient of zero, where student and teacher agree, and more elsewhere; at an answer's token it is about what was read before
    that token and nothing else, however the batch is padded or split.
    """
    _check_shape(objective)
    _check_agreement_is_best(objective)
    _check_in_batches(objective)


def _check_shape(objective: Matching) -> None:
    for scale in (0.0, 1.0, 1e3):
        losses, gradients = _losses_and_gradients(
            objective, _matched(_States.random(ROWS[2], 1, scale), _States.random(ROWS[2], 2))
        )
        count = len(ROWS[2].answer_ids)
        assert losses.shape == (count,), f"the losses have the shape {tuple(losses.shape)}, not one a position ({count},)"
        assert losses.dtype == torch.float32, f"the losses are {losses.dtype}, not float32"
        assert losses.isfinite().all(), f"a loss is not finite for layers of the size {scale:g}"
        assert gradients.isfinite().all(), f"a gradient is not finite for layers of the size {scale:g}"
    try:
        objective(Answers(torch.zeros(1, 0), torch.zeros(1, dtype=torch.int64)))
    except ConfigError:
        return
    raise AssertionError("it needs layers and does not raise ConfigError without any")


def _check_agreement_is_best(objective: Matching) -> None:
    same = _States.random(ROWS[2], 1)
    best, gradients = _losses_and_gradients(objective, _matched(same, same))
    assert best.abs().max() < 1e-5, "it is not zero where teacher and student agree"
    assert gradients.abs().max() < 1e-5, "its gradient is not zero where teacher and student agree"
    for seed in (2, 3):
        worse = objective(_answers(_matched(_States.random(ROWS[2], seed), same)))
        assert (worse >= best - 1e-5).all(), "a student that disagrees with the teacher has a lower loss"
        assert worse.mean() > best.mean() + 1e-5, "a student that disagrees with the teacher costs nothing"


def _check_in_batches(objective: Matching) -> None:
    """Against the loss at each answer token of a row that ends before it, worked out one by one."""
    students = [_States.random(row, 10 + number) for number, row in enumerate(ROWS)]
    teachers = [_States.random(row, 20 + number).rounded for number, row in enumerate(ROWS)]
    expected = [
        objective(_answers(_until(own, theirs, column)))
        for row, own, theirs in zip(ROWS, students, teachers, strict=True)
        for column in range(row.prompt_length - 1, len(row.input_ids) - 1)
    ]
    whole = _in_batch(objective, ROWS, students, teachers)
    assert torch.allclose(whole, torch.cat(expected), rtol=1e-3, atol=1e-5), (
        "its losses in a batch are not about what was read before each token of the answers"
    )
    apart = [_in_batch(objective, [row], [own], [them]) for row, own, them in zip(ROWS, students, teachers, strict=True)]
    assert torch.allclose(whole, torch.cat(apart), atol=1e-5), "it differs for a batch that is split into several"


@dataclass(frozen=True)
class _States:
    """What the only layer of a model holds at each of the ``T`` tokens of a row."""

    hidden: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def random(cls, row: Encoded, seed: int, scale: float = 1.0) -> _States:
        generator = torch.Generator().manual_seed(seed)
        shapes = ((_WIDTH,), (_HEADS, _HEAD), (_SHARED, _HEAD), (_SHARED, _HEAD))
        return cls(*(scale * torch.randn(len(row.input_ids), *shape, generator=generator) for shape in shapes))

    @property
    def rounded(self) -> _States:
        return _States(self.hidden, *(states.half().float() for states in (self.queries, self.keys, self.values)))

    def padded(self, width: int) -> Seen:
        """As in a batch of this row alone."""
        missing = width - len(self.hidden)
        hidden, *attended = (
            torch.cat([torch.full((missing, *states.shape[1:]), 7.0), states]).unsqueeze(0)
            for states in (self.hidden, self.queries, self.keys, self.values)
        )
        return Seen({0: hidden}, {0: Attended(*attended)})


def _matched(own: _States, theirs: _States, row: Encoded = ROWS[2]) -> Matched:
    """A row by itself."""
    columns = torch.arange(row.prompt_length - 1, len(row.input_ids) - 1)
    return _between(own, theirs, len(row.input_ids), columns)


def _until(own: _States, theirs: _States, column: int) -> Matched:
    """A row that ends with a column, which is the only answer position."""
    return _between(own, theirs, column + 1, torch.tensor([column]))


def _between(own: _States, theirs: _States, length: int, columns: torch.Tensor) -> Matched:
    first, second = (
        Attended(*(states[:length].unsqueeze(0) for states in (one.queries, one.keys, one.values))) for one in (own, theirs)
    )
    places = torch.arange(len(columns))
    read = torch.ones(1, length, dtype=torch.bool)
    return Matched(((own.hidden[columns], theirs.hidden[columns]),), ((first, second),), columns, places, read)


def _answers(matched: Matched) -> Answers:
    count = len(matched.places)
    return Answers(torch.zeros(count, 0), torch.zeros(count, dtype=torch.int64), matched=matched)


def _in_batch(
    objective: Matching, rows: Sequence[Encoded], students: Sequence[_States], teachers: Sequence[_States]
) -> torch.Tensor:
    """The losses at all answer tokens of a batch, by the way that training takes."""
    layers = Layers((0,), (0,))
    alone = [(row, states.padded(len(row.input_ids))) for row, states in zip(rows, teachers, strict=True)]
    internals = [RowInternals(kept_of(seen, layers, collate([row], _PAD), [row]), answer=True, whole=True) for row, seen in alone]
    batch = collate(rows, _PAD, internals=internals)
    width = batch["input_ids"].shape[1]
    seen = [states.padded(width) for states in students]
    joined = Attended(*(torch.cat([getattr(one.attention[0], part.name) for one in seen]) for part in fields(Attended)))
    term = Term("loss", schedule_of(1.0, "loss"), objective)
    losses = LayerLosses(internals, torch.nn.ModuleDict(), (term,), (((0, 0),),), layers)
    return losses.each(Seen({0: torch.cat([one.hidden[0] for one in seen])}, {0: joined}), batch, done=0.0)


def _losses_and_gradients(objective: Matching, matched: Matched) -> tuple[torch.Tensor, torch.Tensor]:
    ((own, theirs),), ((attended, of_teacher),) = matched.hidden, matched.attention
    inputs = [states.clone().requires_grad_(True) for states in (own, attended.queries, attended.keys, attended.values)]
    followed = replace(matched, hidden=((inputs[0], theirs),), attention=((Attended(*inputs[1:]), of_teacher),))
    losses = objective(_answers(followed))
    gradients = torch.autograd.grad(losses.sum(), inputs, allow_unused=True)
    return losses.detach(), torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
