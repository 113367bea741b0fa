"""Route: a rule on the row says which member answers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slmops.errors import ConfigError
from slmops.sections import Section
from slmops.teachers.base import Answers, Outcome, Request, Teacher
from slmops.teachers.combiners import Seat, Tools
from slmops.teachers.facts import merged
from slmops.teachers.panel import identity, open_seats
from slmops.teachers.plan import RequestPlan
from slmops.teachers.spec import Member


class Route(Section):
    """The first member whose ``when`` holds answers; the one without a ``when`` answers what is left."""

    def over(self, members: Sequence[Member], tools: Tools) -> Teacher:
        """The members behind their rules."""
        if sum(member.when is None for member in members) != 1:
            fix = "give every member but one a 'when'"
            raise ConfigError("a route needs one member without a rule, for the rows that are left", where="members", fix=fix)
        ordered = sorted(members, key=lambda member: member.when is None)
        return Router(open_seats(ordered, tools))


@dataclass(frozen=True)
class Router:
    """A teacher that hands each request to one of its members; the last takes what no rule takes."""

    seats: tuple[Seat, ...]

    @property
    def name(self) -> str:
        """Whom it hands requests to."""
        return f"route to {', '.join(seat.teacher.name for seat in self.seats)}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """The members' with their rules."""
        return identity("route", {}, self.seats)

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        """Ask the members, each its own rows.

        Raises:
            ConfigError: A rule goes by a column that a row has not.
            TeacherError: A member refuses for good, or does not answer for too long. Answers so far are kept.
        """
        places = self._places(requests)
        outcomes: dict[int, Outcome] = {}
        parts, stopped = [], []
        for seat, own in zip(self.seats, places, strict=True):
            if own:
                found = seat.teacher.ask([requests[place] for place in own], work / seat.place)
                named = [replace(outcome, teacher=seat.teacher.name) for outcome in found.outcomes]
                outcomes |= dict(zip(own, named, strict=True))
                parts.append(found.facts)
                stopped += [found.stopped] if found.stopped else []
        counts = Counter({seat.teacher.name: len(own) for seat, own in zip(self.seats, places, strict=True)})
        facts = {**merged(parts), "routed": dict(counts)}
        return Answers([outcomes[place] for place in range(len(requests))], facts, "; ".join(stopped) or None)

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        """What each member's own rows cost."""
        places = self._places(requests)
        asked = [(seat, [requests[place] for place in own]) for seat, own in zip(self.seats, places, strict=True)]
        return [plan for seat, own in asked if own for plan in seat.teacher.plans(own)]

    def _places(self, requests: Sequence[Request]) -> list[list[int]]:
        """For each member the places of its requests."""
        places: list[list[int]] = [[] for _ in self.seats]
        for place, request in enumerate(requests):
            rules = [seat.member.when for seat in self.seats]
            takes = (n for n, rule in enumerate(rules) if rule is None or (request.row is not None and rule.holds(request.row)))
            places[next(takes)].append(place)
        return places
