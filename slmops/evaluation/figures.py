"""Which charts a report has: what they show, a title that says the finding, and the words beside them."""

from __future__ import annotations

from slmops.evaluation import charts
from slmops.evaluation.formats import figure, inside, number
from slmops.evaluation.page import FULL, Figure
from slmops.evaluation.schema import Report, Row

_SERIES = 8


def series(report: Report) -> dict[str, str]:
    """The colour class of each row and training; the packaged row has the last one to itself."""
    names = [row.name for row in report.rows if not row.packaged]
    names += [training.name for training in report.training if report.row(training.name) is None]
    free = _SERIES - 1 if report.packaged else _SERIES
    classes = {name: f"series-{index % free + 1}" for index, name in enumerate(names)}
    return classes | {row.name: f"series-{_SERIES}" for row in report.rows if row.packaged}


def figures(report: Report) -> list[Figure]:
    """All charts that the report has data for, in order; the confusion matrix apart (see :func:`confusion`)."""
    drawn = [
        _quality(report),
        _latencies(report),
        _against(report, "latency_p50_ms"),
        _curves(report),
        _against(report, "size_mb"),
        _against(report, "memory_mb"),
    ]
    return [figure for figure in drawn if figure is not None]


def confusion(report: Report) -> Figure | None:
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
    return Figure.drawn("confusion", title, caption, described, lambda frame: charts.heat_chart(labels, matrix, frame), wide=FULL)


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


def _quality(report: Report) -> Figure | None:
    key, colours = report.primary_measure, series(report)
    measure = report.measures[key]
    packaged, teacher = report.packaged, report.row("teacher")
    best, base = _value(packaged, key), _value(teacher, key)
    if not any(_value(row, key) is not None for row in report.rows):
        return None
    dots = [
        charts.Dot(
            row.title,
            colours[row.name],
            _value(row, key),
            row.intervals.get(key),
            figure(key, _value(row, key), measure),
            row.packaged,
        )
        for row in report.rows
    ]
    title = f"{measure.title} of every row"
    if best is not None and report.reference == "teacher":
        title = f"{measure.title}: {figure(key, best, measure)} as packaged"
    elif best is not None and base is not None:
        title = f"{measure.title} {figure(key, best, measure)} as packaged, {figure(key, base, measure)} for the tuned teacher"
    caption = f"{report.test_rows:,} test rows. Lines are {100 * report.confidence:g}\u00a0% intervals."
    if base is not None:
        caption += " The dashed line is the teacher."
    described = "; ".join(f"{dot.label} {dot.text}{_between(dot.interval, key, report)}" for dot in dots)
    axis = _axis(report, key)
    return Figure.drawn(
        "quality", title, caption, described, lambda frame: charts.interval_chart(dots, frame, axis=axis, reference=base)
    )


def _between(interval: tuple[float, float] | None, key: str, report: Report) -> str:
    if interval is None:
        return ""
    low, high = (figure(key, end, report.measures[key]) for end in interval)
    return f" ({low} to {high})"


def _against(report: Report, cost: str) -> Figure | None:
    key, colours = report.primary_measure, series(report)
    if cost not in report.measures:
        return None
    measure, quality = report.measures[cost], report.measures[key]
    points, missing = [], []
    for row in report.rows:
        x, y = _value(row, cost), _value(row, key)
        if x is None or y is None or x <= 0:
            missing.append(row.title)
            continue
        tip = f"{row.title}: {number(x)} {measure.unit}, {inside(quality.title)} {figure(key, y, quality)}"
        points.append(charts.Point(row.name, colours[row.name], x, y, tip, row.packaged))
    if not points:
        return None
    higher = quality.better == "higher"
    front = charts.pareto_front([(point.x, point.y if higher else -point.y) for point in points])
    caption = f"Left and {'up' if higher else 'down'} is better. No row is both better and cheaper than those on the stepped line: "
    caption += ", ".join(points[index].label for index in front) + "."
    if missing:
        caption += f" Not shown, because not measured: {', '.join(missing)}."
    axes = {"x_axis": f"{_axis(report, cost)}, log scale", "y_axis": _axis(report, key)}
    described = "; ".join(point.tip for point in points)
    title = _saving(report, cost) or f"{quality.title} against {inside(measure.title)}"
    return Figure.drawn(
        cost.replace("_", "-"), title, caption, described, lambda frame: charts.scatter_chart(points, frame, higher=higher, **axes)
    )


def _saving(report: Report, cost: str) -> str | None:
    """What is packaged against the teacher in one cost, as a title."""
    ours, theirs = _value(report.packaged, cost), _value(report.row("teacher"), cost)
    if not ours or not theirs:
        return None
    measure = report.measures[cost]
    unit = f" {measure.unit}" if measure.unit else ""
    return f"{measure.title} {number(ours)}{unit} as packaged, {number(theirs)}{unit} for the tuned teacher"


def _curves(report: Report) -> Figure | None:
    colours = series(report)
    runs = [training for training in report.training if training.curve]
    if not runs:
        return None
    curves = [
        charts.Curve(
            run.name,
            colours[run.name],
            [(point.step, point.loss) for point in run.curve],
            [(point.step, point.validation) for point in run.curve if point.validation is not None],
        )
        for run in runs
    ]
    stuck = [run.name for run in runs if run.curve[-1].loss >= run.curve[0].loss]
    title = f"The loss did not fall in {', '.join(stuck)}" if stuck else "The loss falls in every training"
    caption = "Smoothed; single steps behind it. Trainings differ in what their loss is made of: compare shapes, not heights."
    if any(curve.validation for curve in curves):
        caption += " Dashed with dots: validation."
    described = "; ".join(
        f"{run.name}: {run.steps} steps, from {number(run.curve[0].loss)} to {number(run.curve[-1].loss)}" for run in runs
    )
    return Figure.drawn(
        "curves", title, caption, described, lambda frame: charts.curve_chart(curves, frame, x_axis="Step", y_axis="Training loss")
    )


def _latencies(report: Report) -> Figure | None:
    colours = series(report)
    strips = [
        charts.Strip(row.title, colours[row.name], [value for value in row.latencies_ms if value > 0], row.packaged)
        for row in report.rows
    ]
    if not any(strip.values for strip in strips):
        return None
    slow = _value(report.packaged, "latency_p95_ms")
    title = "Time of single requests" if slow is None else f"95\u00a0% of the requests take less than {number(slow)} ms as packaged"
    caption = "Dots are requests. Boxes hold the middle half, lines reach from 5\u00a0% to 95\u00a0%, the bar is the median."
    described = "; ".join(
        f"{row.title}: p50 {number(_value(row, 'latency_p50_ms'))} ms, p95 {number(_value(row, 'latency_p95_ms'))} ms"
        for row in report.rows
    )
    axis = "Time of a request (ms), log scale"
    return Figure.drawn("latencies", title, caption, described, lambda frame: charts.strip_chart(strips, frame, axis=axis))


def _value(row: Row | None, key: str) -> float | None:
    return None if row is None else row.measures.get(key)


def _axis(report: Report, key: str) -> str:
    measure = report.measures[key]
    return f"{measure.title} ({measure.unit})" if measure.unit else measure.title
