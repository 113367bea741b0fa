"""What a data file is read into: its records, each with the place it stands at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Record(NamedTuple):
    """One record of a file: its values, or ``None`` with the problem and the raw text.

    ``line`` counts from 1 and is the record's first line; in Parquet, which has no lines, the row's number.
    """

    line: int
    values: Mapping[str, Any] | None
    problem: str = ""
    raw: str = ""


@dataclass(frozen=True)
class Table:
    """A file's records and what it was taken for; ``header`` has the column names of CSV and TSV."""

    path: Path
    format: str
    encoding: str
    records: Sequence[Record]
    header: tuple[str, ...] | None = None
