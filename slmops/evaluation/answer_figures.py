"""Charts about answers: the measure that decides with its intervals, confusions, calibration."""

from __future__ import annotations

from slmops.evaluation.charts import Dot, interval_chart
from slmops.evaluation.formats import figure, inside, percent, score
from slmops.evaluation.grids import heat_chart
from slmops.evaluation.lines import Line, reliability_chart
from slmops.evaluation.page import FULL, Figure
from slmops.evaluation.schema import Report
from slmops.evaluation.series import axis_name, series, value_of


def quality_figure(report: Report) -> Figure | None:
    """The measure that decides, of every row, with intervals."""
    key, colours = report.primary_measure, series(report)
    measure = report.measures[key]
    packaged, teacher = report.packaged, report.row("teacher")
    best, base = value_of(packaged, key), value_of(teacher, key)
    if not any(value_of(row, key) is not None for row in report.rows):
        return None
    dots = [
        Dot(
            row.title,
            colours[row.name],
            value_of(row, key),
            row.intervals.get(key),
            figure(key, value_of(row, key), measure),
            row.packaged,
        )
        for row in report.rows
    ]
    title = _highest(report)
    if best is not None and report.reference == "teacher":
        title = f"{measure.title}: {figure(key, best, measure)} as packaged"
    elif best is not None and base is not None:
        title = f"{measure.title} {figure(key, best, measure)} as packaged, {figure(key, base, measure)} for the tuned teacher"
    caption = f"{report.test_rows:,} test rows. Lines are {100 * report.confidence:g}\u00a0% intervals."
    if base is not None:
        caption += " The dashed line is the teacher."
    described = "; ".join(f"{dot.label} {dot.text}{_between(dot.interval, key, report)}" for dot in dots)
    axis = axis_name(report, key)
    return Figure.drawn("quality", title, caption, described, lambda frame: interval_chart(dots, frame, axis=axis, reference=base))


def confusion_figure(report: Report) -> Figure | None:
    """The heat map of the confusion matrix, where there are labels."""
    if report.confusion is None or not report.confusion.labels:
        return None
    labels, matrix = report.confusion.labels, report.confusion.matrix
    right = sum(matrix[index][index] for index in range(len(labels)))
    total = sum(map(sum, matrix))
    worst = confused_pairs(report)[:1]
    title = "No label is taken for another"
    if worst:
        expected, answered, wrong, of = worst[0]
        title = f"Most often wrong: “{expected}” answered as “{answered}”, {wrong} of {of}"
    what = "right"
    if report.reference == "teacher":
        title, what = title.replace("Most often wrong", "Most often unlike the teacher"), "the teacher's"
    caption = f"{report.title(report.confusion.row)}: {right} of {total} answers are {what}. Shade: share of the line."
    described = "; ".join(f"{a} answered as {b}: {n} of {of}" for a, b, n, of in confused_pairs(report))
    return Figure.drawn("confusion", title, caption, described, lambda frame: heat_chart(labels, matrix, frame), wide=FULL)


def confused_pairs(report: Report) -> list[tuple[str, str, int, int]]:
    """Expected label, answered label, how often, of how many; the most frequent first."""
    if report.confusion is None:
        return []
    labels = report.confusion.labels
    pairs = [
        (labels[row], labels[column], found, sum(counts))
        for row, counts in enumerate(report.confusion.matrix)
        for column, found in enumerate(counts)
        if found and row != column
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def reliability_figure(report: Report) -> Figure | None:
    """Whether models are right as often as they are sure."""
    colours = series(report)
    known = [item for item in report.reliability if item.bins and item.row in colours]
    if not known:
        return None
    most = max(part.rows for item in known for part in item.bins)
    lines = [
        Line(
            item.row,
            colours[item.row],
            [
                (
                    part.confidence,
                    part.accuracy,
                    (part.rows / most) ** 0.5,
                    f"{percent(part.confidence)} sure, {percent(part.accuracy)} right, {part.rows} answers",
                )
                for part in item.bins
            ],
            report.packaged is not None and item.row == report.packaged.name,
        )
        for item in known
    ]
    shown = next((item for item in known if report.shown is not None and item.row == report.shown.name), known[0])
    sure = sum(part.confidence * part.rows for part in shown.bins) / sum(part.rows for part in shown.bins)
    right = sum(part.accuracy * part.rows for part in shown.bins) / sum(part.rows for part in shown.bins)
    what = "agrees in" if report.reference == "teacher" else "is right in"
    title = f"{report.title(shown.row)} is {percent(sure)} sure and {what} {percent(right)}".replace(" %", "\u00a0%")
    errors = ", ".join(f"{report.title(item.row)} {score(item.ece)}" for item in known)
    caption = (
        "Below the dashed line a model is too sure of itself, above it not sure enough. Larger dots are more answers. "
        f"Expected calibration error: {errors}."
    )
    described = "; ".join(f"{line.label}: " + ", ".join(dot[3] for dot in line.dots) for line in lines)
    axes = {"x_axis": "How sure the model is of its answer", "y_axis": "Share of right answers"}
    return Figure.drawn("reliability", title, caption, described, lambda frame: reliability_chart(lines, frame, **axes))


def _between(interval: tuple[float, float] | None, key: str, report: Report) -> str:
    if interval is None:
        return ""
    low, high = (figure(key, end, report.measures[key]) for end in interval)
    return f" ({low} to {high})"


def _highest(report: Report) -> str:
    """The row that is best by the point, as a title."""
    measure = report.measures[report.primary_measure]
    known = [(value, row.title) for row in report.rows if (value := value_of(row, report.primary_measure)) is not None]
    value, title = (max if measure.better == "higher" else min)(known)
    text = figure(report.primary_measure, value, measure)
    if len(known) == 1:
        return f"{measure.title} {text}"
    most = "highest" if measure.better == "higher" else "lowest"
    return f"{title} has the {most} {inside(measure.title)}: {text}"
