"""Labels of a chart's points that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    def outside(self, plot: Box) -> float:
        """How many pixels it sticks out of ``plot``, over all sides."""
        sides = (plot.left - self.left, plot.top - self.top, self.right - plot.right, self.bottom - plot.bottom)
        return sum(max(0.0, side) for side in sides)


def place_labels(
    points: Sequence[tuple[float, float]], widths: Sequence[float], size: float, plot: Box, lines: Sequence[Box]
) -> list[Box]:
    """A box for each point's label: near its point, in the plot, over no other label, leader, point or line where possible.

    Positions around a point are tried from near to far, the points with the nearest neighbours first; where none is
    free the one with the least overlap is taken.
    """
    taken = [Box(x - 10, y - 10, x + 10, y + 10) for x, y in points]
    boxes: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda at: sum(math.dist(points[at], other) for other in points)):
        others = [box for at, box in enumerate(taken) if at != index]
        least, chosen = math.inf, list[Box]()
        for box in _around(points[index], widths[index], size):
            clash = 40 * box.outside(plot) + sum(box.overlap(other) for other in (*others, *lines))
            if clash >= least:
                continue
            tie = _tie_boxes(points[index], box)
            clash += sum(piece.overlap(other) for piece in tie for other in others)
            if clash < least:
                least, chosen = clash, [box, *tie]
            if clash == 0:
                break
        boxes[index] = chosen[0]
        taken += chosen
    return [boxes[index] for index in range(len(points))]


def leader(point: tuple[float, float], box: Box) -> tuple[float, float] | None:
    """Where a line from the point meets its label's box, or None where they are too near to need one."""
    x = min(max(point[0], box.left), box.right)
    y = min(max(point[1], box.top), box.bottom)
    return (x, y) if math.dist(point, (x, y)) > 14 else None


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The positions moved as little as needed so that neighbours are ``gap`` apart, between ``low`` and ``high``."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = list(positions)
    bound = low
    for index in order:
        placed[index] = bound = max(placed[index], bound)
        bound += gap
    bound = high
    for index in reversed(order):
        placed[index] = bound = min(placed[index], bound)
        bound -= gap
    return placed


def _around(point: tuple[float, float], width: float, size: float) -> Iterable[Box]:
    height = size * 1.25
    for distance in (11, 16, 24, 34, 46, 60, 76, 96, 120):
        for angle in (0, 180, 270, 90, 330, 210, 30, 150, 300, 240, 60, 120):
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = point[0] + dx * distance, point[1] + dy * distance
            left = x - width / 2 if abs(dx) < 0.1 else x if dx > 0 else x - width
            top = y - height / 2 + dy * height / 2
            yield Box(left, top, left + width, top + height)


def _tie_boxes(point: tuple[float, float], box: Box) -> list[Box]:
    end = leader(point, box)
    if end is None:
        return []
    spots = [(point[0] + (end[0] - point[0]) * share / 8, point[1] + (end[1] - point[1]) * share / 8) for share in range(1, 8)]
    return [Box(x - 1.5, y - 1.5, x + 1.5, y + 1.5) for x, y in spots]
