"""What a teacher on this machine thinks at the answers of rows: its distribution and, where it is wanted, what its layers hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.files import atomic
from slmops.signals.distribution import Distribution
from slmops.signals.forms import KINDS, Form, kind_of
from slmops.signals.internals import Layers
from slmops.signals.store import row_key
from slmops.teachers.chunks import in_chunks
from slmops.teachers.local import LocalTeacher


def signal_rows(
    teacher: LocalTeacher,
    rows: Sequence[Row],
    template: Template,
    form: Form,
    *,
    chunk_rows: int,
    work: Path,
    layers: Layers | None = None,
) -> Iterator[tuple[str, Distribution]]:
    """The teacher's distribution at the answer tokens of rows, a chunk in memory at a time.

    Args:
        teacher: Who is asked.
        rows: With answers; equal ones are taken once.
        template: Renders them.
        form: What is kept of the distribution.
        chunk_rows: Rows a batch, which is the unit of resume.
        work: Folder of finished chunks, which are not made again.
        layers: Of which more is kept, in the same pass; :func:`internal_rows` then has it.

    Yields:
        Key and signal of each row, in an order that depends on the rows' content alone.
    """

    def make(chosen: Sequence[Encoded], file: Path) -> None:
        signals, internals = teacher.observe(chosen, form, layers) if layers else (teacher.signals(chosen, form), [])
        if internals:
            _write(_beside(file), internals)
        _write(file, signals)

    return _rows(rows, template, chunk_rows, work, make)


def internal_rows(rows: Sequence[Row], template: Template, *, chunk_rows: int, work: Path) -> Iterator[tuple[str, Distribution]]:
    """What is kept of a teacher's layers, out of the chunks that :func:`signal_rows` made of the same rows."""

    def missing(chosen: Sequence[Encoded], file: Path) -> None:
        raise AssertionError(f"{file} is made first")

    return _rows(rows, template, chunk_rows, work, missing, _beside)


def _rows(
    rows: Sequence[Row],
    template: Template,
    chunk_rows: int,
    work: Path,
    make: Callable[[Sequence[Encoded], Path], None],
    place: Callable[[Path], Path] = lambda file: file,
) -> Iterator[tuple[str, Distribution]]:
    encoded = {row_key(row): template.encode(row) for row in rows}
    chunks = in_chunks(
        list(encoded),
        size=chunk_rows,
        length=lambda key: len(encoded[key].input_ids),
        key=lambda key: key,
        folder=work,
        suffix=".npz",
        make=lambda chunk, file: make([encoded[key] for key in chunk], file),
        what="teacher signals",
    )
    for chunk, file in chunks:
        joined = _read(place(file))
        start = 0
        for key in chunk:
            end = start + len(encoded[key].answer_ids)
            yield key, joined[start:end]
            start = end


def _beside(file: Path) -> Path:
    """Where what is kept of layers lies; it is written before the chunk's own file."""
    return file.with_suffix(".layers.npz")


def _write(file: Path, parts: Sequence[Distribution]) -> None:
    joined = type(parts[0]).concatenate(parts)
    arrays: dict[str, Any] = {name: getattr(joined, name) for name in joined.names()}
    with atomic(file, "wb") as stream:
        np.savez(stream, kind=np.array(kind_of(joined)), **arrays)


def _read(file: Path) -> Distribution:
    with np.load(file) as stored:
        arrays = dict(stored)
    return KINDS[str(arrays.pop("kind"))](**arrays)
