"""The distribution of a teacher on this machine at the answers of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.files import atomic
from slmops.signals.distribution import Distribution
from slmops.signals.forms import KINDS, Form, kind_of
from slmops.signals.store import row_key
from slmops.teachers.chunks import in_chunks
from slmops.teachers.local import LocalTeacher


def signal_rows(
    teacher: LocalTeacher, rows: Sequence[Row], template: Template, form: Form, *, chunk_rows: int, work: Path
) -> Iterator[tuple[str, Distribution]]:
    """The teacher's distribution at the answer tokens of rows, a chunk in memory at a time.

    Args:
        teacher: Who is asked.
        rows: With answers; equal ones are taken once.
        template: Renders them.
        form: What is kept of the distribution.
        chunk_rows: Rows a batch, which is the unit of resume.
        work: Folder of finished chunks, which are not made again.

    Yields:
        Key and signal of each row, in an order that depends on the rows' content alone.
    """
    encoded = {row_key(row): template.encode(row) for row in rows}

    def make(chunk: Sequence[str], file: Path) -> None:
        chosen: list[Encoded] = [encoded[key] for key in chunk]
        signals = teacher.signals(chosen, form)
        joined = type(signals[0]).concatenate(signals)
        arrays: dict[str, Any] = {name: getattr(joined, name) for name in joined.names()}
        with atomic(file, "wb") as stream:
            np.savez(stream, kind=np.array(kind_of(joined)), **arrays)

    chunks = in_chunks(
        list(encoded),
        size=chunk_rows,
        length=lambda key: len(encoded[key].input_ids),
        key=lambda key: key,
        folder=work,
        suffix=".npz",
        make=make,
        what="teacher signals",
    )
    for chunk, file in chunks:
        joined = _read(file)
        start = 0
        for key in chunk:
            end = start + len(encoded[key].answer_ids)
            yield key, joined[start:end]
            start = end


def _read(file: Path) -> Distribution:
    with np.load(file) as stored:
        arrays = dict(stored)
    return KINDS[str(arrays.pop("kind"))](**arrays)
