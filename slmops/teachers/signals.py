"""The distribution of a teacher on this machine at the answers of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.files import atomic
from slmops.signals.store import row_key
from slmops.signals.topk import TopK
from slmops.teachers.chunks import in_chunks
from slmops.teachers.local import LocalTeacher


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
