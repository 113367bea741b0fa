"""Charts as SVG: well-formed, complete, inside their frame, labels apart."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from slmops.evaluation.charts import Bar, Dot, Strip, bar_chart, interval_chart, strip_chart
from slmops.evaluation.labels import Box, place_labels, spread
from slmops.evaluation.plots import Point, pareto_front, scatter_chart
from slmops.evaluation.svg import Frame, linear_scale, log_scale
from tests.unit.evaluation.svg_marks import WIDTHS, frame, marks, texts


@WIDTHS
def test_an_interval_chart_has_a_dot_and_a_whisker_for_each_known_value(width: int) -> None:
    dots = [
        Dot("teacher", "series-1", 0.80, (0.76, 0.84), "0.800"),
        Dot("packaged", "series-8", 0.86, (0.82, 0.89), "0.860", strong=True),
        Dot("unknown", "series-2", None, None, "–"),
    ]
    svg = interval_chart(dots, frame(width), axis="Accuracy", reference=0.80)
    teacher, packaged = (float(dot.attrib["cx"]) for dot in marks(svg, "circle", "dot"))
    assert teacher < packaged
    whisker = marks(svg, "line", "whisker")[0]
    assert float(whisker.attrib["x1"]) < teacher < float(whisker.attrib["x2"])
    assert float(marks(svg, "line", "reference")[0].attrib["x1"]) == teacher
    assert {"teacher", "packaged", "unknown", "not measured", "0.860", "Accuracy"} <= set(texts(svg))


def test_charts_say_what_they_show_to_screen_readers_and_escape_it() -> None:
    dots = [Dot("<b>&", "series-1", 0.5, None, "0.500")]
    svg = interval_chart(dots, Frame("quality", 500, "a < b", 'he said "x"'), axis="Accuracy")
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "quality-500-title quality-500-desc"
    assert [root[0].text, root[1].text] == ["a < b", 'he said "x"']
    assert "<b>&" in texts(svg)
    assert "<b>" not in svg


def test_the_pareto_front_has_the_rows_that_nothing_beats() -> None:
    cheap, good, best, dear, poor = (1, 0.6), (10, 0.8), (50, 0.9), (200, 0.85), (40, 0.5)
    assert pareto_front([dear, good, cheap, poor, best]) == [2, 1, 4]


def test_of_two_rows_as_cheap_only_the_better_is_on_the_front() -> None:
    assert pareto_front([(10, 0.7), (10, 0.8), (20, 0.8)]) == [1]


@WIDTHS
@pytest.mark.parametrize("higher", [True, False])
def test_a_scatter_chart_puts_faster_left_and_higher_up(width: int, higher: bool) -> None:
    points = [Point("slow", "series-1", 247, 0.80, "tip"), Point("fast", "series-8", 36.5, 0.86, "tip", strong=True)]
    svg = scatter_chart(points, frame(width), x_axis="Latency (ms)", y_axis="Accuracy", higher=higher)
    slow, fast = ((float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in marks(svg, "circle", "dot"))
    assert fast[0] < slow[0]
    assert fast[1] < slow[1]
    corners = marks(svg, "path", "front")[0].attrib["d"].count("L")
    assert corners == (0 if higher else 2)  # where lower is better, the slow row is the better one


@WIDTHS
def test_labels_of_crowded_points_do_not_overlap(width: int) -> None:
    points = [(150 + 4 * (index % 3), 60.0 + 12 * index) for index in range(8)]
    plot = Box(46, 22, width, 300)
    boxes = place_labels(points, [86.0] * 8, 12, plot, [])
    for index, box in enumerate(boxes):
        assert box.outside(plot) == 0
        assert all(box.overlap(other) == 0 for other in boxes[index + 1 :])
        assert all(box.overlap(Box(x - 4, y - 4, x + 4, y + 4)) == 0 for x, y in points)


def test_spread_keeps_order_and_distance_between_bounds() -> None:
    placed = spread([100, 101, 99, 10], 16, 0, 110)
    assert sorted(placed) == [10, 78, 94, 110]
    assert placed.index(min(placed[:3])) == 2


@WIDTHS
def test_a_strip_chart_has_a_box_around_the_median_of_each_measured_row(width: int) -> None:
    values = [10 * 1.01**index for index in range(300)]
    svg = strip_chart([Strip("a", "series-1", values), Strip("b", "series-2", [])], frame(width), axis="ms")
    (box,) = marks(svg, "rect", "box")
    median = float(marks(svg, "line", "median")[0].attrib["x1"])
    left, wide = float(box.attrib["x"]), float(box.attrib["width"])
    assert left < median < left + wide
    assert "not measured" in texts(svg)
    assert marks(svg, "path", "specks")[0].attrib["d"].count("M") == 80


@pytest.mark.parametrize("values", [[0.3, 247], [36, 44], [100], [1e-3, 1e6]])
def test_logarithmic_ticks_are_round_and_apart(values: list[float]) -> None:
    scale = log_scale(values, 40, 300)
    ticks = scale.ticks(44)
    assert ticks
    assert all(
        f"{value:e}".partition("e")[0].rstrip("0").rstrip(".") in {"1", "1.5", "2", "3", "4", "5", "7"} for value, _ in ticks
    )
    pixels = [scale(value) for value, _ in ticks]
    assert all(b - a >= 43.9 for a, b in pairwise(pixels))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]), ([0.81, 0.86], ["0.81", "0.82", "0.83", "0.84", "0.85", "0.86"])],
)
def test_linear_ticks_have_the_decimals_they_need(values: list[float], expected: list[str]) -> None:
    assert [text for _, text in linear_scale(values, 0, 300).ticks(44)] == expected


def test_a_scale_of_one_value_has_room_around_it() -> None:
    assert math.isclose(linear_scale([0.8], 0, 100)(0.8), 50)
    assert math.isclose(log_scale([36.5], 0, 100)(36.5), 50)


@WIDTHS
def test_bars_start_at_zero_and_are_as_long_as_their_values(width: int) -> None:
    bars = [Bar("good", "series-5", 300, "300"), Bar("a <b>", "series-2", 150, "150"), Bar("none", "series-2", 0, "0")]
    svg = bar_chart(bars, frame(width), axis="rows")
    lengths = [float(bar.get("width", "")) for bar in marks(svg, "rect", "bar")]
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.01)
    assert lengths[2] == 1
    assert len({bar.get("x") for bar in marks(svg, "rect", "bar")}) == 1
    assert {"good", "a <b>", "none", "300", "150", "0", "rows"} <= set(texts(svg))


@WIDTHS
def test_a_point_with_an_interval_has_an_error_bar_that_stays_in_the_plot(width: int) -> None:
    points = [Point("slow", "series-1", 247, 0.80, "tip", interval=(0.6, 0.95)), Point("fast", "series-8", 36.5, 0.86, "tip")]
    svg = scatter_chart(points, frame(width), x_axis="Latency (ms)", y_axis="Accuracy")
    (dot,) = (dot for dot in marks(svg, "circle", "dot") if "series-1" in dot.attrib["class"])
    bar, *caps = marks(svg, "line", "error")
    assert bar.attrib["x1"] == bar.attrib["x2"] == dot.attrib["cx"]
    assert float(bar.attrib["y2"]) < float(dot.attrib["cy"]) < float(bar.attrib["y1"])
    assert float(bar.attrib["y2"]) >= 46
    assert len(caps) == 2
