"""What all charts of a report share: colours of rows, values, names of axes."""

from __future__ import annotations

from slmops.evaluation.parts import Row
from slmops.evaluation.schema import Report

_SERIES = 8


def series(report: Report) -> dict[str, str]:
    """The colour class of each row and training; the packaged row has the last one to itself."""
    names = [row.name for row in report.rows if not row.packaged]
    names += [training.name for training in report.training if report.row(training.name) is None]
    free = _SERIES - 1 if report.packaged else _SERIES
    classes = {name: f"series-{index % free + 1}" for index, name in enumerate(names)}
    return classes | {row.name: f"series-{_SERIES}" for row in report.rows if row.packaged}


def value_of(row: Row | None, key: str) -> float | None:
    """A measure of a row; None where there is no row, or it was not measured."""
    return None if row is None else row.measures.get(key)


def axis_name(report: Report, key: str) -> str:
    """A measure as the name of an axis, with its unit."""
    measure = report.measures[key]
    return f"{measure.title} ({measure.unit})" if measure.unit else measure.title
