"""Building blocks of the charts: an SVG element tree, scales with their ticks, and labels that do not overlap."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len

FONT = 12
"""Size of labels in pixels."""

CHARACTER = 0.6
"""Width of an average character as a share of the font size; on the wide side, since the reader's font is unknown."""


@dataclass(frozen=True)
class Frame:
    """What every chart needs to be told.

    Args:
        name: Unique on the page; the ids of title and description are made from it.
        width: In CSS pixels; below 440 the chart takes the form for a phone.
        title: For screen readers.
        description: For screen readers: the figures that a sighted reader would take from the chart.
    """

    name: str
    width: int
    title: str
    description: str

    @property
    def narrow(self) -> bool:
        """Whether labels go above their marks instead of beside them."""
        return self.width < 440


class Svg:
    """An SVG image; the page's stylesheet gives classes their colours, so it follows the light or dark scheme.

    Args:
        frame: Width and texts.
        height: In CSS pixels.
        width: For an image that cannot be as narrow as its frame; the page lets it scroll sideways.
    """

    def __init__(self, frame: Frame, height: float, *, width: float | None = None) -> None:
        key = f"{frame.name}-{frame.width}"
        self.root = ET.Element("svg", {"viewBox": f"0 0 {_short(width or frame.width)} {_short(height)}", "role": "img"})
        if width is not None and width > frame.width:
            self.root.set("style", f"min-width:{_short(width)}px")
        self.root.set("aria-labelledby", f"{key}-title {key}-desc")
        ET.SubElement(self.root, "title", {"id": f"{key}-title"}).text = frame.title
        ET.SubElement(self.root, "desc", {"id": f"{key}-desc"}).text = frame.description

    def add(self, tag: str, look: str, *, text: str = "", tip: str = "", **attributes: float | str) -> ET.Element:
        """Append an element with the class ``look``; ``tip`` shows when the pointer rests on it."""
        values = {name.replace("_", "-"): value if isinstance(value, str) else _short(value) for name, value in attributes.items()}
        element = ET.SubElement(self.root, tag, {"class": look, **values})
        element.text = text or None
        if tip:
            ET.SubElement(element, "title").text = tip
        return element

    def line(self, look: str, x1: float, y1: float, x2: float, y2: float) -> None:
        """A straight line."""
        self.add("line", look, x1=x1, y1=y1, x2=x2, y2=y2)

    def text(self, look: str, x: float, y: float, text: str, anchor: str = "start", *, size: int = 0, turn: float = 0) -> None:
        """Text whose baseline starts, is centred or ends at a point, turned about that point by degrees.

        Args:
            look: Class.
            x: Of the point.
            y: Of the point.
            text: What to write.
            anchor: ``start``, ``middle`` or ``end``.
            size: In pixels; 0 leaves it to the class.
            turn: In degrees, clockwise.
        """
        extra = {"style": f"font-size:{size}px"} if size else {}
        if turn:
            extra["transform"] = f"rotate({turn:.0f} {x:.1f} {y:.1f})"
        self.add("text", look, text=text, tip="", x=x, y=y, text_anchor=anchor, **extra)

    def path(self, look: str, points: Iterable[tuple[float, float]]) -> None:
        """A line through points."""
        steps = [f"{_short(x)} {_short(y)}" for x, y in points]
        self.add("path", look, d="M" + "L".join(steps))

    def y_axis(self, scale: Scale, left: float, right: float, name: str) -> None:
        """Values and lines of a vertical scale between two pixels, and its name above."""
        for value, text in scale.ticks(40):
            self.line("grid", left, scale(value), right, scale(value))
            self.text("tick", left - 7, scale(value) + 4, text, "end")
        self.text("axis", 2, 14, name)

    def marker(self, series: str, x: float, y: float, *, strong: bool, tip: str = "") -> None:
        """A dot, or for the row that matters most a larger one with a ring."""
        if strong:
            self.add("circle", f"ring {series}", cx=x, cy=y, r=8.5)
        self.add("circle", f"dot {series}", cx=x, cy=y, r=5.5 if strong else 4.5, tip=tip)

    def __str__(self) -> str:
        return ET.tostring(self.root, encoding="unicode")


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels, linearly or by logarithm; ``low`` and ``high`` are the values at both ends."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, spacing: float) -> list[tuple[float, str]]:
        """Round values at least ``spacing`` pixels apart, with their text."""
        values = self._log_ticks(spacing) if self.log else self._linear_ticks(spacing)
        if self.log or len(values) < 2:
            return [(value, f"{value:,.10g}") for value in values]
        decimals = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
        if not math.isclose(round(values[1] - values[0], decimals), values[1] - values[0]):
            decimals += 1
        return [(value, f"{value:,.{decimals}f}") for value in values]

    def _linear_ticks(self, spacing: float) -> list[float]:
        step = _round_step((self.high - self.low) * spacing / abs(self.end - self.start))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def _log_ticks(self, spacing: float) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            values = [digit * 10.0**power for power in powers for digit in digits]
            values = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
            pixels = [self(value) for value in values]
            if all(abs(b - a) >= spacing for a, b in itertools.pairwise(pixels)):
                return values
        every = math.ceil(spacing / (abs(self.end - self.start) / max(len(values) - 1, 1)))
        return values[::every]


def linear_scale(
    values: Iterable[float], start: float, end: float, *, floor: float | None = None, top: float | None = None
) -> Scale:
    """A scale with some room around the values, not past ``floor`` and ``top``."""
    values = list(values)
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    return Scale(low if floor is None else max(low, floor), high if top is None else min(high, top), start, end)


def log_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """A logarithmic scale with some room around the values, which must be above zero."""
    values = list(values)
    low, high = min(values), max(values)
    room = (high / low) ** 0.08 if high > low else 1.5
    return Scale(low / room, high * room, start, end, log=True)


def text_width(text: str, size: float) -> float:
    """Estimated width of a text in pixels."""
    return cell_len(text) * size * CHARACTER


def shortened(text: str, room: float, size: float) -> str:
    """The text, cut with an ellipsis where it is wider than ``room`` pixels."""
    most = max(2, int(room / (size * CHARACTER)))
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= step * 0.999)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
