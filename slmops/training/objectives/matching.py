"""What losses on layers have in common: which layers are compared, and what is taken of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field

from slmops.errors import ConfigError
from slmops.models.layers import Depths, LayerChoice, LayerPair, choose_pairs
from slmops.sections import Section
from slmops.signals.internals import Part
from slmops.training.objectives.base import WHERE, Answers, Matched


class Matching(Section):
    """Base of losses on layers; a subclass says which ``part`` of a layer it is about, and has :meth:`between`."""

    name: ClassVar[str]
    part: ClassVar[Part]

    layers: LayerChoice = Field(
        "auto", description="auto, uniform, last, similarity, or pairs [student, teacher] of layers, from 0"
    )
    count: int | None = Field(None, ge=1, description="Layers of the student that are compared, evenly spread; absent: all")

    @property
    def needs_signal(self) -> bool:
        """It does."""
        return True

    @property
    def takes_samples(self) -> bool:
        """It looks at layers, whatever is kept of the distribution."""
        return True

    def pairs(self, depths: Depths) -> tuple[LayerPair, ...]:
        """The layers that are compared.

        Raises:
            ConfigError: A pair names a layer that there is not.
        """
        return choose_pairs(self.layers, self.count, depths)

    def projects(self, student: int, teacher: int) -> bool:
        """Whether the student's vectors of this width go through a learned projection to the teacher's width first."""
        return False

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, the mean over the pairs of layers, float32 ``[N]``.

        Raises:
            ConfigError: There is nothing to compare, or it cannot be compared.
        """
        if answers.matched is None:
            raise ConfigError(f"{self.name} needs the layers of a teacher", where=WHERE, fix="use losses on tokens alone")
        return self.between(answers.matched)

    @abstractmethod
    def between(self, matched: Matched) -> torch.Tensor:
        """The loss ``[N]``."""
