"""Charts about what models cost: quality against a cost, times of single requests, requests/s under load."""

from __future__ import annotations

from slmops.evaluation.charts import Strip, strip_chart
from slmops.evaluation.formats import figure, inside, number
from slmops.evaluation.lines import Line, load_chart
from slmops.evaluation.page import Figure
from slmops.evaluation.plots import Point, pareto_front, scatter_chart
from slmops.evaluation.schema import Report
from slmops.evaluation.series import axis_name, series, value_of

_LOG_FROM = 20
"""Rates further apart than this factor need a logarithmic scale."""


def against_figure(report: Report, cost: str) -> Figure | None:
    """The measure that decides against a cost, with the rows that nothing beats in both."""
    key, colours = report.primary_measure, series(report)
    if cost not in report.measures:
        return None
    measure, quality = report.measures[cost], report.measures[key]
    points, missing = [], []
    for row in report.rows:
        x, y = value_of(row, cost), value_of(row, key)
        if x is None or y is None or x <= 0:
            missing.append(row.title)
            continue
        tip = f"{row.title}: {number(x)} {measure.unit}, {inside(quality.title)} {figure(key, y, quality)}"
        points.append(Point(row.name, colours[row.name], x, y, tip, row.packaged, row.intervals.get(key)))
    if len(points) < 2:
        return None
    higher = quality.better == "higher"
    front = pareto_front([(point.x, point.y if higher else -point.y) for point in points])
    caption = f"Left and {'up' if higher else 'down'} is better. No row is both better and cheaper than those on the stepped line: "
    caption += ", ".join(points[index].label for index in front) + "."
    if missing:
        caption += f" Not shown, because not measured: {', '.join(missing)}."
    x_axis, y_axis = f"{axis_name(report, cost)}, log scale", axis_name(report, key)
    described = "; ".join(point.tip for point in points)
    title = _saving(report, cost) or f"{quality.title} against {inside(measure.title)}"
    return Figure.drawn(
        cost.replace("_", "-"),
        title,
        caption,
        described,
        lambda frame: scatter_chart(points, frame, x_axis=x_axis, y_axis=y_axis, higher=higher),
    )


def _saving(report: Report, cost: str) -> str | None:
    """What is packaged against the teacher in one cost, as a title."""
    ours, theirs = value_of(report.packaged, cost), value_of(report.row("teacher"), cost)
    if not ours or not theirs:
        return None
    measure = report.measures[cost]
    unit = f" {measure.unit}" if measure.unit else ""
    return f"{measure.title} {number(ours)}{unit} as packaged, {number(theirs)}{unit} for the tuned teacher"


def latency_figure(report: Report) -> Figure | None:
    """Times of single requests."""
    colours = series(report)
    strips = [
        Strip(row.title, colours[row.name], [value for value in row.latencies_ms if value > 0], row.packaged) for row in report.rows
    ]
    if not any(strip.values for strip in strips):
        return None
    slow = value_of(report.packaged, "latency_p95_ms")
    title = "Time of single requests" if slow is None else f"95\u00a0% of the requests take less than {number(slow)} ms as packaged"
    caption = "Dots are requests. Boxes hold the middle half, lines reach from 5\u00a0% to 95\u00a0%, the bar is the median."
    described = "; ".join(
        f"{row.title}: p50 {number(value_of(row, 'latency_p50_ms'))} ms, p95 {number(value_of(row, 'latency_p95_ms'))} ms"
        for row in report.rows
    )
    axis = "Time of a request (ms), log scale"
    return Figure.drawn("latencies", title, caption, described, lambda frame: strip_chart(strips, frame, axis=axis))


def throughput_figure(report: Report) -> Figure | None:
    """Requests/s by how many requests are under way at once."""
    colours = series(report)
    rows = [row for row in report.rows if row.throughput]
    if not rows:
        return None
    lines = [
        Line(
            row.name,
            colours[row.name],
            [
                (load.concurrency, load.requests_per_s, 0.4, f"{number(load.requests_per_s)} requests/s at {load.concurrency}")
                for load in row.throughput
            ],
            row.packaged,
        )
        for row in rows
    ]
    rates = [load.requests_per_s for row in rows for load in row.throughput]
    log = min(rates) > 0 and max(rates) > _LOG_FROM * min(rates)
    shown = report.shown if report.shown in rows else rows[0]
    best = max(shown.throughput, key=lambda load: load.requests_per_s)
    title = f"{shown.title}: at most {number(best.requests_per_s)} requests/s, with {best.concurrency} at once"
    caption = "Requests under way at once, all on the same machine. The table “Under load” has the times."
    described = "; ".join(f"{line.label}: " + ", ".join(dot[3] for dot in line.dots) for line in lines)
    axes = {"x_axis": "Requests at once", "y_axis": "Requests/s, log scale" if log else "Requests/s"}
    return Figure.drawn("throughput", title, caption, described, lambda frame: load_chart(lines, frame, **axes, log=log))
