"""Whether an objective is about the right tokens of a batch, however the batch comes to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from slmops.data.templates import IGNORED, Encoded
from slmops.signals.tensors import Signal, from_batch
from slmops.signals.topk import TopK
from slmops.training.batches import collate
from slmops.training.objectives.base import Answers, Objective
from slmops.training.projection import Projection, each, summed

_VOCABULARY, _WIDTH, _K, _PAD = 11, 5, 3, 0
# Prompt 4 5 6, answer 7 8 and the end token 1; and so on. The second prompt ends as the first answer begins.
ROWS = (
    Encoded((4, 5, 6, 7, 8, 1), (IGNORED, IGNORED, IGNORED, 7, 8, 1)),
    Encoded((9, 7, 10, 1), (IGNORED, IGNORED, 10, 1)),
    Encoded((3, 2, 2, 9, 4, 5, 1), (IGNORED, 2, 2, 9, 4, 5, 1)),
)
# The token that predicts each answer token, worked out by hand from the rows above.
_BEFORE = (6, 7, 8, 7, 10, 3, 2, 2, 9, 4, 5)


def check_in_batches(objective: Objective) -> None:
    """Raise ``AssertionError`` where a loss is about other tokens than the answers', or depends on how it is computed."""
    model = _Bigrams()
    whole = collate(ROWS, _PAD, _signals())
    found = each(model.projection, whole, objective)
    assert torch.allclose(found, _by_hand(objective, model, from_batch(whole)), atol=1e-5), (
        "its losses in a batch are not those of the answers' tokens, each predicted by the token before it"
    )
    value, gradient = _trained(objective, [whole])
    for name, batches, positions in (
        ("padded on the right too", [_padded_on_the_right(whole)], None),
        ("split into several", [collate([row], _PAD, [signal]) for row, signal in zip(ROWS, _signals(), strict=True)], None),
        *((f"projected {count} positions at a time", [whole], count) for count in (1, 4)),
    ):
        again, again_gradient = _trained(objective, batches, positions)
        same = torch.allclose(value, again, rtol=1e-5, atol=1e-6) and torch.allclose(gradient, again_gradient, atol=1e-5)
        assert same, f"it differs for a batch that is {name}"


class _Bigrams(torch.nn.Module):
    """A language model whose logits depend on the last token alone, so that they can be looked up in a table."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.table = torch.nn.Parameter(torch.randn(_VOCABULARY, _WIDTH, generator=generator))
        self.head = torch.nn.Linear(_WIDTH, _VOCABULARY, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(_VOCABULARY, _WIDTH, generator=generator))

    @property
    def projection(self) -> Projection:
        return Projection(lambda input_ids, **_: (self.table[input_ids],), self.head)


def _by_hand(objective: Objective, model: _Bigrams, signal: Signal | None) -> torch.Tensor:
    logits = model.head(model.table[list(_BEFORE)]).detach()
    labels = torch.tensor([token for row in ROWS for token in row.answer_ids])
    return objective(Answers(logits, labels, signal))


def _signals() -> list[TopK]:
    """A teacher's, who is as good as random."""
    generator = torch.Generator().manual_seed(4)
    logits = [2 * torch.randn(len(row.answer_ids), _VOCABULARY, generator=generator) for row in ROWS]
    return [TopK.from_logits(own, _K) for own in logits]


def _trained(
    objective: Objective, batches: Sequence[Mapping[str, torch.Tensor]], positions: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over all answer tokens of an update, and its gradient."""
    model = _Bigrams()
    count = sum(len(batch["shift_labels"]) for batch in batches)
    value = torch.zeros(())
    for batch in batches:
        part = summed(model.projection, batch, objective, positions=positions) / count
        part.backward()  # type: ignore[no-untyped-call,unused-ignore]
        value += part.detach()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return value, torch.cat([gradient.flatten() for gradient in gradients])


def _padded_on_the_right(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    wide = {name: torch.nn.functional.pad(batch[name], (0, 3)) for name in ("input_ids", "attention_mask", "position_ids")}
    return {**batch, **wide}
