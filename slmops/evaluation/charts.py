"""The charts of a report as inline SVG: pure functions of their data; colours and fonts come from the page's stylesheet.

``series`` is the class that gives a row its colour, the same in every chart (``series-1`` to ``series-8``); ``strong``
marks the row that matters most. A mark with an unknown value is named in the chart as not measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slmops.evaluation.svg import (
    Box,
    Frame,
    Scale,
    Svg,
    leader,
    linear_scale,
    log_scale,
    place_labels,
    shortened,
    spread,
    text_width,
)

_FONT = 12
_UNKNOWN = "not measured"
_MOST_STRIP_POINTS = 80
_MOST_CURVE_POINTS = 160


@dataclass(frozen=True)
class Dot:
    """A row of :func:`interval_chart`; ``text`` is the value as it is printed."""

    label: str
    series: str
    value: float | None
    interval: tuple[float, float] | None
    text: str
    strong: bool = False


@dataclass(frozen=True)
class Point:
    """A point of :func:`scatter_chart`."""

    label: str
    series: str
    x: float
    y: float
    tip: str
    strong: bool = False


@dataclass(frozen=True)
class Curve:
    """A line of :func:`curve_chart`: (step, loss) pairs, and those on validation rows where there are any."""

    label: str
    series: str
    training: Sequence[tuple[float, float]]
    validation: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Strip:
    """A row of :func:`strip_chart`: single values, all above zero; may be empty."""

    label: str
    series: str
    values: Sequence[float]
    strong: bool = False


@dataclass(frozen=True)
class Bar:
    """A row of :func:`bar_chart`; ``text`` is the value as it is printed."""

    label: str
    series: str
    value: float
    text: str


def bar_chart(bars: Sequence[Bar], frame: Frame, *, axis: str) -> str:
    """A bar from zero for each row, in the order given."""
    rows = _Rows(frame, [bar.label for bar in bars], right=text_width(max((bar.text for bar in bars), key=len), _FONT) + 8)
    scale = Scale(0, max(bar.value for bar in bars) * 1.02 or 1, rows.left, rows.right)
    rows.axis(scale, axis)
    for index, bar in enumerate(bars):
        y = rows.label(index, strong=False)
        width = max(scale(bar.value) - rows.left, 1)
        rows.svg.add(
            "rect", f"bar {bar.series}", x=rows.left, y=y - 6, width=width, height=12, rx=2, tip=f"{bar.label}: {bar.text}"
        )
        rows.svg.text("value", frame.width - 2, y + 4, bar.text, "end")
    return str(rows.svg)


def interval_chart(dots: Sequence[Dot], frame: Frame, *, axis: str, reference: float | None = None) -> str:
    """A dot with its interval for each row, in the order given; a dashed line at ``reference``."""
    values = [value for dot in dots for value in (dot.value, *(dot.interval or ())) if value is not None]
    inside = all(0 <= value <= 1 for value in values)
    rows = _Rows(frame, [dot.label for dot in dots], right=52)
    scale = linear_scale(values, rows.left, rows.right, floor=0 if inside else None, top=1 if inside else None)
    rows.axis(scale, axis)
    if reference is not None:
        rows.svg.line("reference", scale(reference), rows.top, scale(reference), rows.bottom)
    for index, dot in enumerate(dots):
        y = rows.label(index, strong=dot.strong)
        if dot.value is None:
            rows.svg.text("muted", rows.left, y + 4, _UNKNOWN)
            continue
        if dot.interval is not None:
            low, high = scale(dot.interval[0]), scale(dot.interval[1])
            rows.svg.line(f"whisker {dot.series}", low, y, high, y)
            for end in (low, high):
                rows.svg.line(f"whisker {dot.series}", end, y - 4, end, y + 4)
        rows.svg.marker(dot.series, scale(dot.value), y, strong=dot.strong, tip=f"{dot.label}: {dot.text}")
        rows.svg.text("value strong" if dot.strong else "value", frame.width - 2, y + 4, dot.text, "end")
    return str(rows.svg)


def strip_chart(strips: Sequence[Strip], frame: Frame, *, axis: str) -> str:
    """Single values of each row on a logarithmic axis, over a box of the middle half, a median and 5 % to 95 % whiskers."""
    rows = _Rows(frame, [strip.label for strip in strips], right=10)
    # The values beyond the 99th percentile would squeeze all others together.
    shown = {index: _at_most(sorted(strip.values), _MOST_STRIP_POINTS) for index, strip in enumerate(strips) if strip.values}
    scale = log_scale([value for values in shown.values() for value in values], rows.left, rows.right)
    rows.axis(scale, axis)
    for index, strip in enumerate(strips):
        y = rows.label(index, strong=strip.strong)
        if index not in shown:
            rows.svg.text("muted", rows.left, y + 4, _UNKNOWN)
            continue
        p5, p25, p50, p75, p95 = (scale(float(value)) for value in np.quantile(strip.values, [0.05, 0.25, 0.5, 0.75, 0.95]))
        rows.svg.line(f"whisker {strip.series}", p5, y, p95, y)
        rows.svg.add("rect", f"box {strip.series}", x=p25, y=y - 8, width=max(p75 - p25, 1), height=16, rx=2)
        # Steps of the golden ratio spread neighbours evenly without randomness.
        specks = [(scale(value), y - 7 + 14 * (at * 0.618034 % 1)) for at, value in enumerate(shown[index])]
        rows.svg.add("path", f"specks {strip.series}", d="".join(f"M{x:.1f} {height:.1f}h0" for x, height in specks))
        rows.svg.line(f"median {strip.series}", p50, y - 10, p50, y + 10)
    return str(rows.svg)


def scatter_chart(points: Sequence[Point], frame: Frame, *, x_axis: str, y_axis: str, higher: bool = True) -> str:
    """Quality (linear) against a cost (logarithmic, lower is better) with the Pareto front as a stepped line.

    Args:
        points: All with ``x`` above zero.
        frame: Size and texts.
        x_axis: Name and unit of the cost.
        y_axis: Name and unit of the quality.
        higher: Whether a higher quality is the better one.
    """
    height = 330 if frame.narrow else 360
    plot = Box(46, 46, frame.width - 12, height - 44)
    svg = Svg(frame, height)
    x = log_scale([point.x for point in points], plot.left, plot.right)
    inside = all(0 <= point.y <= 1 for point in points)
    y = linear_scale(
        [point.y for point in points], plot.bottom, plot.top, floor=0 if inside else None, top=1.02 if inside else None
    )
    _y_axis(svg, y, plot, y_axis)
    for value, text in x.ticks(44):
        svg.text("tick", x(value), plot.bottom + 17, text, "middle")
        svg.line("grid", x(value), plot.top, x(value), plot.bottom)
    svg.text("axis", plot.right, height - 8, x_axis, "end")
    places = [(x(point.x), y(point.y)) for point in points]
    front = pareto_front([(point.x, point.y if higher else -point.y) for point in points])
    steps = [places[front[0]]]
    for index in front[1:]:
        steps += [(places[index][0], steps[-1][1]), places[index]]
    svg.path("front", steps)
    lines = [_line_box(a, b) for a, b in itertools.pairwise(steps)]
    widths = [text_width(point.label, _FONT) * (1.1 if point.strong else 1) for point in points]
    room = Box(plot.left, plot.top - 24, plot.right + 10, plot.bottom)
    for point, place, box in zip(points, places, place_labels(places, widths, _FONT, room, lines), strict=True):
        if end := leader(place, box):
            svg.line("leader", *place, *end)
        look = "label halo strong" if point.strong else "label halo"
        at, anchor = ((box.left + box.right) / 2, "middle")
        if box.left > place[0] or box.right < place[0]:
            at, anchor = (box.left, "start") if box.left > place[0] else (box.right, "end")
        svg.text(look, at, box.bottom - 3.5, point.label, anchor)
    for point, place in zip(points, places, strict=True):
        svg.marker(point.series, *place, strong=point.strong, tip=point.tip)
    return str(svg)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, quality) points that no other point beats in one and matches in the other, cheapest first."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def curve_chart(curves: Sequence[Curve], frame: Frame, *, x_axis: str, y_axis: str) -> str:
    """A line for each training, smoothed over the single steps shown faintly behind it; validation is dashed with dots."""
    height = 330 if frame.narrow else 360
    room = max(text_width(curve.label, _FONT) for curve in curves) + 16
    plot = Box(46, 30, frame.width - min(room, frame.width * 0.36), height - 44)
    svg = Svg(frame, height)
    every = [pair for curve in curves for pair in (*curve.training, *curve.validation)]
    x = Scale(0, max(step for step, _ in every) or 1, plot.left, plot.right)
    floor = 0 if all(loss >= 0 for _, loss in every) else None
    y = linear_scale([loss for _, loss in every], plot.bottom, plot.top, floor=floor)
    _y_axis(svg, y, plot, y_axis)
    for value, text in x.ticks(44):
        svg.text("tick", x(value), plot.bottom + 17, text, "middle")
    svg.text("axis", plot.right, height - 8, x_axis, "end")
    ends = []
    for curve in curves:
        smooth = _smoothed(curve.training)
        svg.path(f"raw {curve.series}", [(x(step), y(loss)) for step, loss in _thinned(curve.training)])
        line = [(x(step), y(loss)) for step, loss in smooth]
        svg.path(f"curve {curve.series}", line)
        ends.append(line[-1])
        if curve.validation:
            dots = [(x(step), y(loss)) for step, loss in curve.validation]
            svg.path(f"validation {curve.series}", dots)
            for dot in dots:
                svg.add("circle", f"hollow {curve.series}", cx=dot[0], cy=dot[1], r=2.6)
    heights = spread([end[1] for end in ends], _FONT + 4, plot.top + 6, plot.bottom - 2)
    for curve, end, place in zip(curves, ends, heights, strict=True):
        svg.line(f"tie {curve.series}", end[0] + 2, end[1], plot.right + 8, place)
        room = frame.width - plot.right - 12
        svg.text(f"label ink {curve.series}", plot.right + 11, place + 4, shortened(curve.label, room, _FONT))
    return str(svg)


def heat_chart(labels: Sequence[str], matrix: Sequence[Sequence[int]], frame: Frame) -> str:
    """A confusion matrix: a line for each expected label, a column for each answer.

    The shade is the share of the line's rows; right answers and wrong ones have different colours.
    """
    # With many labels the text gets smaller, and the image wider than its frame before the text cannot be read.
    size = max(8, min(10 if frame.narrow else 12, int(0.6 * frame.width / len(labels))))
    margin = min(max(text_width(label, size) for label in labels), frame.width * 0.32) + 8
    slanted = not frame.narrow and (frame.width - 1.6 * margin) / len(labels) >= 24
    beyond = 0.6 * margin if slanted else 4
    cell = max(size + 2.0, min(32.0, (frame.width - margin - beyond) / len(labels)))
    names = [shortened(label, margin - 8, size) for label in labels]
    top = margin * (0.74 if slanted else 1) + 22
    svg = Svg(frame, top + cell * len(labels) + 6, width=max(frame.width, margin + cell * len(labels) + beyond))
    svg.text("axis", margin - 4, top - 8, "expected ↓", "end")
    svg.text("axis", margin, 11, "answered →")
    for index, name in enumerate(names):
        middle = margin + cell * (index + 0.5)
        svg.text("tick", middle + (0 if slanted else size * 0.36), top - 6, name, size=size, turn=-48 if slanted else -90)
        svg.text("tick", margin - 6, top + cell * (index + 0.5) + size * 0.36, name, "end", size=size)
    svg.add("rect", "field", x=margin, y=top, width=cell * len(labels), height=cell * len(labels))
    for row, (label, counts) in enumerate(zip(labels, matrix, strict=True)):
        for column, found in enumerate(counts):
            if not found:
                continue
            share = found / sum(counts)
            x, y = margin + column * cell, top + row * cell
            kind = "right" if row == column else "wrong"
            tip = f"{label} answered as {labels[column]}: {found} of {sum(counts)}"
            shade = f"{0.14 + 0.86 * share:.2f}"
            svg.add("rect", f"cell {kind}", x=x + 0.5, y=y + 0.5, width=cell - 1, height=cell - 1, fill_opacity=shade, tip=tip)
            look = "count over" if share > 0.5 else "count"
            small = max(7, min(12, int(cell * (0.52 if found < 100 else 0.4))))
            if cell >= 11:
                svg.text(look, x + cell / 2, y + cell / 2 + small * 0.36, str(found), "middle", size=small)
    return str(svg)


def difference_chart(difference: float, interval: tuple[float, float], frame: Frame, *, bound: float) -> str:
    """A difference with its interval beside zero, small enough for a table's cell; the axis is -bound to bound."""
    svg = Svg(frame, 22)
    scale = Scale(-bound, bound, 8, frame.width - 8)
    svg.line("zero", scale(0), 1, scale(0), 21)
    svg.line("whisker ink", scale(interval[0]), 11, scale(interval[1]), 11)
    for end in interval:
        svg.line("whisker ink", scale(end), 8, scale(end), 14)
    svg.add("circle", "dot ink", cx=scale(difference), cy=11, r=4)
    return str(svg)


