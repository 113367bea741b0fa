"""Rows answered by any teacher: asked, read, verified, and asked again where that may help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slmops.data.rows import Message, Row
from slmops.tasks.base import AnswerError, Task, closed_labels, problem
from slmops.teachers.answered import Answered, Given
from slmops.teachers.base import Answers, Outcome, Request, Teacher
from slmops.teachers.facts import merged
from slmops.teachers.replies import AskParams

Turns = Callable[[Row], Sequence[Message]]

SIMILARITIES = ("token_f1", "rouge_l", "chrf")
"""Measures of tasks in which an answer may be good though it is not the gold one, so that it is not asked again."""

_ROOM = 2
"""Times as many tokens for an answer that was cut."""


def teacher_messages(task: Task, row: Row) -> tuple[Message, ...]:
    """What a teacher is asked for a row: as the task says."""
    return tuple(task.ask(row))


def requests_of(
    rows: Sequence[Row], task: Task, params: AskParams, turns: Turns | None = None
) -> tuple[list[Request], list[Given]]:
    """What a teacher is asked for rows, each question once, and the rows that are no question of the task.

    Args:
        rows: The rows; of equal questions the first with a gold answer stands for all.
        task: Says how a teacher is asked.
        params: How it answers.
        turns: How it is asked in place of what the task says.
    """
    unique: dict[str, Row] = {}
    for row in rows:
        known = unique.get(row.id)
        if known is None or (known.answer is None and row.answer is not None):
            unique[row.id] = row
    requests, refused = [], []
    for row in unique.values():
        why = problem(task, row)
        if why is not None:
            refused.append(Given(row, Outcome(row.id, None, why), None, why))
        else:
            requests.append(Request(row.id, tuple(turns(row)) if turns else teacher_messages(task, row), params, row))
    return requests, refused


def ask_rows(
    teacher: Teacher,
    rows: Sequence[Row],
    task: Task,
    params: AskParams,
    work: Path,
    *,
    retries: int = 0,
    retry_temperature: float = 0.0,
    turns: Turns | None = None,
) -> Answered:
    """Let a teacher answer rows; what is invalid, or wrong where there is a gold answer, is asked again (rejection sampling).

    Tasks of free text have many right answers: of these only the invalid ones are asked again. One of these that was cut at
    ``max_new_tokens`` is asked once more with twice as many, and is none if that does not do (APIs see to that themselves).

    Of several attempts a right answer is kept, else the first valid one, else the first.

    Args:
        teacher: Whom to ask.
        rows: What to answer; a question that occurs twice is asked once.
        task: Says how it is asked, reads and verifies.
        params: How it answers at first.
        work: What is done already lies here, or in the teacher's cache.
        retries: Most attempts after the first.
        retry_temperature: Softness of their sampling.
        turns: How it is asked in place of what the task says.

    Raises:
        TeacherError: It refuses for good, or does not answer for too long. Answers so far are kept.
    """
    requests, refused = requests_of(rows, task, params, turns)
    kept: dict[str, Given] = {one.row.id: one for one in refused}
    facts: list[Mapping[str, Any]] = []
    by_try: list[int] = []
    stopped = None
    again, verified = requests, task.primary_measure not in SIMILARITIES
    for number in range(retries + 1):
        if not again or stopped is not None:
            break
        if number:
            again = [replace(one, params=replace(params, temperature=retry_temperature, draw=number)) for one in again]
        found = teacher.ask(again, work / f"try-{number}")
        if closed_labels(task) is None:
            found = _whole(teacher, again, found, work / f"try-{number}-room")
        facts.append(found.facts)
        stopped = found.stopped
        for request, outcome in zip(again, found.outcomes, strict=True):
            if outcome.settled and request.row is not None:
                one = read_outcome(request.row, _named(outcome, teacher), task, number)
                if request.id not in kept or _worth(one) > _worth(kept[request.id]):
                    kept[request.id] = one
        by_try.append(sum(one.right is True for one in kept.values()))
        again = [request for request in again if request.id in kept and not _good(kept[request.id], verified)]
    given = [_for_row(row, kept[row.id], task) for row in rows if row.id in kept]
    judged = sum(one.right is not None and one.outcome.reply is not None for one in kept.values())
    more = {"right_by_try": [count / judged for count in by_try]} if judged and retries else {}
    return Answered(given, {**merged(facts), **more}, stopped)


def read_outcome(row: Row, outcome: Outcome, task: Task, number: int = 0) -> Given:
    """What an outcome is worth for a row."""
    if outcome.reply is None:
        return Given(row, outcome, None, outcome.reason, False if row.answer is not None else None, number)
    right = any(task.correct(outcome.reply.text, one) for one in row.answers) if row.answers else None
    try:
        return Given(row, outcome, task.parse(outcome.reply.text), None, right, number)
    except AnswerError as error:
        return Given(row, outcome, None, str(error), right, number)


def _whole(teacher: Teacher, requests: Sequence[Request], found: Answers, work: Path) -> Answers:
    """The answers without those that were cut: these are asked again with more room."""
    cut = [place for place, outcome in enumerate(found.outcomes) if _is_cut(outcome)]
    if not cut:
        return found
    asked = [_roomier(requests[place]) for place in cut]
    more = teacher.ask(asked, work)
    outcomes = list(found.outcomes)
    for place, request, outcome in zip(cut, asked, more.outcomes, strict=True):
        if outcome.settled and (outcome.reply is None or _is_cut(outcome)):
            had = (request if outcome.reply is not None else requests[place]).params.max_new_tokens
            outcome = replace(outcome, reply=None, reason=f"truncated: the answer does not end within {had:,} tokens")
        outcomes[place] = outcome
    return Answers(outcomes, merged([found.facts, more.facts]), found.stopped or more.stopped)


def _is_cut(outcome: Outcome) -> bool:
    return outcome.reply is not None and outcome.reply.finish_reason == "length"


def _roomier(request: Request) -> Request:
    return replace(request, params=replace(request.params, max_new_tokens=_ROOM * request.params.max_new_tokens))


def _for_row(row: Row, one: Given, task: Task) -> Given:
    """The same for another row with the same question, whose gold answer may differ."""
    return one if row is one.row else read_outcome(row, one.outcome, task, one.tries)


def _named(outcome: Outcome, teacher: Teacher) -> Outcome:
    return outcome if outcome.teacher is not None else replace(outcome, teacher=teacher.name)


def _worth(one: Given) -> tuple[bool, bool, bool]:
    return one.right is True, one.answer is not None, one.outcome.reply is not None


def _good(one: Given, verified: bool) -> bool:
    return one.answer is not None and not (verified and one.right is False)
