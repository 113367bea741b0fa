"""A report as one HTML file that opens offline, and as a table for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from slmops.evaluation.charts import difference_chart
from slmops.evaluation.data_page import PAGE
from slmops.evaluation.figures import confused_pairs, confusion, figures, series
from slmops.evaluation.formats import figure, headline_value, inside, printable, signed
from slmops.evaluation.page import render_page
from slmops.evaluation.schema import Difference, Headline, Report, parse_report
from slmops.evaluation.svg import Frame

_QUALITY = "quality"  # stands for the report's primary measure
_COLUMNS = (
    "parameters",
    "size_mb",
    "memory_mb",
    "latency_p50_ms",
    "latency_p95_ms",
    "requests_per_s",
    _QUALITY,
    "share_of_teacher",
    "cost_per_million",
)
_SHORT = {
    "parameters": "params",
    "size_mb": "MB",
    "memory_mb": "mem MiB",
    "latency_p50_ms": "p50 ms",
    "latency_p95_ms": "p95 ms",
    "requests_per_s": "req/s",
    "share_of_teacher": "kept",
    "cost_per_million": "cost/1M",
}
_DROPPED_FIRST = ("latency_p95_ms", "parameters", "share_of_teacher", "cost_per_million", "requests_per_s", "memory_mb", "size_mb")


def render_html(report: Mapping[str, Any]) -> str:
    """One HTML file with everything in it: no script, no outside resource, for wide and small screens and for paper.

    Args:
        report: The content of ``report.json`` (see :class:`slmops.evaluation.schema.Report`).

    Raises:
        ArtifactError: The content does not follow the schema.
    """
    checked = parse_report(report)
    columns = _columns(checked)
    return render_page(
        "report.html.j2",
        report=checked,
        data_page=PAGE,
        headline_value=headline_value,
        figure=figure,
        signed=signed,
        columns=columns,
        other_columns=[key for key in checked.measures if key not in columns],
        colours=series(checked),
        figures=figures(checked),
        confusion=confusion(checked),
        confused=confused_pairs(checked)[:8],
        differences=[(item, _in_words(checked, item), chart) for item, chart in _with_charts(checked.differences)],
        meters=[_meter(item) for item in checked.headline],
        stage_names={stage.id: stage.stage for stage in checked.stages},
        most_label_rows=max((max(item.train, item.test) for item in checked.data.labels), default=1) or 1,
        slowest=max((stage.seconds for stage in checked.stages), default=1) or 1,
    )


def render_table(report: Mapping[str, Any], width: int = 100) -> str:
    """Verdict, headline figures and the comparison as plain text, no line wider than ``width`` cells.

    Columns that do not fit are left out, the least important first; the last line says which. Lines that are still too
    long are folded.

    Raises:
        ArtifactError: The content does not follow the schema.
    """
    checked = parse_report(report)
    columns, dropped = _columns(checked), []
    for key in _DROPPED_FIRST:
        if key in columns and max(map(cell_len, _comparison(checked, columns))) > width:
            columns.remove(key)
            dropped.append(key)
    verdict = checked.verdict
    packaged = f"Packaged: {checked.title(verdict.packaged)}." if verdict.packaged else "Nothing is packaged."
    notes = ["Reference: the teacher's own answers, there is no gold."] if checked.reference == "teacher" else []
    notes += ["* is what was packaged."] if checked.packaged else []
    notes.append(f"[ ] is the {100 * checked.confidence:g} % interval on {checked.test_rows:,} test rows.")
    if dropped:
        notes.append(f"No room for: {', '.join(_SHORT[key] for key in dropped)}.")
    blocks = [
        [f"{verdict.word}: {verdict.sentence}", f"{packaged} {verdict.why}"],
        _headlines(checked.headline),
        _comparison(checked, columns),
        notes,
    ]
    screen = io.StringIO()
    console = Console(file=screen, width=width, color_system=None, highlight=False, legacy_windows=False)
    for at, block in enumerate(filter(None, blocks)):
        if at:
            console.print()
        for line in block:
            console.print(Text(printable(line)))
    return "\n".join(line.rstrip() for line in screen.getvalue().splitlines()) + "\n"


def _columns(report: Report) -> list[str]:
    keys = [report.primary_measure if key == _QUALITY else key for key in _COLUMNS]
    return [key for key in keys if key in report.measures]


def _in_words(report: Report, item: Difference) -> str:
    a, b, measure = report.title(item.a), report.title(item.b), report.measures.get(item.measure)
    name = inside(measure.title) if measure else item.measure
    if item.word == "INCONCLUSIVE":
        return f"{a} and {b} cannot be told apart in {name}"
    return f"{a} is {item.word} than {b} in {name}"


def _with_charts(differences: Sequence[Difference]) -> list[tuple[Difference, Markup]]:
    bound = max((abs(value) for item in differences for value in (*item.interval, item.difference)), default=1) or 1
    charts = []
    for index, item in enumerate(differences):
        described = f"{item.difference:+.3f}, between {item.interval[0]:+.3f} and {item.interval[1]:+.3f}"
        frame = Frame(f"difference-{index}", 150, f"{item.a} − {item.b}", described)
        charts.append((item, Markup(difference_chart(item.difference, item.interval, frame, bound=bound))))
    return charts


def _meter(item: Headline) -> tuple[float, float]:
    """Lengths of the value's bar and of the target's mark, in percent of the meter."""
    value = max(item.value or 0.0, 0.0)
    top = 100.0 if item.unit == "percent less" else max(1.0 if item.unit == "share" else 0.0, 1.08 * max(value, item.target)) or 1.0
    return min(100.0, 100 * value / top), min(100.0, 100 * item.target / top)


def _headlines(items: Sequence[Headline]) -> list[str]:
    rows = [
        (
            "reached" if item.reached else "NOT measured" if item.value is None else "NOT reached",
            item.what,
            headline_value(item, item.value),
            f"target {headline_value(item, item.target)}",
        )
        for item in items
    ]
    return _aligned(rows, left=(0, 1, 3), gap="  ")


def _comparison(report: Report, columns: Sequence[str]) -> list[str]:
    quality = report.primary_measure
    rows = [["", *(inside(report.measures[key].title) if key == quality else _SHORT[key] for key in columns)]]
    for row in report.rows:
        cells = [f"{'*' if row.packaged else ' '} {row.name}"]
        for key in columns:
            cell = figure(key, row.measures.get(key), report.measures[key]).replace(" ", "")
            if key == quality and key in row.intervals:
                low, high = (figure(key, end, report.measures[key]) for end in row.intervals[key])
                cell += f" [{low}, {high}]"
            cells.append(cell)
        rows.append(cells)
    return _aligned(rows, left=(0,), gap=" ")


def _aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int], gap: str) -> list[str]:
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [(cell, " " * (width - cell_len(cell))) for cell, width in zip(row, widths, strict=True)]
        lines.append(gap.join(cell + space if at in left else space + cell for at, (cell, space) in enumerate(padded)))
    return lines
