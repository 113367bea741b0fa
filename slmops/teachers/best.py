"""Best of n: several draws, of which a verifier, the gold answer or a judge chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from slmops.errors import ConfigError
from slmops.sections import Section
from slmops.tasks.base import Task
from slmops.teachers.base import Request, Teacher
from slmops.teachers.combiners import Tools
from slmops.teachers.judged import Judge
from slmops.teachers.panel import Ballots, Candidate, Choice, Choose, Panel, first, groups, open_seats
from slmops.teachers.spec import Member


class BestOfN(Section):
    """The best of n draws of each member.

    Answers that the task does not accept, its assertions among them, are out. Where the row has a gold answer, a right one is
    taken; else a judge chooses, and without a judge what most draws say.

    Args:
        n: Draws of each member; the first as the request says, the others by sampling.
        sampling_temperature: Softness of these.
        judge: Who chooses between valid answers without a gold one.
    """

    n: int = Field(4, ge=1, description="Draws of each member")
    sampling_temperature: float = Field(0.8, gt=0, description="Softness of the draws after the first")
    judge: Judge | None = Field(None, description="Who chooses where neither gold answer nor verifier does")

    def over(self, members: Sequence[Member], tools: Tools) -> Teacher:
        """The members, asked n times."""
        if self.n * len(members) < 2:
            raise ConfigError("there is nothing to choose from", where="combine.n", fix="give n of at least 2, or more members")
        bench = self.judge.bench(tools) if self.judge else None
        otherwise = bench.choose if bench else _most
        return Panel(
            "best-of-n",
            self.model_dump(mode="json"),
            open_seats(members, tools),
            tools.task,
            lambda ballots, work: _best(tools.task, ballots, otherwise, work),
            judge=bench.teacher if bench else None,
            draws=self.n,
            temperature=self.sampling_temperature,
            choosing_plans=bench.plans if bench else lambda requests, answers: [],
        )


def _best(task: Task, ballots: Ballots, otherwise: Choose, work: Path) -> Choice:
    """Right answers where there is a gold one; of the others what ``otherwise`` takes."""
    right = [_right(task, request, candidates) for request, candidates in ballots]
    choice = otherwise([ballot for ballot, known in zip(ballots, right, strict=True) if known is None], work)
    rest = iter(choice.chosen)
    return replace(choice, chosen=[next(rest) if known is None else known for known in right])


def _right(task: Task, request: Request, candidates: Sequence[Candidate]) -> Candidate | None:
    gold = request.row.answer if request.row is not None else None
    if gold is None:
        return None
    return next((one for one in candidates if one.answer is not None and task.correct(one.answer, gold)), None)


def _most(ballots: Ballots, work: Path) -> Choice:
    """What most draws say, of equals the first."""
    by_answer = [(list(groups(candidates).values()), candidates) for _, candidates in ballots]
    return Choice([max(found, key=len)[0] if found else first(candidates) for found, candidates in by_answer])
