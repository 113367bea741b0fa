"""Several answers to a row, of which one is chosen: what vote, best-of-n and judge share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slmops.tasks.base import AnswerError, Task
from slmops.teachers.base import Answers, Outcome, Request, Teacher
from slmops.teachers.combiners import Seat, Tools
from slmops.teachers.facts import merged
from slmops.teachers.plan import RequestPlan
from slmops.teachers.spec import Member


@dataclass(frozen=True)
class Candidate:
    """One answer to a row.

    Args:
        teacher: Who gave it.
        weight: What it counts for.
        outcome: As it came.
        answer: Its normal form; ``None`` where it is no valid answer.
    """

    teacher: str
    weight: float
    outcome: Outcome
    answer: str | None


@dataclass(frozen=True)
class Choice:
    """What was chosen of many rows' candidates.

    Args:
        chosen: One a request; ``None`` where the run stopped before.
        facts: What choosing cost and met.
        stopped: Why it ended early.
        notes: What else there is to tell of it.
    """

    chosen: list[Candidate | None]
    facts: Mapping[str, Any] | None = None
    stopped: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


Ballots = Sequence[tuple[Request, list[Candidate]]]
Choose = Callable[[Ballots, Path], Choice]


@dataclass(frozen=True)
class Panel:
    """A teacher that asks several, or one several times, and chooses.

    Args:
        combine: How it chooses, by name.
        options: Of that.
        seats: Its members.
        task: Reads the answers.
        choose: Chooses for many rows at once.
        judge: Who is asked to choose, if somebody is.
        draws: How often each member is asked; the first time as the request says.
        temperature: Softness of the sampling from the second time on.
        choosing_plans: What choosing between so many answers may cost.
    """

    combine: str
    options: Mapping[str, Any]
    seats: tuple[Seat, ...]
    task: Task
    choose: Choose
    judge: Teacher | None = None
    draws: int = 1
    temperature: float = 0.0
    choosing_plans: Callable[[Sequence[Request], int], list[RequestPlan]] = lambda requests, answers: []

    @property
    def name(self) -> str:
        """How it chooses, and of whose answers."""
        return f"{self.combine} of {', '.join(seat.teacher.name for seat in self.seats)}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """The members' with their weights, the options, and the judge's."""
        judge = {"judge": dict(self.judge.identity)} if self.judge is not None else {}
        return {**identity(self.combine, self.options, self.seats), **judge}

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        """Ask every member, and choose where all of them have answered.

        Raises:
            TeacherError: A member refuses for good, or does not answer for too long. Answers so far are kept.
        """
        asked = self._drawn(requests)
        answers = [seat.teacher.ask(asked, work / seat.place) for seat in self.seats]
        ballots = []
        for number, request in enumerate(requests):
            given = [
                (seat, found.outcomes[number * self.draws + draw])
                for draw in range(self.draws)
                for seat, found in zip(self.seats, answers, strict=True)
            ]
            if all(outcome.settled for _, outcome in given):
                ballots.append((request, [self._candidate(seat, outcome) for seat, outcome in given]))
        choice = self.choose(ballots, work / "choosing")
        outcomes = {
            id(request): _outcome(request, candidates, chosen)
            for (request, candidates), chosen in zip(ballots, choice.chosen, strict=True)
        }
        facts = merged([*(found.facts for found in answers), *([choice.facts] if choice.facts else [])])
        stopped = [reason for reason in (*(found.stopped for found in answers), choice.stopped) if reason]
        return Answers(
            [outcomes.get(id(request), Outcome(request.id, None, None)) for request in requests],
            {**facts, **choice.notes, "disagreements": _disagreements(ballots)},
            "; ".join(dict.fromkeys(stopped)) or None,
        )

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        """What the members, and choosing, may cost."""
        asked = self._drawn(requests)
        choosing = self.choosing_plans(requests, self.draws * len(self.seats))
        return [*(plan for seat in self.seats for plan in seat.teacher.plans(asked)), *choosing]

    def _drawn(self, requests: Sequence[Request]) -> list[Request]:
        return [self._draw(request, number) for request in requests for number in range(self.draws)]

    def _draw(self, request: Request, number: int) -> Request:
        params, draw = request.params, request.params.draw * self.draws + number
        return replace(request, params=replace(params, draw=draw, temperature=self.temperature if number else params.temperature))

    def _candidate(self, seat: Seat, outcome: Outcome) -> Candidate:
        answer = None
        if outcome.reply is not None:
            try:
                answer = self.task.parse(outcome.reply.text)
            except AnswerError:
                answer = None
        return Candidate(seat.teacher.name, seat.member.weight, outcome, answer)


def open_seats(members: Sequence[Member], tools: Tools) -> tuple[Seat, ...]:
    """Members, opened."""
    return tuple(Seat(member, tools.open(member)) for member in members)


def identity(combine: str, options: Mapping[str, Any], seats: Sequence[Seat]) -> dict[str, Any]:
    """What determines the answers of an ensemble."""
    members = [
        {"teacher": dict(seat.teacher.identity), **seat.member.model_dump(mode="json", include={"weight", "when"})}
        for seat in seats
    ]
    return {"combine": combine, "options": dict(options), "members": members}


def groups(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Valid answers in their normal form, in the order they were given, with who gave them."""
    found: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.answer is not None:
            found.setdefault(candidate.answer, []).append(candidate)
    return found


def first(candidates: Sequence[Candidate]) -> Candidate:
    """The first valid answer, else the first answer, else the first reason."""
    return min(candidates, key=lambda one: (one.answer is None, one.outcome.reply is None))


def _outcome(request: Request, candidates: Sequence[Candidate], chosen: Candidate | None) -> Outcome:
    if chosen is None:
        return Outcome(request.id, None, None)
    same = sum(one.answer == chosen.answer for one in candidates) if chosen.answer is not None else 0
    return replace(chosen.outcome, id=request.id, teacher=chosen.teacher, agreement=same / len(candidates))


def _disagreements(ballots: Ballots) -> dict[str, Any]:
    """How often valid answers differ, and on which rows."""
    rows = [request.id for request, candidates in ballots if len(groups(candidates)) > 1]
    return {"share": len(rows) / len(ballots) if ballots else 0.0, "rows": rows}
