"""Answers before a judge: each against the reference of its row, in both orders; the win rate is what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.data.rows import Message, Row
from slmops.tasks.base import AnswerError, Task
from slmops.tasks.judge import RUBRIC, Verdicts, comparison, pair_score
from slmops.teachers.answered import Answered
from slmops.teachers.asking import ask_rows
from slmops.teachers.base import Teacher
from slmops.teachers.replies import AskParams

WIN_RATE = "win_rate"

COUNTS = ("wins", "losses", "ties", "same", "invalid", "contradicted", "unread")
"""What :func:`counts` counts."""

_AGAIN_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Contest:
    """An answer against the reference of its row.

    Args:
        id: The row's.
        questions: What a judge is asked: the answer first, then the reference first; none where that is not needed.
        settled: Without questions, why: the answer is the ``same`` as the reference, or it is ``invalid`` by the task.
    """

    id: str
    questions: tuple[Row, ...]
    settled: str | None

    def result(self, verdicts: Mapping[str, str | None]) -> dict[str, Any]:
        """The row's line: its score, and the verdicts that it comes from.

        Args:
            verdicts: Id of a question to its verdict; ``None`` where the judge gave none.
        """
        if self.settled is not None:
            return {"id": self.id, "score": {"same": 0.5, "invalid": 0.0}[self.settled], "settled": self.settled}
        said = [verdicts[question.id] for question in self.questions]
        asked = dict(zip([question.id for question in self.questions], said, strict=True))
        return {"id": self.id, "score": pair_score(*said), "verdicts": asked}


def contests(task: Task, rows: Sequence[Row], answers: Sequence[str], rubric: str = RUBRIC) -> list[Contest]:
    """Answers against the rows' own ones, both in their normal form; an invalid answer loses, the same text is a tie."""
    return [_contest(task, row, answer, rubric) for row, answer in zip(rows, answers, strict=True)]


def both_orders(task: Task, row: Row, answer: str, reference: str, rubric: str) -> tuple[Row, Row]:
    """What a judge is asked about an answer: with it first, then with the reference first."""
    turns = shown(task, row)
    return Row.of(comparison(turns, answer, reference, rubric)), Row.of(comparison(turns, reference, answer, rubric))


def questions_of(found: Iterable[Contest]) -> list[Row]:
    """What a judge is asked for all of them, each question once."""
    return list({question.id: question for contest in found for question in contest.questions}.values())


def ask_judge(
    judge: Teacher, questions: Sequence[Row], params: AskParams, work: Path, attempts: int, *, said: Task | None = None
) -> Answered:
    """Let a judge answer comparisons, or what else he is asked; one without a verdict is asked again, by sampling.

    Args:
        judge: Any teacher; where it is several, they were opened with the task :class:`~slmops.tasks.judge.Verdicts`.
        questions: From :func:`questions_of`.
        params: How it answers at first.
        work: What is done already lies here, or in the judge's cache.
        attempts: Times a comparison is asked at most.
        said: What a verdict is; left out: the winner, ``A``, ``B`` or ``tie``.

    Raises:
        TeacherError: It refuses for good, or does not answer for too long. Verdicts so far are kept.
    """
    return ask_rows(
        judge,
        questions,
        said or Verdicts(),
        params,
        work,
        retries=attempts - 1,
        retry_temperature=_AGAIN_TEMPERATURE,
        turns=lambda row: row.messages,
    )


def verdicts_of(answered: Answered) -> dict[str, str | None]:
    """Id of each question to its verdict."""
    return {one.row.id: one.answer for one in answered.given}


def counts(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What came of the contests: ``wins``, ``losses`` and ``ties``, and of these those that nobody was asked about.

    ``same`` and ``invalid`` were settled without the judge; of the others ``contradicted`` are ties because the two orders
    say different things, ``unread`` because a verdict is missing.
    """
    asked = [list(line["verdicts"].values()) for line in lines if "verdicts" in line]
    read = [said for said in asked if None not in said]
    agreed = [["A", "B"], ["B", "A"], ["tie", "tie"]]
    return {
        "wins": sum(line["score"] == 1 for line in lines),
        "losses": sum(line["score"] == 0 for line in lines),
        "ties": sum(line["score"] == 0.5 for line in lines),
        "same": sum(line.get("settled") == "same" for line in lines),
        "invalid": sum(line.get("settled") == "invalid" for line in lines),
        "contradicted": sum(said not in agreed for said in read),
        "unread": len(asked) - len(read),
    }


def _contest(task: Task, row: Row, answer: str, rubric: str) -> Contest:
    reference = task.parse(str(row.answer))
    try:
        own = task.parse(answer)
    except AnswerError:
        return Contest(row.id, (), "invalid")
    if own == reference:
        return Contest(row.id, (), "same")
    return Contest(row.id, both_orders(task, row, own, reference, rubric), None)


def shown(task: Task, row: Row) -> Sequence[Message]:
    """The conversation with its system turn or, where it has none, what the task tells the teacher: a judge has to know it."""
    told = task.ask(row)[0]
    return (told, *row.messages) if told["role"] == "system" != row.messages[0]["role"] else row.messages
