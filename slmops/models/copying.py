"""Which layers of a model copy: heads that look one token back, and heads that continue what stood there before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slmops.errors import ModelError
from slmops.models.importance import mark_kept
from slmops.models.load import load_model, load_tokenizer
from slmops.signals.internals import Layers

if TYPE_CHECKING:
    from slmops.models.watching import Attended

_ROWS = 8
_LENGTH = 32


@dataclass(frozen=True)
class Copying:
    """How much a layer copies, from 0 to 1: the most that one of its heads gives.

    Args:
        previous: Share of its attention on the token before.
        induction: Share on the token behind an earlier occurrence of the one that is read, which is what comes next if the
            text repeats itself.
    """

    previous: float
    induction: float


def copying_of(model: Path) -> list[Copying]:
    """Let a model read random tokens twice, and see what each layer attends to (induction heads, Olsson et al. 2022).

    No text is needed and the same model always gives the same; takes seconds for 100 million weights.

    Raises:
        ModelError: A model whose attention is not seen, or that has too few tokens.
    """
    import torch

    from slmops.models.watching import Watcher

    network = load_model(model)
    depth = int(network.config.get_text_config().num_hidden_layers)
    watcher = Watcher(network, Layers(attention=tuple(range(depth))))
    with torch.inference_mode(), watcher.watching() as seen:
        network(input_ids=torch.from_numpy(_repeated(model)), use_cache=False, logits_to_keep=1)
    return [_seen(seen.attention[number]) for number in range(depth)]


def copying_layers(copying: Sequence[Copying], keep: int) -> list[int]:
    """The ``keep`` layers that leave a model able to copy, in their order.

    A head that copies needs, below it, one that tells each token what stood before it. So the layer that copies most stays, the
    one below it that looks back most and the first two layers; then the next best that copies, the last layer, and the rest
    from the first on.

    Raises:
        ModelError: More layers than there are, or fewer than two.
    """
    depth = len(copying)
    if not 2 <= keep <= depth:
        raise ModelError(f"cannot keep {keep} of {depth} layers", fix=f"choose 2 to {depth}")
    best, second, *_ = sorted(range(depth), key=lambda number: -copying[number].induction)
    below = max(range(best), key=lambda number: copying[number].previous, default=0)
    wanted = dict.fromkeys([best, below, 0, 1, second, depth - 1, *range(depth)])
    return sorted(list(wanted)[:keep])


def describe_copying(copying: Sequence[Copying], kept: Sequence[int]) -> str:
    """A line for people: what each layer gives to the token before and to what came next, those that are kept in brackets."""
    figures = [f"{one.previous:.2f}/{one.induction:.2f}" for one in copying]
    return f"copying      [kept] layer: looks back/continues  {mark_kept(figures, kept)}"


def _repeated(model: Path) -> np.ndarray:
    """Rows of random tokens, each twice, ``[8, 64]``; behind a first token where the model begins texts with one."""
    tokenizer = load_tokenizer(model)
    usual = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    if len(usual) < _LENGTH:
        raise ModelError("there are too few tokens to see what a model copies", where=str(model), fix="keep: first")
    random = np.random.default_rng(0)
    once = np.stack([random.choice(usual, _LENGTH, replace=False) for _ in range(_ROWS)])
    begin = np.full((_ROWS, 0 if tokenizer.bos_token_id is None else 1), tokenizer.bos_token_id or 0)
    return np.concatenate([begin, once, once], 1)


def _seen(attended: Attended) -> Copying:
    """Of the second time."""
    import torch

    queries, keys = attended.queries.float().transpose(1, 2), attended.keys.float().transpose(1, 2)
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
    length = keys.shape[2]
    scores = queries[:, :, -_LENGTH:] @ keys.mT / keys.shape[-1] ** 0.5
    place = torch.arange(length - _LENGTH, length)
    scores = scores.masked_fill(torch.arange(length) > place[:, None], float("-inf"))
    shares = scores.softmax(-1).mean(0)

    def most(back: int) -> float:
        return float(shares[:, torch.arange(_LENGTH), place - back].mean(-1).max())

    return Copying(round(most(1), 5), round(most(_LENGTH - 1), 5))
