"""Stage 1: a teacher answers rows; what is no valid answer is kept beside the good ones with its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import DataError
from slmops.files import atomic, read_json, write_json
from slmops.signals.store import row_key
from slmops.signals.topk import TopK
from slmops.tasks.base import AnswerError, Task
from slmops.teachers.chunks import in_chunks
from slmops.teachers.local import LocalTeacher


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


def answer_rows(
    teacher: LocalTeacher, rows: Sequence[Row], task: Task, *, chunk_rows: int, max_new_tokens: int, work: Path
) -> Answered:
    """Let the teacher answer rows in chunks; finished chunks in ``work`` are not made again."""

    def make(chunk: Sequence[Row], file: Path) -> None:
        answers = teacher.answer(chunk, max_new_tokens)
        write_json(file, {row.id: answer for row, answer in zip(chunk, answers, strict=True)})

    unique = list({row.id: row for row in rows}.values())
    raw: dict[str, str] = {}
    for _, file in in_chunks(
        unique,
        size=chunk_rows,
        length=lambda row: len(teacher.template.prompt(row)),
        key=lambda row: row.id,
        folder=work,
        suffix=".json",
        make=make,
        what="teacher answers",
    ):
        raw.update(read_json(file))
    good, rejected = [], []
    for row in rows:
        try:
            good.append(row.with_answer(task.parse(raw[row.id])))
        except AnswerError as error:
            rejected.append((row, raw[row.id], str(error)))
    return Answered(good, rejected, raw)


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


def signal_rows(
    teacher: LocalTeacher, rows: Sequence[Row], template: Template, *, k: int, chunk_rows: int, work: Path
) -> list[TopK]:
    """The teacher's top-k at the answer tokens of rows, in order; finished chunks in ``work`` are not made again."""
    encoded = {row_key(row): template.encode(row) for row in rows}

    def make(chunk: Sequence[str], file: Path) -> None:
        chosen: list[Encoded] = [encoded[key] for key in chunk]
        joined = TopK.concatenate(teacher.signals(chosen, k))
        with atomic(file, "wb") as stream:
            np.savez(stream, ids=joined.ids, logprobs=joined.logprobs, tail=joined.tail)

    found: dict[str, TopK] = {}
    for chunk, file in in_chunks(
        list(encoded),
        size=chunk_rows,
        length=lambda key: len(encoded[key].input_ids),
        key=lambda key: key,
        folder=work,
        suffix=".npz",
        make=make,
        what="teacher signals",
    ):
        with np.load(file) as stored:
            joined = TopK(stored["ids"], stored["logprobs"], stored["tail"])
        start = 0
        for key in chunk:
            end = start + len(encoded[key].answer_ids)
            found[key] = joined[start:end]
            start = end
    return [found[row_key(row)] for row in rows]
