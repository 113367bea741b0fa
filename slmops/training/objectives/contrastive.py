"""The contrastive loss with a margin: texts of one label together, those of another apart."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator

from slmops.sections import Section
from slmops.tasks.labels import form

_SMALLEST = 1e-12
"""Square of a distance that is none; the root has no slope there."""


class Contrastive(Section):
    """``(1 - y) d² + y max(0, margin - d)²`` for a labelled pair of texts, ``y`` 0: same, 1: different (Hadsell et al. 2006).

    ``d`` is the distance of the two texts' embeddings: the hidden states of the last layer, pooled over each text's tokens.
    The loss is the mean over the pairs of an update. Rows without a pair train by the other losses alone.
    """

    margin: float = Field(0.5, gt=0, description="Distance beyond which different texts are far enough apart")
    pooling: Literal["mean", "last"] = Field(
        "mean", description="Over a text's tokens: their mean, or the last one's, the end token"
    )
    distance: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="Of embeddings of length one, from 0 to 2; cosine: one minus the cosine, from 0 to 2 too"
    )
    fields: tuple[str, str] = Field(("premise", "hypothesis"), description="The two fields of a row that are the pair")
    same: tuple[str, ...] = Field(("entailment",), min_length=1, description="Answers of rows whose texts belong together")
    different: tuple[str, ...] = Field(("contradiction",), min_length=1, description="Answers of rows whose texts do not")

    @field_validator("same", "different", mode="before")
    @classmethod
    def _labels_are_texts(cls, labels: Any) -> Any:
        """YAML reads ``[0, 1]`` as numbers."""
        return [str(label) if isinstance(label, int) else label for label in labels] if isinstance(labels, list | tuple) else labels

    @model_validator(mode="after")
    def _tell_apart(self) -> Contrastive:
        both = {form(label) for label in self.same} & {form(label) for label in self.different}
        if both:
            raise ValueError(f"{', '.join(sorted(both))} cannot be both same and different")
        if self.fields[0] == self.fields[1]:
            raise ValueError("fields: a pair is of two fields")
        return self

    @property
    def needs_signal(self) -> bool:
        """It does not."""
        return False

    def different_by(self, answer: str) -> bool | None:
        """Whether the texts of a row with this answer are different; ``None`` where it says neither."""
        found = form(answer)
        if found in map(form, self.different):
            return True
        return False if found in map(form, self.same) else None

    def pooled(self, states: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Embeddings of ``S`` texts, float32 ``[S, H]``.

        Args:
            states: Of the last layer, ``[S, T, H]``, padded on the left.
            read: bool ``[S, T]``, false at padding.
        """
        states = states.float()
        if self.pooling == "last":
            return states[:, -1]
        weights = read.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)

    def losses(self, left: torch.Tensor, right: torch.Tensor, different: torch.Tensor) -> torch.Tensor:
        """The loss of each of ``P`` pairs, ``[P]``.

        Args:
            left: Embeddings of the first texts, ``[P, H]``.
            right: Of the second.
            different: bool ``[P]``.
        """
        one, other = (torch.nn.functional.normalize(side, dim=-1) for side in (left, right))
        if self.distance == "cosine":
            apart = 1 - (one * other).sum(-1)
            square = apart**2
        else:
            square = ((one - other) ** 2).sum(-1)
            apart = square.clamp(min=_SMALLEST).sqrt()
        return torch.where(different, (self.margin - apart).clamp(min=0) ** 2, square)
