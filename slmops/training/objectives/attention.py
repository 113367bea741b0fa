"""Attention of the student like that of its teacher: relations within queries, keys and values, or the maps themselves."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from slmops.errors import ConfigError
from slmops.models.layers import LayerChoice
from slmops.models.watching import Attended
from slmops.signals.internals import Part
from slmops.training.objectives.base import Matched
from slmops.training.objectives.matching import Matching

_NOTHING = -1e9
"""Product with a position that is not looked at; finite, so that a row of padding alone is no NaN."""


class _Attention(Matching):
    part: ClassVar[Part] = "attention"

    layers: LayerChoice = Field("last", description="auto, uniform, last, similarity, or pairs [student, teacher], from 0")
    count: int | None = Field(1, ge=1, description="Layers of the student that are compared, evenly spread up to the last")

    @abstractmethod
    def pair_of(self, own: Attended, theirs: Attended, matched: Matched) -> torch.Tensor:
        """The loss ``[B, K]`` of a pair of layers at each column."""

    def between(self, matched: Matched) -> torch.Tensor:
        """The mean over the pairs, ``[N]``."""
        losses = torch.stack([self.pair_of(own, theirs, matched) for own, theirs in matched.attention]).mean(0)
        return losses.flatten().index_select(0, matched.places)


class AttentionRelations(_Attention):
    """MiniLM's relations (Wang et al. 2020, 2021): ``KL(p ‖ q)`` of ``softmax(x xᵀ / √d)`` at an answer position.

    ``x`` are all heads' queries, keys or values side by side, split anew into relation heads of the width ``d``, so that teacher
    and student may differ in their heads. ``query-key`` compares queries with keys. Here queries and keys have their rotation,
    as they have in the attention.
    """

    name: ClassVar[str] = "attention_relations"

    relations: tuple[Literal["query-query", "key-key", "value-value", "query-key"], ...] = Field(
        ("query-query", "key-key", "value-value"), min_length=1, description="What is compared with what; the loss is their mean"
    )
    heads: int | None = Field(
        None, ge=1, description="Relation heads; absent: as many as divide all widths, but no more than the student has heads"
    )

    def pair_of(self, own: Attended, theirs: Attended, matched: Matched) -> torch.Tensor:
        """The mean over the relations, ``[B, K]``."""
        heads = self._heads(own, theirs)
        losses = [_kl(*(_relation(one, name, heads, matched) for one in (theirs, own))) for name in self.relations]
        return torch.stack(losses).mean(0)

    def _heads(self, own: Attended, theirs: Attended) -> int:
        sides = [_sides(one, name)[0] for one in (own, theirs) for name in self.relations]
        widths = sorted({side.shape[-2] * side.shape[-1] for side in sides})
        possible = [count for count in range(1, own.queries.shape[-2] + 1) if not any(width % count for width in widths)]
        if self.heads is None:
            return possible[-1]
        if any(width % self.heads for width in widths):
            raise ConfigError(
                f"{self.heads} relation heads do not divide the widths {', '.join(map(str, widths))}",
                where=f"objective {self.name!r}: heads",
                fix=f"take {', '.join(map(str, possible))}, or leave it out",
            )
        return self.heads


class AttentionMaps(_Attention):
    """The attention of every head at an answer position over the positions up to it (Zagoruyko et al. 2017; MiniLM).

    ``kl`` is ``KL(p ‖ q)``, ``mse`` the sum of the squared differences; the mean over the heads. A window that is narrower than
    the row is not applied.
    """

    name: ClassVar[str] = "attention_maps"

    measure: Literal["kl", "mse"] = Field("kl", description="KL, or squared differences")

    def pair_of(self, own: Attended, theirs: Attended, matched: Matched) -> torch.Tensor:
        """The mean over the heads, ``[B, K]``.

        Raises:
            ConfigError: The numbers of heads differ.
        """
        heads = [one.queries.shape[-2] for one in (theirs, own)]
        if heads[0] != heads[1]:
            raise ConfigError(
                f"the teacher has {heads[0]} attention heads and the student {heads[1]}, so their maps cannot be compared",
                where=f"objective {self.name!r}",
                fix="take attention_relations, which does not depend on the number of heads",
            )
        teacher, student = (_scores(one.queries, _repeated(one.keys, heads[0]), matched) for one in (theirs, own))
        if self.measure == "kl":
            return _kl(teacher, student)
        return (teacher.exp() - student.exp()).square().sum(-1).mean(1)


def _relation(attended: Attended, name: str, heads: int, matched: Matched) -> torch.Tensor:
    left, right = (side.flatten(2).unflatten(-1, (heads, -1)) for side in _sides(attended, name))
    return _scores(left, right, matched)


def _sides(attended: Attended, name: str) -> Sequence[torch.Tensor]:
    """What a relation compares, ``[B, T, h, d]`` each."""
    if name == "query-key":
        return attended.queries, _repeated(attended.keys, attended.queries.shape[-2])
    alone = {"query-query": attended.queries, "key-key": attended.keys, "value-value": attended.values}[name]
    return alone, alone


def _repeated(keys: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys that heads share, once a head."""
    return keys.repeat_interleave(heads // keys.shape[-2], dim=-2)


def _scores(left: torch.Tensor, right: torch.Tensor, matched: Matched) -> torch.Tensor:
    """Log of the softmax ``[B, heads, K, T]`` of products of vectors ``[B, T, heads, d]``: at a column, with those up to it."""
    some = left.index_select(1, matched.columns)
    products = torch.einsum("bkhd,bthd->bhkt", some, right) / math.sqrt(left.shape[-1])
    return torch.log_softmax(products.masked_fill(~matched.earlier.unsqueeze(1), _NOTHING), dim=-1)


def _kl(of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """``KL`` over the last axis of log-probabilities ``[B, heads, K, T]``, the mean over the heads: ``[B, K]``."""
    return (of.exp() * (of - to)).sum(-1).mean(1)
