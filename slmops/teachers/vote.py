"""Vote: the answer that most members give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from slmops.errors import ConfigError
from slmops.sections import Section
from slmops.teachers.base import Teacher
from slmops.teachers.combiners import Tools
from slmops.teachers.panel import Ballots, Candidate, Choice, Panel, first, groups, open_seats
from slmops.teachers.spec import Member


class Vote(Section):
    """The majority of the valid answers, by their normal form.

    Args:
        ties: What decides between answers of as many members: the ``order`` of the members, or their ``weight``.
    """

    ties: Literal["order", "weight"] = Field("order", description="What decides a tie: order or weight of the members")

    def over(self, members: Sequence[Member], tools: Tools) -> Teacher:
        """The members as voters."""
        if len(members) < 2:
            raise ConfigError("a vote needs at least two members", where="combine", fix="name another teacher, or use best-of-n")
        return Panel("vote", self.model_dump(), open_seats(members, tools), tools.task, self._choose)

    def _choose(self, ballots: Ballots, work: Path) -> Choice:
        return Choice([self._winner(candidates) for _, candidates in ballots])

    def _winner(self, candidates: Sequence[Candidate]) -> Candidate:
        found = list(groups(candidates).values())
        if not found:
            return first(candidates)
        by_weight = self.ties == "weight"
        return max(found, key=lambda voters: (len(voters), sum(voter.weight for voter in voters) if by_weight else 0.0))[0]
