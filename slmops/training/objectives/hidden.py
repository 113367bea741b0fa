"""Hidden states of the student like those of its teacher (FitNets, Romero et al. 2015; TinyBERT, Jiao et al. 2020)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from slmops.signals.internals import Part
from slmops.training.objectives.base import Matched
from slmops.training.objectives.matching import Matching

_LEAST = 1e-12


class HiddenStates(Matching):
    """The distance of hidden states ``s`` of the student to ``t`` of the teacher at answer positions.

    ``mse`` is the mean of ``(s − t)²`` over the width, which in late layers may be hundreds; ``relative`` is ``|s − t|² / |t|²``,
    which has the same size in every layer; ``cosine`` is ``1 − cos(s, t)``. Where the widths differ, ``s`` goes through a matrix
    first that is trained with the student and not kept.
    """

    name: ClassVar[str] = "hidden_states"
    part: ClassVar[Part] = "hidden"

    measure: Literal["relative", "mse", "cosine"] = Field("relative", description="mse by the teacher's square, mse, or 1 - cosine")
    projection: bool = Field(False, description="Learn a projection where the widths are the same, too")

    def projects(self, student: int, teacher: int) -> bool:
        """Where the widths differ, or always."""
        return self.projection or student != teacher

    def between(self, matched: Matched) -> torch.Tensor:
        """The mean over the pairs, ``[N]``."""
        return torch.stack([self._distance(own, theirs) for own, theirs in matched.hidden]).mean(0)

    def _distance(self, own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        if self.measure == "cosine":
            return 1 - torch.cosine_similarity(own, theirs, dim=-1)
        squares = (own - theirs).square()
        if self.measure == "mse":
            return squares.mean(-1)
        return squares.sum(-1) / theirs.square().sum(-1).clamp(min=_LEAST)
