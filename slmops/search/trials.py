"""What is known of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Found:
    """What a finished trial is worth.

    Args:
        goals: By name, in the order of the search.
        intervals: Of the goals that are means over the validation rows.
        loss: Validation loss at the end of the training, in nats a token; ``None`` without one.
        made: Folders of its model and what was made of it.
    """

    goals: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    loss: float | None
    made: Sequence[str]


@dataclass(frozen=True)
class Trial:
    """A trial of a study as it stands.

    Args:
        number: From 0, in the order in which they began.
        state: ``complete``, ``pruned``, ``failed`` or ``running``.
        values: By dotted path.
        goals: What it reached; of a trial that is not complete, nothing.
        intervals: As in :class:`Found`.
        loss: The same.
        curve: Share of the training and validation loss.
        seconds: Of the process that finished it.
        why: Why it failed or was pruned.
        made: As in :class:`Found`.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    goals: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    loss: float | None
    curve: Sequence[tuple[float, float]]
    seconds: float | None
    why: str
    made: Sequence[str]

    @property
    def found(self) -> Found:
        """What it is worth, for another trial with the same values."""
        return Found(self.goals, self.intervals, self.loss, ())

    def as_dict(self) -> dict[str, Any]:
        """The line of ``trials.jsonl``."""
        facts = {"number": self.number, "state": self.state, "values": dict(self.values), "goals": dict(self.goals)}
        facts |= {"intervals": {goal: list(ends) for goal, ends in self.intervals.items()}, "validation_loss": self.loss}
        return {**facts, "seconds": self.seconds, "why": self.why, "curve": [list(point) for point in self.curve]}
