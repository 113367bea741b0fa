"""What a teacher made of rows: the usable answers, and the others beside them with their reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slmops.data.rows import Row
from slmops.errors import DataError
from slmops.tasks.base import AnswerError, Task


@dataclass(frozen=True)
class Answered:
    """What a teacher made of rows.

    Args:
        rows: Rows with the teacher's answer in the task's normal form, in the order given.
        rejected: ``(row, raw answer, reason)`` of the others.
        raw: Row id to the answer as the teacher wrote it.
    """

    rows: list[Row]
    rejected: list[tuple[Row, str, str]]
    raw: dict[str, str]

    @property
    def reasons(self) -> dict[str, int]:
        """How often each reason occurs, without the particulars behind its colon."""
        return dict(Counter(reason.partition(":")[0] for _, _, reason in self.rejected))


def judge(rows: Sequence[Row], raw: Mapping[str, str], task: Task, reasons: Mapping[str, str] | None = None) -> Answered:
    """Sort a teacher's answers into those that are valid and those that are not.

    Args:
        rows: What was asked.
        raw: Row id to the answer as the teacher wrote it.
        task: Reads the answers.
        reasons: Row id to the reason why there is no answer.
    """
    good, rejected = [], []
    for row in rows:
        if reasons and row.id in reasons:
            rejected.append((row, "", reasons[row.id]))
            continue
        try:
            good.append(row.with_answer(task.parse(raw[row.id])))
        except AnswerError as error:
            rejected.append((row, raw[row.id], str(error)))
    return Answered(good, rejected, dict(raw))


def check_success(answered: Answered, min_success: float) -> None:
    """Stop where too few answers are usable.

    Raises:
        DataError: The share is below ``min_success``; the message shows the commonest reason and some answers.
    """
    total = len(answered.rows) + len(answered.rejected)
    if total and len(answered.rows) / total < min_success:
        shown = "; ".join(json.dumps(raw[:60], ensure_ascii=False) for _, raw, _ in answered.rejected[:3])
        raise DataError(
            f"only {len(answered.rows)} of {total} answers of the teacher are usable ({answered.reasons}); for example {shown}",
            fix="tune the teacher (teacher.tune), give it a better prompt, or lower answers.min_success",
        )