class _Rows:
    """A chart with one line for each row: labels at the left, or above the marks on a phone, and an axis below."""

    def __init__(self, frame: Frame, labels: Sequence[str], *, right: float) -> None:
        self.step = 46 if frame.narrow else 34
        room = 2.0 if frame.narrow else min(max(text_width(label, _FONT) for label in labels), frame.width * 0.44)
        self.left = room + 14
        self.right = frame.width - right
        self.top = 6
        self.bottom = self.top + self.step * len(labels) + 4
        self.labels = labels
        self.frame = frame
        self.svg = Svg(frame, self.bottom + 44)

    def axis(self, scale: Scale, name: str) -> None:
        for value, text in scale.ticks(44):
            self.svg.line("grid", scale(value), self.top, scale(value), self.bottom)
            self.svg.text("tick", scale(value), self.bottom + 16, text, "middle")
        self.svg.text("axis", self.right, self.bottom + 36, name, "end")

    def label(self, index: int, *, strong: bool) -> float:
        """Write the label of a row and return the height of its marks."""
        middle = self.top + self.step * (index + 0.5)
        look = "label strong" if strong else "label"
        if self.frame.narrow:
            self.svg.text(look, 2, middle - 6, shortened(self.labels[index], self.frame.width - 60, _FONT))
            return middle + 7
        self.svg.text(look, self.left - 14, middle + 4, shortened(self.labels[index], self.left - 14, _FONT), "end")
        return middle


