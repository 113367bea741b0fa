"""What a teacher made of rows: the usable answers, and the others beside them with their reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from slmops.data.rows import Row
from slmops.errors import DataError, TeacherError
from slmops.tasks.base import Task, problem
from slmops.teachers.base import Outcome

LabelSource = Literal["gold", "teacher", "agree"]


@dataclass(frozen=True)
class Given:
    """What the teacher gave for a row.

    Args:
        row: As it was asked, with its gold answer where it has one.
        outcome: The answer that was kept, or why there is none.
        answer: Its normal form; ``None`` where there is no valid one.
        reason: Why not.
        right: Whether it is what the gold answer says; ``None`` without one.
        tries: Number of the attempt that was kept, from 0.
    """

    row: Row
    outcome: Outcome
    answer: str | None
    reason: str | None
    right: bool | None = None
    tries: int = 0

    @property
    def raw(self) -> str:
        """The answer as the teacher wrote it; empty where there is none."""
        return self.outcome.reply.text if self.outcome.reply else ""


@dataclass(frozen=True)
class Answered:
    """What a teacher made of rows.

    Args:
        given: One a row, in the order given, without the rows that the run stopped before.
        facts: Cost, tokens, faults, disagreements; ``right_by_try`` where attempts were repeated.
        stopped: Why the run ended early; ``None`` where it is complete.
    """

    given: list[Given]
    facts: Mapping[str, Any] = field(default_factory=dict)
    stopped: str | None = None

    @property
    def rows(self) -> list[Row]:
        """Rows with the teacher's answer in the task's normal form."""
        return [one.row.with_answer(one.answer) for one in self.given if one.answer is not None]

    @property
    def rejected(self) -> list[tuple[Row, str, str]]:
        """``(row, raw answer, reason)`` of the others."""
        return [(one.row, one.raw, str(one.reason)) for one in self.given if one.answer is None]

    @property
    def raw(self) -> dict[str, str]:
        """Row id to the answer as the teacher wrote it."""
        return {one.row.id: one.raw for one in self.given if one.outcome.reply is not None}

    @property
    def reasons(self) -> dict[str, int]:
        """How often each reason occurs, without the particulars behind its colon."""
        return count_reasons(reason for _, _, reason in self.rejected)

    def raise_if_stopped(self, where: str, cap: str) -> None:
        """Stop where the teacher stopped before all rows were done.

        Args:
            where: The folder with what is there so far.
            cap: Name of the option that caps the cost.

        Raises:
            TeacherError: Says why; the same command continues.
        """
        if self.stopped is not None:
            raise TeacherError(
                f"stopped: {self.stopped}; {len(self.given):,} rows are done",
                where=where,
                fix=f"the same command continues and pays nothing twice; after a cap, with a higher {cap}",
            )

    def correctness(self) -> dict[str, Any]:
        """How often the teacher was right: ``gold`` rows it answered that have a gold answer, and the share ``right``."""
        judged = [one for one in self.given if one.right is not None and one.outcome.reply is not None]
        return {"gold": len(judged), "right": sum(bool(one.right) for one in judged) / len(judged) if judged else None}


def count_reasons(reasons: Any) -> dict[str, int]:
    """How often each reason occurs, without the particulars behind its colon."""
    return dict(Counter(reason.partition(":")[0] for reason in reasons))


def label(one: Given, task: Task, source: LabelSource) -> tuple[str | None, str | None]:
    """What a row trains on, and where that is nothing, why.

    Args:
        one: What the teacher gave for it.
        task: Brings gold answers into their normal form.
        source: What rows with a gold answer train on: ``gold``, whatever the teacher said; the valid answer of the ``teacher``;
            gold where both ``agree``.

    Returns:
        ``(answer, None)`` or ``(None, reason)``.
    """
    gold = one.row.answer
    if gold is not None and source == "gold" and problem(task, one.row) is None:
        return task.parse(gold), None
    if one.answer is None:
        return None, one.reason
    if gold is None or source == "teacher":
        return one.answer, None
    if not one.right:
        return None, f"teacher disagrees: says {one.answer[:60]!r}"
    return task.parse(gold), None


def answer_line(one: Given, answer: str, task: Task) -> dict[str, Any]:
    """A row of ``answers.jsonl``: what it trains on, and what the teacher said."""
    outcome = one.outcome
    line = {**one.row.with_answer(answer).as_dict(), "teacher_answer": one.raw, "gold": one.row.answer, "teacher": outcome.teacher}
    reply = outcome.reply
    more = {
        "note": f"the teacher gave no valid answer: {one.reason}" if one.answer is None else None,
        "rationale": task.rationale(one.raw),
        "agreement": outcome.agreement,
        "tries": one.tries or None,
        "logprobs": list(reply.logprobs) if reply is not None and reply.logprobs is not None else None,
    }
    return {**line, **{name: value for name, value in more.items() if value is not None}}


def rejected_line(one: Given, reason: str) -> dict[str, Any]:
    """A row of ``rejected.jsonl``."""
    line = {**one.row.as_dict(), "teacher_answer": one.raw, "reason": reason}
    return {**line, "teacher": one.outcome.teacher} if one.outcome.teacher is not None else line


def check_success(given: Sequence[Given], min_success: float) -> None:
    """Stop where too few answers are usable.

    Raises:
        DataError: The share is below ``min_success``; the message shows the commonest reason and some answers.
    """
    bad = [one for one in given if one.answer is None]
    if given and 1 - len(bad) / len(given) < min_success:
        shown = "; ".join(json.dumps(one.raw[:60], ensure_ascii=False) for one in bad[:3])
        reasons = count_reasons(str(one.reason) for one in bad)
        raise DataError(
            f"only {len(given) - len(bad)} of {len(given)} answers of the teacher are usable ({reasons}); for example {shown}",
            fix="tune the teacher (teacher.tune), give it a better prompt, or lower answers.min_success",
        )
