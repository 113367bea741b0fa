"""Charts with one line for each row, as inline SVG: pure functions of their data; the page's stylesheet has colours and fonts.

``series`` is the class that gives a row its colour, the same in every chart (``series-1`` to ``series-9``); ``strong``
marks the row that matters most. A mark with an unknown value is named in the chart as not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slmops.evaluation.svg import FONT, Frame, Scale, Svg, linear_scale, log_scale, shortened, text_width

_UNKNOWN = "not measured"
_MOST_STRIP_POINTS = 80


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
    rows = _Rows(frame, [bar.label for bar in bars], right=text_width(max((bar.text for bar in bars), key=len), FONT) + 8)
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
        room = 2.0 if frame.narrow else min(max(text_width(label, FONT) for label in labels), frame.width * 0.44)
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
            self.svg.text(look, 2, middle - 6, shortened(self.labels[index], self.frame.width - 60, FONT))
            return middle + 7
        self.svg.text(look, self.left - 14, middle + 4, shortened(self.labels[index], self.left - 14, FONT), "end")
        return middle


def _at_most(values: Sequence[float], count: int) -> list[float]:
    if len(values) <= count:
        return list(values)
    return [float(value) for value in np.quantile(values, np.linspace(0, 0.99, count))]
