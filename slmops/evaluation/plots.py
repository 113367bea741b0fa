"""Quality against a cost as inline SVG, in the manner of ``charts``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from slmops.evaluation.labels import Box, leader, place_labels
from slmops.evaluation.svg import FONT, Frame, Svg, linear_scale, log_scale, text_width


@dataclass(frozen=True)
class Point:
    """A point of :func:`scatter_chart`, with an error bar where ``y`` has an interval."""

    label: str
    series: str
    x: float
    y: float
    tip: str
    strong: bool = False
    interval: tuple[float, float] | None = None


def scatter_chart(
    points: Sequence[Point],
    frame: Frame,
    *,
    x_axis: str,
    y_axis: str,
    higher: bool = True,
    x_higher: bool = False,
    x_log: bool = True,
) -> str:
    """Quality (linear) against a cost (logarithmic, lower is better) with the Pareto front as a stepped line.

    Args:
        points: All with ``x`` above zero, where its scale is logarithmic.
        frame: Size and texts.
        x_axis: Name and unit of the cost.
        y_axis: Name and unit of the quality.
        higher: Whether a higher quality is the better one.
        x_higher: The same of the cost, which is then none.
        x_log: Whether its scale is logarithmic.
    """
    height = 330 if frame.narrow else 360
    plot = Box(46, 46, frame.width - 12, height - 44)
    svg = Svg(frame, height)
    x = (log_scale if x_log else linear_scale)([point.x for point in points], plot.left, plot.right)
    reach = [value for point in points for value in (point.y, *(point.interval or ()))]
    inside = all(0 <= value <= 1 for value in reach)
    y = linear_scale(reach, plot.bottom, plot.top, floor=0 if inside else None, top=1.02 if inside else None)
    svg.y_axis(y, plot.left, plot.right, y_axis)
    for value, text in x.ticks(44):
        svg.text("tick", x(value), plot.bottom + 17, text, "middle")
        svg.line("grid", x(value), plot.top, x(value), plot.bottom)
    svg.text("axis", plot.right, height - 8, x_axis, "end")
    places = [(x(point.x), y(point.y)) for point in points]
    front = pareto_front([(-point.x if x_higher else point.x, point.y if higher else -point.y) for point in points])
    steps = [places[front[0]]]
    for index in front[1:]:
        steps += [(places[index][0], steps[-1][1]), places[index]]
    svg.path("front", steps)
    lines = [_line_box(a, b) for a, b in itertools.pairwise(steps)]
    for point, (at, _) in zip(points, places, strict=True):
        if point.interval is not None:
            low, high = y(point.interval[0]), y(point.interval[1])
            svg.line(f"error {point.series}", at, low, at, high)
            for cap in (low, high):
                svg.line(f"error {point.series}", at - 3, cap, at + 3, cap)
            lines.append(_line_box((at, high), (at, low)))
    widths = [text_width(point.label, FONT) * (1.1 if point.strong else 1) for point in points]
    room = Box(plot.left, plot.top - 24, plot.right + 10, plot.bottom)
    for point, place, box in zip(points, places, place_labels(places, widths, FONT, room, lines), strict=True):
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


def _line_box(a: tuple[float, float], b: tuple[float, float]) -> Box:
    return Box(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1)