def _y_axis(svg: Svg, scale: Scale, plot: Box, name: str) -> None:
    for value, text in scale.ticks(40):
        svg.line("grid", plot.left, scale(value), plot.right, scale(value))
        svg.text("tick", plot.left - 7, scale(value) + 4, text, "end")
    svg.text("axis", 2, 14, name)


def _line_box(a: tuple[float, float], b: tuple[float, float]) -> Box:
    return Box(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1)


def _at_most(values: Sequence[float], count: int) -> list[float]:
    if len(values) <= count:
        return list(values)
    return [float(value) for value in np.quantile(values, np.linspace(0, 0.99, count))]


def _thinned(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    groups = np.array_split(np.asarray(pairs, dtype=float), min(len(pairs), _MOST_CURVE_POINTS))
    return [(float(group[:, 0].mean()), float(group[:, 1].mean())) for group in groups]


def _smoothed(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean over a window of about a tenth of the steps, centred on the step and narrower near both ends."""
    losses = np.concatenate([[0.0], np.cumsum([loss for _, loss in pairs])])
    most = len(pairs) // 20
    smooth = []
    for index, (step, _) in enumerate(pairs):
        half = min(most, index, len(pairs) - 1 - index)
        smooth.append((step, float(losses[index + half + 1] - losses[index - half]) / (2 * half + 1)))
    return [smooth[0], *_thinned(smooth), smooth[-1]]
