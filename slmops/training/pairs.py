"""Labelled pairs of texts beside the rows of a batch, and the loss on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, TrainingError
from slmops.training.batches import padded
from slmops.training.objectives.base import WHERE
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.objectives.modules import OwnPairLoss
from slmops.training.objectives.schedule import Schedule
from slmops.training.objectives.weighted import WeightedSum

_TEXTS, _DIFFERENT, _COUNT = "pair_", "pair_different", "pair_count"


@dataclass(frozen=True)
class Pair:
    """Token ids of two texts, each with the end token, and whether they are different."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    different: bool


def pairs_of(rows: Sequence[Row], template: Template, objective: Contrastive, max_length: int) -> list[Pair | None]:
    """The pair of each row; ``None`` where it lacks a field, its answer says neither, or a text is longer than ``max_length``.

    Raises:
        TrainingError: No row is a pair.
    """
    found = [_pair(row, template, objective, max_length) for row in rows]
    if not any(found):
        fields = Counter(name for row in rows for name in row.fields or ())
        answers = Counter(str(row.answer) for row in rows)
        raise TrainingError(
            f"no row is a labelled pair of {objective.fields[0]!r} and {objective.fields[1]!r}; the rows have the fields "
            f"{_listed(fields)} and the answers {_listed(answers)}",
            where="contrastive",
            fix=f"name fields, same and different in {WHERE}, or raise max_length",
        )
    return found


def describe(pairs: Sequence[Pair | None]) -> str:
    """How many rows are pairs, for people."""
    found = [pair for pair in pairs if pair is not None]
    different = sum(pair.different for pair in found)
    return (
        f"  contrastive: {len(found):,} of {len(pairs):,} rows are pairs, {len(found) - different:,} same, {different:,} different"
    )


def into_batch(pairs: Sequence[Pair], pad_id: int) -> dict[str, torch.Tensor]:
    """Tensors of ``P`` pairs: both texts' tokens, ``[2 P, T]`` with all first texts first, and which are different, ``[P]``."""
    if not pairs:
        return {}
    texts = padded([*(pair.left for pair in pairs), *(pair.right for pair in pairs)], pad_id)
    return {
        **{_TEXTS + name: tensor for name, tensor in texts.items()},
        _DIFFERENT: torch.tensor([pair.different for pair in pairs]),
        _COUNT: torch.tensor(len(pairs)),
    }


def among(plan: Sequence[Sequence[int]], pairs: Sequence[Pair | None]) -> list[list[Pair]]:
    """The pairs among the rows of each batch."""
    return [[pair for row in rows if (pair := pairs[row]) is not None] for rows in plan]


class WithPairs(Dataset[dict[str, torch.Tensor]]):
    """Batches with their pairs, and the number of pairs in the whole update that each is a part of."""

    def __init__(
        self, batches: Dataset[dict[str, torch.Tensor]], pairs: Sequence[Sequence[Pair]], accumulated: int, pad_id: int
    ) -> None:
        self._batches, self._pairs, self._pad_id = batches, pairs, pad_id
        counts = [len(own) for own in self._pairs]
        self._counts = [sum(counts[first : first + accumulated]) for first in range(0, len(counts), accumulated)]
        self._accumulated = accumulated

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        own = into_batch(self._pairs[index], self._pad_id)
        if own:
            own[_COUNT] = torch.tensor(self._counts[index // self._accumulated])
        return {**self._batches[index], **own}


@dataclass(frozen=True)
class PairLoss:
    """The weighted loss on pairs, for one model.

    Args:
        weight: Of the loss.
        objective: The loss.
        body: Token ids to hidden states.
    """

    weight: Schedule
    objective: Contrastive | OwnPairLoss
    body: Any

    @classmethod
    def of(cls, loss: WeightedSum, model: Any) -> PairLoss | None:
        """That of a recipe's loss, or ``None`` where it has none.

        Raises:
            ConfigError: The model has no body that could be asked for hidden states.
        """
        if loss.on_pairs is None:
            return None
        weight, objective = loss.on_pairs
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        body = getattr(inner, "base_model", None)
        if body is None or body is inner:
            raise ConfigError(f"a loss on pairs needs hidden states, and {type(inner).__name__} gives none", where=WHERE)
        return cls(weight, objective, body)

    def __call__(self, batch: Mapping[str, torch.Tensor], *, done: float = 0.0) -> torch.Tensor:
        """The batch's part of the mean over the pairs of an update, times the weight; zero where it has none.

        Args:
            batch: With the tensors of :func:`into_batch`, if it has pairs.
            done: Share of the updates that are done, for a weight that changes.
        """
        weight = self.weight.at(done)
        if _DIFFERENT not in batch or not weight:
            return torch.zeros((), device=batch["input_ids"].device)
        texts = {name: batch[_TEXTS + name] for name in ("input_ids", "attention_mask", "position_ids")}
        states = self.body(**texts, use_cache=False)[0]
        with torch.autocast(states.device.type, enabled=False):
            left, right = self.objective.pooled(states, texts["attention_mask"].bool()).chunk(2)
            losses = self.objective.losses(left, right, batch[_DIFFERENT])
        return weight * losses.sum() / batch[_COUNT]


def _pair(row: Row, template: Template, objective: Contrastive, max_length: int) -> Pair | None:
    known = row.fields or {}
    different = objective.different_by(row.answer or "")
    if different is None or any(name not in known for name in objective.fields):
        return None
    left, right = (_text_ids(known[name], template) for name in objective.fields)
    return Pair(left, right, different) if max(len(left), len(right)) <= max_length else None


def _text_ids(text: str, template: Template) -> tuple[int, ...]:
    ids, end = list(template.tokenizer(text)["input_ids"]), int(template.tokenizer.eos_token_id)
    return tuple(ids if ids[-1:] == [end] else [*ids, end])


def _listed(counts: Counter[str]) -> str:
    return ", ".join(repr(name) for name, _ in counts.most_common(5)) or "none"
