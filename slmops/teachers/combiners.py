"""The registry of ensembles: how several teachers' answers become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from slmops.registry import Entry, Registry
from slmops.tasks.base import Task
from slmops.teachers.base import Teacher
from slmops.teachers.spec import Member

if TYPE_CHECKING:
    from slmops.teachers.local import LocalTeacher

COMBINERS = Registry(
    "combiner",
    {
        "vote": Entry("slmops.teachers.vote:Vote"),
        "best-of-n": Entry("slmops.teachers.best:BestOfN"),
        "judge": Entry("slmops.teachers.judged:Judged"),
        "route": Entry("slmops.teachers.route:Route"),
        "mixture": Entry("slmops.teachers.mixture:Mixture", extra="train"),
    },
)


@dataclass(frozen=True)
class Tools:
    """What an ensemble is made with.

    Args:
        task: Reads, verifies and compares answers.
        open: Opens a teacher, such as a judge.
        load: Loads the weights of a teacher on this machine into PyTorch, which gives distributions.
        chunk_rows: Rows a batch of a teacher on this machine.
    """

    task: Task
    open: Callable[[Member], Teacher]
    load: Callable[[Member], LocalTeacher]
    chunk_rows: int


class Combiner(Protocol):
    """What a registry entry is: an options model that makes a teacher out of several."""

    def over(self, members: Sequence[Member], tools: Tools) -> Teacher:
        """The ensemble.

        Raises:
            ConfigError: These members do not go together.
        """


@dataclass(frozen=True)
class Seat:
    """A member of an ensemble, opened."""

    member: Member
    teacher: Teacher

    @property
    def place(self) -> Path:
        """Its own part of a work folder."""
        return Path("".join(sign if sign.isalnum() else "-" for sign in self.member.model)[-60:])
