"""Judge: a named teacher picks among the members' answers."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from slmops.data.rows import Message
from slmops.errors import ConfigError
from slmops.sections import Section
from slmops.tasks.judge import RUBRIC, shown_turns
from slmops.teachers.base import Request, Teacher
from slmops.teachers.catalogue import ApiOptions
from slmops.teachers.combiners import Tools
from slmops.teachers.facts import merged
from slmops.teachers.panel import Ballots, Candidate, Choice, Panel, first, groups, open_seats
from slmops.teachers.plan import RequestPlan
from slmops.teachers.replies import CHARACTERS_A_TOKEN, AskParams
from slmops.teachers.spec import Member

_TOLD = (
    "You choose the best of several answers to the same conversation. {rubric} The order of the answers and their length do not "
    "matter by themselves. Write one line of reasons, then, on the last line, 'Verdict:' and the number of the best answer."
)
_VERDICT = re.compile(r"\bverdict\b\W*(?:answer\W*)?(\d+)\b", re.IGNORECASE)
_AGAIN_TEMPERATURE = 0.7


class Judge(Section):
    """Who judges, and how.

    Args:
        model: Any teacher.
        api: What differs from the catalogue of API teachers.
        rubric: What makes an answer the best.
        seed: Of the order in which a row's answers are shown.
        attempts: Times the judge is asked until it names one of them; then the first is taken.
        max_new_tokens: Longest verdict in tokens.
    """

    model: str = Field(description="Who judges: any teacher")
    api: ApiOptions = Field(ApiOptions(), description="What differs from the catalogue of API teachers")
    rubric: str = Field(RUBRIC, description="What makes an answer the best")
    seed: int = Field(0, ge=0, description="Of the order in which answers are shown")
    attempts: int = Field(3, ge=1, description="Times it is asked until it names an answer; then the first is taken")
    max_new_tokens: int = Field(200, ge=8, description="Longest verdict in tokens")

    def bench(self, tools: Tools) -> Bench:
        """The judge, opened."""
        return Bench(self, tools.open(Member(model=self.model, api=self.api)))


class Judged(Section):
    """One of the members' answers, picked by a judge; it is asked only where valid answers differ."""

    judge: Judge = Field(description="Who picks")

    def over(self, members: Sequence[Member], tools: Tools) -> Teacher:
        """The members before the judge."""
        if len(members) < 2:
            raise ConfigError("a judge needs at least two members", where="combine", fix="name another teacher, or use best-of-n")
        bench = self.judge.bench(tools)
        return Panel(
            "judge",
            self.model_dump(mode="json"),
            open_seats(members, tools),
            tools.task,
            bench.choose,
            judge=bench.teacher,
            choosing_plans=bench.plans,
        )


@dataclass(frozen=True)
class Bench:
    """A judge who chooses for many rows at once."""

    judge: Judge
    teacher: Teacher

    def choose(self, ballots: Ballots, work: Path) -> Choice:
        """The answer that the judge names, shown in an order that depends on the seed and the row.

        Where no answer is valid, or all say the same, the judge is not asked.
        """
        shown = [self._shuffled(request.id, candidates) for request, candidates in ballots]
        named: dict[int, Candidate | None] = {
            place: options[0] if options else first(ballots[place][1]) for place, options in enumerate(shown) if len(options) < 2
        }
        parts: list[dict[str, Any]] = []
        asked = stopped = None
        for attempt in range(self.judge.attempts):
            asked = [place for place in range(len(ballots)) if place not in named]
            if not asked or stopped:
                break
            questions = [self._ask(ballots[place][0], [str(one.answer) for one in shown[place]], attempt) for place in asked]
            found = self.teacher.ask(questions, work)
            parts.append(dict(found.facts))
            stopped = found.stopped
            for place, outcome in zip(asked, found.outcomes, strict=True):
                number = read_choice(outcome.reply.text, len(shown[place])) if outcome.reply else None
                if number is not None:
                    named[place] = shown[place][number]
                elif not outcome.settled:
                    named[place] = None
        unnamed = [place for place in range(len(ballots)) if place not in named]
        chosen = [named[place] if place in named else first(candidates) for place, (_, candidates) in enumerate(ballots)]
        return Choice(chosen, merged(parts) if parts else None, stopped, {"unjudged": len(unnamed)})

    def plans(self, requests: Sequence[Request], answers: int) -> list[RequestPlan]:
        """What it may cost to judge so many answers to every row, each of half the allowed length, once."""
        asked = []
        for request in requests:
            typical = "x" * round(request.params.max_new_tokens / 2 * CHARACTERS_A_TOKEN)
            asked.append(self._ask(request, [typical] * answers, 0))
        return self.teacher.plans(asked)

    def _shuffled(self, name: str, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The different valid answers."""
        different = [given[0] for given in groups(candidates).values()]
        random.Random(f"{self.judge.seed}:{name}").shuffle(different)
        return different

    def _ask(self, request: Request, answers: Sequence[str], attempt: int) -> Request:
        temperature = _AGAIN_TEMPERATURE if attempt else 0.0
        params = AskParams(max_new_tokens=self.judge.max_new_tokens, temperature=temperature, draw=attempt)
        return Request(request.id, question(request.messages, answers, self.judge.rubric), params)


def question(messages: Sequence[Message], answers: Sequence[str], rubric: str = RUBRIC) -> list[dict[str, str]]:
    """The turns that a judge is asked; the answers are numbered from 1."""
    listed = "\n\n".join(f"Answer {number}:\n{answer}" for number, answer in enumerate(answers, 1))
    return [
        {"role": "system", "content": _TOLD.replace("{rubric}", rubric)},
        {"role": "user", "content": f"{shown_turns(messages)}\n\n{listed}"},
    ]


def read_choice(text: str, count: int) -> int | None:
    """The place, from 0, of the answer that a judge's last verdict names; ``None`` where it names none of them."""
    found = _VERDICT.findall(text) or ([text.strip()] if text.strip().isdecimal() else [])
    number = int(found[-1]) if found else 0
    return number - 1 if 1 <= number <= count else None
