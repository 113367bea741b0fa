"""What all charts of a report share: colours of rows, values, names of axes."""

from __future__ import annotations

from slmops.evaluation.parts import Row
from slmops.evaluation.schema import Report

_PACKAGED = 8
_SERIES = (1, 2, 3, 4, 5, 6, 7, 9)


def series(report: Report) -> dict[str, str]:
    """The colour class of each row and training; the packaged row has one to itself."""
    names = [row.name for row in report.rows if not row.packaged]
    names += [training.name for training in report.training if report.row(training.name) is None]
    classes = {name: f"series-{_SERIES[index % len(_SERIES)]}" for index, name in enumerate(names)}
    return classes | {row.name: f"series-{_PACKAGED}" for row in report.rows if row.packaged}


def value_of(row: Row | None, key: str) -> float | None:
    """A measure of a row; None where there is no row, or it was not measured."""
    return None if row is None else row.measures.get(key)


def axis_name(report: Report, key: str) -> str:
    """A measure as the name of an axis, with its unit."""
    measure = report.measures[key]
    return f"{measure.title} ({measure.unit})" if measure.unit else measure.title
