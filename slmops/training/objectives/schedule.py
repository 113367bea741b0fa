"""Weights that change in the course of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from slmops.config import build
from slmops.errors import ConfigError
from slmops.sections import Section
from slmops.training.objectives.base import WHERE


class Schedule(Section):
    """A weight that goes from one value to another over the first updates of a run and stays there."""

    start: float = Field(alias="from", ge=0, allow_inf_nan=False, description="Weight at the first update")
    end: float = Field(alias="to", ge=0, allow_inf_nan=False, description="Weight from then on")
    over: float = Field(1.0, gt=0, le=1, description="Share of the updates in which it changes")
    shape: Literal["linear", "cosine"] = Field("linear", description="How it changes; cosine: slow at both ends")

    @property
    def highest(self) -> float:
        """The larger of both values."""
        return max(self.start, self.end)

    def at(self, done: float) -> float:
        """The weight after a share of the updates."""
        way = min(1.0, done / self.over)
        if self.shape == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return self.start + (self.end - self.start) * way


def schedule_of(weight: Any, name: str) -> Schedule:
    """A weight as a recipe gives it: a number above zero, or a mapping ``{from, to, over, shape}``.

    Raises:
        ConfigError: It is neither, or a key or value of the mapping is wrong.
    """
    if isinstance(weight, Mapping):
        return build(Schedule, weight, where=f"{WHERE}, weight of {name}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise ConfigError(
            f"the weight of {name} is {weight!r}, not a number above zero",
            where=WHERE,
            fix="for one that changes write weight: {from: 0.0, to: 0.7, over: 0.5}",
        )
    return Schedule.model_validate({"from": weight, "to": weight})
