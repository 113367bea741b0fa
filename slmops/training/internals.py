"""What is kept of layers as tensors: out of a forward pass, into a batch, and out of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slmops.data.templates import Encoded
from slmops.models.watching import Attended, Seen, answer_rows
from slmops.signals.internals import Internals, Layers, RowInternals

_PREFIX = "internals_"
_HIDDEN, _ANSWER, _WHOLE = f"{_PREFIX}hidden", f"{_PREFIX}answer", f"{_PREFIX}whole"
_ATTENDED = {"query": "queries", "key": "keys", "value": "values"}


def kept_of(seen: Seen, layers: Layers, batch: Mapping[str, torch.Tensor], rows: Sequence[Encoded]) -> Internals:
    """What is kept of a forward pass over a batch of rows."""
    count = sum(len(row.answer_ids) for row in rows)
    read = batch["attention_mask"][:, :-1].bool()  # padding is on the left, so the last column is the last token of each row
    states = [answer_rows(seen.hidden[number], batch).float() for number in layers.hidden]
    hidden = torch.stack(states, dim=1) if states else torch.zeros(count, 0, 0)
    scales = hidden.square().mean(-1).sqrt() if states else torch.zeros(count, 0)
    scales = scales.clamp(min=torch.finfo(torch.float32).tiny)
    arrays = {
        name: _half([getattr(seen.attention[number], all_of)[:, :-1][read].float() for number in layers.attention], int(read.sum()))
        for name, all_of in _ATTENDED.items()
    }
    return Internals(
        sizes=np.array([size for row in rows for size in (row.prompt_length, *[1] * (len(row.answer_ids) - 1))], np.uint32),
        hidden=(hidden / scales.unsqueeze(-1)).half().cpu().numpy(),
        scales=scales.cpu().numpy(),
        ids=batch["input_ids"][:, :-1][read].cpu().numpy().astype(np.uint32),
        **arrays,
    )


def _half(layers: Sequence[torch.Tensor], tokens: int) -> np.ndarray:
    joined = torch.stack(list(layers), dim=1) if layers else torch.zeros(tokens, 0, 0, 0)
    most = torch.finfo(torch.float16).max
    kept: np.ndarray = joined.clamp(-most, most).half().cpu().numpy()
    return kept


@dataclass(frozen=True)
class TeacherInternals:
    """Of a teacher, in a batch of ``B`` rows of ``T`` tokens with ``N`` answer positions; zeros where there is nothing.

    Args:
        hidden: float32 ``[N, L, H]``.
        attended: Of each of the ``A`` layers.
        answer: bool ``[N]``, where hidden states are about the student's tokens.
        whole: bool ``[N]``, where what is about all tokens of the row is.
    """

    hidden: torch.Tensor
    attended: tuple[Attended, ...]
    answer: torch.Tensor
    whole: torch.Tensor


def into_batch(internals: Sequence[RowInternals], rows: Sequence[Encoded], width: int) -> dict[str, torch.Tensor]:
    """The tensors for a batch of these rows, padded on the left to ``width``."""
    counts = torch.tensor([len(row.answer_ids) for row in rows])
    there = {
        _ANSWER: torch.tensor([own.answer for own in internals]),
        _WHOLE: torch.tensor([own.whole for own in internals]),
    }
    return {
        _HIDDEN: torch.cat([_hidden_of(own, len(row.answer_ids)) for own, row in zip(internals, rows, strict=True)]),
        **{name: of_rows.repeat_interleave(counts) for name, of_rows in there.items()},
        **{_PREFIX + name: _padded(internals, name, width) for name in _ATTENDED},
    }


def has_layers(batch: Mapping[str, torch.Tensor]) -> bool:
    """Whether :func:`into_batch` put something in."""
    return _HIDDEN in batch


def from_batch(batch: Mapping[str, torch.Tensor]) -> TeacherInternals:
    """What :func:`into_batch` put in."""
    arrays = [batch[_PREFIX + name] for name in _ATTENDED]
    attended = tuple(Attended(*(array[:, :, number] for array in arrays)) for number in range(arrays[0].shape[2]))
    return TeacherInternals(batch[_HIDDEN], attended, batch[_ANSWER], batch[_WHOLE])


def _hidden_of(own: RowInternals, positions: int) -> torch.Tensor:
    if not own.answer:
        return torch.zeros(positions, *own.kept.hidden.shape[1:])
    return torch.from_numpy(own.kept.hidden.astype(np.float32)) * torch.from_numpy(np.array(own.kept.scales)).unsqueeze(-1)


def _padded(internals: Sequence[RowInternals], name: str, width: int) -> torch.Tensor:
    arrays = [getattr(own.kept, name) for own in internals]
    padded = torch.zeros(len(arrays), width, *arrays[0].shape[1:])
    for place, (own, array) in enumerate(zip(internals, arrays, strict=True)):
        if own.whole:
            padded[place, width - 1 - len(array) : width - 1] = torch.from_numpy(array.astype(np.float32))
    return padded
