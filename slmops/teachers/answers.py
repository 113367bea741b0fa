"""Stage 1: a teacher answers rows; what is no valid answer is kept beside the good ones with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.files import atomic, read_json, write_json
from slmops.signals.store import row_key
from slmops.signals.topk import TopK
from slmops.tasks.base import Task
from slmops.teachers.answered import Answered, check_success, judge
from slmops.teachers.chunks import in_chunks
from slmops.teachers.local import LocalTeacher

__all__ = ["Answered", "answer_rows", "check_success", "signal_rows"]


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
    return judge(rows, raw, task)


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
