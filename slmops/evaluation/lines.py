"""Charts of lines with their names at the right, as inline SVG, in the manner of ``charts``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slmops.evaluation.labels import Box, spread
from slmops.evaluation.svg import FONT, Frame, Scale, Svg, linear_scale, log_scale, shortened, text_width

_MOST_CURVE_POINTS = 160


@dataclass(frozen=True)
class Curve:
    """A line of :func:`curve_chart`: (step, loss) pairs, and those on validation rows where there are any."""

    label: str
    series: str
    training: Sequence[tuple[float, float]]
    validation: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line of :func:`load_chart` or :func:`reliability_chart`: (x, y, size of the dot from 0 to 1, tip) by x."""

    label: str
    series: str
    dots: Sequence[tuple[float, float, float, str]]
    strong: bool = False


@dataclass(frozen=True)
class Mark:
    """A step of :func:`curve_chart` that is named; ``shaded`` says that what comes after is to be seen as apart."""

    step: float
    text: str
    shaded: bool = False


def curve_chart(curves: Sequence[Curve], frame: Frame, *, x_axis: str, y_axis: str, mark: Mark | None = None) -> str:
    """A line for each training, smoothed over the single steps shown faintly behind it; validation is dashed with dots."""
    height = 330 if frame.narrow else 360
    plot = _plot(frame, height, [curve.label for curve in curves])
    svg = Svg(frame, height)
    every = [pair for curve in curves for pair in (*curve.training, *curve.validation)]
    x = Scale(0, max(step for step, _ in every) or 1, plot.left, plot.right)
    floor = 0 if all(loss >= 0 for _, loss in every) else None
    y = linear_scale([loss for _, loss in every], plot.bottom, plot.top, floor=floor)
    svg.y_axis(y, plot.left, plot.right, y_axis)
    for value, text in x.ticks(44):
        svg.text("tick", x(value), plot.bottom + 17, text, "middle")
    svg.text("axis", plot.right, height - 8, x_axis, "end")
    if mark is not None:
        _mark(svg, plot, frame, x(mark.step), mark)
    ends = []
    for curve in curves:
        svg.path(f"raw {curve.series}", [(x(step), y(loss)) for step, loss in _thinned(curve.training)])
        line = [(x(step), y(loss)) for step, loss in _smoothed(curve.training)]
        svg.path(f"curve {curve.series}", line)
        ends.append(line[-1])
        if curve.validation:
            dots = [(x(step), y(loss)) for step, loss in curve.validation]
            svg.path(f"validation {curve.series}", dots)
            for dot in dots:
                svg.add("circle", f"hollow {curve.series}", cx=dot[0], cy=dot[1], r=2.6)
    _names(svg, plot, frame, [(curve.label, curve.series, False) for curve in curves], ends)
    return str(svg)


def load_chart(lines: Sequence[Line], frame: Frame, *, x_axis: str, y_axis: str, log: bool = False) -> str:
    """A rate against how many requests are under way; numbers of requests have one distance, however far apart.

    Args:
        lines: With ``x`` a number of requests.
        frame: Size and texts.
        x_axis: Name of the numbers of requests.
        y_axis: Name and unit of the rate.
        log: A logarithmic scale for rates, which must then be above zero.
    """
    height = 330 if frame.narrow else 360
    plot = _plot(frame, height, [line.label for line in lines], strong=True)
    svg = Svg(frame, height)
    loads = sorted({dot[0] for line in lines for dot in line.dots})
    rates = [dot[1] for line in lines for dot in line.dots]
    y = log_scale(rates, plot.bottom, plot.top) if log else Scale(0, max(rates) * 1.08 or 1, plot.bottom, plot.top)
    svg.y_axis(y, plot.left, plot.right, y_axis)
    step = (plot.right - plot.left - 24) / max(len(loads) - 1, 1)
    at = {load: plot.left + 12 + step * index for index, load in enumerate(loads)}
    for load, place in at.items():
        svg.text("tick", place, plot.bottom + 17, f"{load:g}", "middle")
    svg.text("axis", plot.right, height - 8, x_axis, "end")
    _draw(svg, plot, frame, lines, [[(at[dot[0]], y(dot[1])) for dot in line.dots] for line in lines])
    return str(svg)


def reliability_chart(lines: Sequence[Line], frame: Frame, *, x_axis: str, y_axis: str) -> str:
    """How often answers are right against how sure the model was; on the dashed diagonal both are one."""
    height = 330 if frame.narrow else 360
    plot = _plot(frame, height, [line.label for line in lines], strong=True)
    svg = Svg(frame, height)
    x, y = Scale(0, 1.02, plot.left, plot.right), Scale(0, 1.02, plot.bottom, plot.top)
    svg.y_axis(y, plot.left, plot.right, y_axis)
    for value, text in x.ticks(44):
        svg.text("tick", x(value), plot.bottom + 17, text, "middle")
    svg.text("axis", plot.right, height - 8, x_axis, "end")
    svg.path("front", [(x(0), y(0)), (x(1), y(1))])
    _draw(svg, plot, frame, lines, [[(x(dot[0]), y(dot[1])) for dot in line.dots] for line in lines])
    return str(svg)


def _mark(svg: Svg, plot: Box, frame: Frame, at: float, mark: Mark) -> None:
    """A line at a step, with its name above the plot: to its right, its left, or as far right as there is room."""
    if mark.shaded:
        svg.add("rect", "beyond", x=at, y=plot.top, width=plot.right - at, height=plot.bottom - plot.top)
    svg.line("reference", at, plot.top - 4, at, plot.bottom)
    width = text_width(mark.text, FONT)
    left = at + 4 if at + 4 + width <= frame.width else at - 4 - width
    svg.text("label", max(2, left), plot.top - 3, mark.text)


def _plot(frame: Frame, height: float, labels: Sequence[str], *, strong: bool = False) -> Box:
    room = max(text_width(label, FONT) for label in labels) * (1.1 if strong else 1) + 16
    return Box(46, 30, frame.width - min(room, frame.width * 0.36), height - 44)


def _draw(svg: Svg, plot: Box, frame: Frame, lines: Sequence[Line], places: Sequence[Sequence[tuple[float, float]]]) -> None:
    for line, path in zip(lines, places, strict=True):
        svg.path(f"curve {line.series}" if line.strong else f"curve thin {line.series}", path)
        for place, (_, _, size, tip) in zip(path, line.dots, strict=True):
            svg.add("circle", f"dot {line.series}", cx=place[0], cy=place[1], r=2.5 + 5 * size, tip=f"{line.label}: {tip}")
    _names(svg, plot, frame, [(line.label, line.series, line.strong) for line in lines], [path[-1] for path in places])


def _names(svg: Svg, plot: Box, frame: Frame, names: Sequence[tuple[str, str, bool]], ends: Sequence[tuple[float, float]]) -> None:
    """Write names at the right, tied to where their lines end."""
    heights = spread([end[1] for end in ends], FONT + 4, plot.top + 6, plot.bottom - 2)
    room = frame.width - plot.right - 12
    for (label, series, strong), end, place in zip(names, ends, heights, strict=True):
        svg.line(f"tie {series}", end[0] + 2, end[1], plot.right + 8, place)
        look = f"label strong ink {series}" if strong else f"label ink {series}"
        svg.text(look, plot.right + 11, place + 4, shortened(label, room / 1.1 if strong else room, FONT))


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
