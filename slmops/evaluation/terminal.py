"""A report as a table for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from slmops.evaluation.formats import figure, headline_value, inside, printable
from slmops.evaluation.parts import Headline
from slmops.evaluation.schema import Report, parse_report
from slmops.evaluation.tables import leakage_sentence, main_columns

_LONGEST_NAME = 28
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


def render_table(report: Mapping[str, Any], width: int = 100) -> str:
    """Verdict, headline figures and the comparison as plain text, no line wider than ``width`` cells.

    Without a distillation the gates follow. Columns that do not fit are left out, the least important first; the last line
    says which. Lines that are still too long are folded.

    Raises:
        ArtifactError: The content does not follow the schema.
    """
    checked = parse_report(report)
    columns, dropped = main_columns(checked), []
    for key in _DROPPED_FIRST:
        if key in columns and max(map(cell_len, _comparison(checked, columns))) > width:
            columns.remove(key)
            dropped.append(key)
    verdict = checked.verdict
    packaged = f"Packaged: {checked.title(verdict.packaged)}. " if verdict.packaged else "Nothing is packaged. "
    leakage = leakage_sentence(checked)
    notes = ["Reference: the teacher's own answers, there is no gold."] if checked.reference == "teacher" else []
    notes += ["* is what was packaged."] if checked.packaged else []
    notes.append(f"[ ] is the {100 * checked.confidence:g} % interval on {checked.test_rows:,} test rows.")
    if dropped:
        notes.append(f"No room for: {', '.join(_SHORT[key] for key in dropped)}.")
    blocks = [
        [
            *([f"LEAKAGE: {leakage}"] if leakage else []),
            f"{verdict.word}: {verdict.sentence}",
            f"{packaged if checked.distilled else ''}{verdict.why}",
        ],
        _headlines(checked.headline),
        _comparison(checked, columns),
        [] if checked.distilled else _gates(checked),
        list(checked.needed),
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


def _gates(report: Report) -> list[str]:
    rows = [(gate.verdict, _ending(row.name), gate.gate, gate.detail) for row in report.rows for gate in row.gates]
    return _aligned(rows, left=(0, 1, 2, 3), gap="  ") if rows else []


def _comparison(report: Report, columns: Sequence[str]) -> list[str]:
    quality = report.primary_measure
    rows = [["", *(inside(report.measures[key].title) if key == quality else _SHORT[key] for key in columns)]]
    for row in report.rows:
        cells = [f"{'*' if row.packaged else ' '} {_ending(row.name)}"]
        for key in columns:
            cell = figure(key, row.measures.get(key), report.measures[key]).replace(" ", "")
            if key == quality and key in row.intervals:
                low, high = (figure(key, end, report.measures[key]) for end in row.intervals[key])
                cell += f" [{low}, {high}]"
            cells.append(cell)
        rows.append(cells)
    return _aligned(rows, left=(0,), gap=" ")


def _ending(name: str) -> str:
    """A name that leaves room for figures; of a long one the end, where paths and addresses differ."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int], gap: str) -> list[str]:
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [(cell, " " * (width - cell_len(cell))) for cell, width in zip(row, widths, strict=True)]
        lines.append(gap.join(cell + space if at in left else space + cell for at, (cell, space) in enumerate(padded)))
    return lines
