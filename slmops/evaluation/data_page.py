"""The page of a quality pass: what became of the rows, in charts and examples; and the same as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slmops.data.quality.report import DataReport
from slmops.evaluation import charts
from slmops.evaluation.formats import DASH, percent, printable
from slmops.evaluation.page import Figure, render_page
from slmops.files import write_json, write_text

REPORT, PAGE = "data-report.json", "data-report.html"
_SPLIT_SERIES = {"train": "series-8", "pool": "series-7", "validation": "series-5", "test": "series-3"}
_GOOD, _ASIDE = "series-5", "series-2"
_MOST_BARS = 12


def write_pages(report: DataReport, folder: Path) -> None:
    """Write ``data-report.html`` and then ``data-report.json``."""
    write_text(folder / PAGE, render_html(report))
    write_json(folder / REPORT, report.as_dict())


def render_html(report: DataReport) -> str:
    """One HTML file with everything in it: no script, no outside resource; texts of the data are escaped."""
    return render_page(
        "data-report.html.j2",
        report=report,
        headline=_headline(report),
        figures=[figure for figure in (_fate(report), *_lengths(report), _languages(report)) if figure],
        most_label_rows=max((max(counts.values()) for counts in (report.labels or {}).values()), default=1) or 1,
        diversity=_diversity(report),
    )


def render_table(report: DataReport) -> str:
    """Rows by split, rows set aside by reason, and the notes, as plain text."""
    rows = [(name, report.rows[name]) for name in report.rows if report.rows[name]]
    aside = [(item.kind, item.rows) for item in report.aside]
    width = max(len(name) for name, _ in [*rows, *aside, ("set aside", 0)]) + 2
    lines = [_headline(report), ""]
    lines += [f"{name:<{width}}{count:>9,}" for name, count in rows]
    lines += ["", f"{'set aside':<{width}}{report.read - report.good:>9,}"]
    lines += [f"  {kind:<{width - 2}}{count:>9,}" for kind, count in aside]
    lines += ["", *(f"- {printable(note)}" for note in report.notes)] if report.notes else []
    return "\n".join(lines) + "\n"


def _headline(report: DataReport) -> str:
    aside = report.read - report.good
    if not aside:
        return f"All {report.read:,} rows are good"
    most = report.aside[0]
    return f"{report.good:,} of {report.read:,} rows are good; most of the others: {most.kind} ({most.rows:,})"


def _fate(report: DataReport) -> Figure | None:
    if not report.read:
        return None
    bars = [charts.Bar("good", _GOOD, report.good, f"{report.good:,}")]
    bars += [charts.Bar(item.kind, _ASIDE, item.rows, f"{item.rows:,}") for item in report.aside[:_MOST_BARS]]
    caption = "Good rows, and those set aside by the first reason found. All of them lie in rejected.jsonl."
    return _bars("fate", _headline(report), caption, bars, axis="rows")


def _lengths(report: DataReport) -> list[Figure]:
    figures = []
    for field, by_split in report.lengths.items():
        strips = [
            charts.Strip(split, _SPLIT_SERIES[split], [value for value in values if value > 0])
            for split, values in by_split.items()
        ]
        if not any(strip.values for strip in strips):
            continue
        middle = {split: values[len(values) // 2] for split, values in by_split.items()}
        largest = max(middle, key=lambda split: report.rows[split])
        title = f"Half of the {field}s of {largest} have at most {middle[largest]:,.0f} characters"
        described = "; ".join(
            f"{split}: median {value:,.0f}, longest {by_split[split][-1]:,.0f}" for split, value in middle.items()
        )
        caption = "Dots are quantiles. Boxes hold the middle half, lines reach from 5\u00a0% to 95\u00a0%, the bar is the median."
        figures.append(
            Figure.drawn(
                f"{field}-lengths",
                title,
                caption,
                described,
                lambda frame, strips=strips: charts.strip_chart(strips, frame, axis="Characters, log scale"),  # type: ignore[misc]
            )
        )
    return figures


def _languages(report: DataReport) -> Figure | None:
    told = {code: rows for code, rows in report.languages.items() if code != "?"}
    if len(told) < 2:
        return None
    total = sum(told.values())
    first = next(iter(told))
    bars = [charts.Bar(code, "series-8", rows, f"{rows:,}") for code, rows in list(told.items())[:_MOST_BARS]]
    title = f"{percent(told[first] / total)} of the questions that are long enough to tell are in {first}"
    return _bars("languages", title, "ISO 639-1 codes; short questions are left out.", bars, axis="questions")


def _bars(name: str, title: str, caption: str, bars: Sequence[charts.Bar], *, axis: str) -> Figure:
    described = "; ".join(f"{bar.label}: {bar.text}" for bar in bars)
    return Figure.drawn(name, title, caption, described, lambda frame: charts.bar_chart(bars, frame, axis=axis))


def _diversity(report: DataReport) -> Mapping[str, list[str]]:
    return {field: [DASH if value is None else f"{value:.3f}" for value in values] for field, values in report.diversity.items()}
