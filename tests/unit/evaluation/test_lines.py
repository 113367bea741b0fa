"""Charts of lines: one for each row, names that can be told apart, dots where they belong."""

from __future__ import annotations

import pytest

from slmops.evaluation.lines import Curve, Line, Mark, curve_chart, load_chart, reliability_chart
from slmops.evaluation.svg import text_width
from tests.unit.evaluation.svg_marks import WIDTHS, frame, marks, texts


@WIDTHS
def test_a_curve_chart_has_a_line_a_training_and_dots_for_validation(width: int) -> None:
    falling = [(step, 4 / step) for step in range(1, 401)]
    curves = [Curve("distilled", "series-7", falling, [(200, 0.5), (400, 0.4)]), Curve("control", "series-5", [(1, 3.0)], [])]
    svg = curve_chart(curves, frame(width), x_axis="Step", y_axis="Loss")
    assert len(marks(svg, "path", "curve")) == 2
    assert len(marks(svg, "path", "validation")) == 1
    assert len(marks(svg, "circle", "hollow")) == 2
    assert {"distilled", "control", "Step", "Loss"} <= set(texts(svg))
    heights = [float(pair.split()[1]) for pair in marks(svg, "path", "curve")[0].attrib["d"][1:].split("L")]
    assert heights == sorted(heights)
    assert len(heights) < 200


@WIDTHS
@pytest.mark.parametrize("step", [0, 200, 400])
def test_a_step_is_named_above_the_plot_and_inside_the_chart(width: int, step: int) -> None:
    curves = [Curve("training", "series-8", [(0, 3.0), (400, 1.0)], [])]
    svg = curve_chart(
        curves, frame(width), x_axis="Step", y_axis="Loss", mark=Mark(step, "kept here, then overfitting", shaded=True)
    )
    (name,) = [text for text in marks(svg, "text", "label") if text.text == "kept here, then overfitting"]
    assert float(name.attrib["x"]) >= 2
    assert float(name.attrib["x"]) + text_width("kept here, then overfitting", 12) <= width
    (line,), (shade,) = marks(svg, "line", "reference"), marks(svg, "rect", "beyond")
    assert line.attrib["x1"] == line.attrib["x2"] == shade.attrib["x"]
    assert float(name.attrib["y"]) < float(shade.attrib["y"])
    ends = marks(svg, "path", "curve")[0].attrib["d"][1:].split("L")
    left, right = (float(ends[place].split()[0]) for place in (0, -1))
    assert float(line.attrib["x1"]) == pytest.approx(left + (right - left) * step / 400, abs=0.2)
    assert not marks(curve_chart(curves, frame(width), x_axis="Step", y_axis="Loss"), "line", "reference")


@WIDTHS
def test_a_load_chart_puts_numbers_of_requests_at_one_distance_and_more_higher_up(width: int) -> None:
    grown = Line("packaged", "series-8", [(1, 10.0, 0.4, "a"), (2, 20.0, 0.4, "b"), (16, 30.0, 0.4, "c")], strong=True)
    svg = load_chart([grown, Line("teacher", "series-1", [(1, 4.0, 0.4, "d")])], frame(width), x_axis="At once", y_axis="Rate")
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in marks(svg, "circle", "series-8")]
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.2)
    assert dots[0][1] > dots[1][1] > dots[2][1]
    assert {"1", "2", "16", "At once", "Rate", "packaged", "teacher"} <= set(texts(svg))
    assert len(marks(svg, "path", "thin")) == 1


def test_rates_far_apart_can_be_told_on_a_logarithmic_scale() -> None:
    lines = [Line("fast", "series-1", [(1, 3000.0, 0.4, "")]), Line("slow", "series-2", [(1, 3.0, 0.4, ""), (2, 6.0, 0.4, "")])]
    heights = {}
    for log in (False, True):
        svg = load_chart(lines, frame(), x_axis="At once", y_axis="Rate", log=log)
        slow, twice = (float(dot.attrib["cy"]) for dot in marks(svg, "circle", "series-2"))
        heights[log] = slow - twice
    assert heights[False] < 1
    assert heights[True] > 15


@WIDTHS
def test_a_reliability_chart_has_the_diagonal_and_a_model_that_is_too_sure_below_it(width: int) -> None:
    svg = reliability_chart(
        [Line("teacher", "series-1", [(0.5, 0.3, 0.2, "few"), (0.9, 0.9, 1.0, "many")])],
        frame(width),
        x_axis="Sure",
        y_axis="Right",
    )
    few, many = marks(svg, "circle", "dot")
    assert float(few.attrib["r"]) < float(many.attrib["r"])
    (start, end) = (tuple(map(float, pair.split())) for pair in marks(svg, "path", "front")[0].attrib["d"][1:].split("L"))
    share = (float(few.attrib["cx"]) - start[0]) / (end[0] - start[0])
    assert float(few.attrib["cy"]) > start[1] + share * (end[1] - start[1]) + 10
    share = (float(many.attrib["cx"]) - start[0]) / (end[0] - start[0])
    assert float(many.attrib["cy"]) == pytest.approx(start[1] + share * (end[1] - start[1]), abs=0.3)
