"""The confusion matrix and the arcs from stage to stage."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from slmops.evaluation.grids import Node, direct_parents, heat_chart, lineage_chart
from tests.unit.evaluation.svg_marks import WIDTHS, frame, marks, texts

NODES = [
    Node("data", "1 s", []),
    Node("teacher", "2 min", [0]),
    Node("answers", "1 min", [0, 1]),
    Node("student", "3 min", [0, 2]),
]


@pytest.mark.parametrize(("count", "width"), [(2, 326), (18, 326), (18, 720), (77, 720)])
def test_a_heat_chart_shows_every_count_and_label_inside_its_frame(count: int, width: int) -> None:
    labels = [f"label {index}" for index in range(count)]
    matrix = [[20 if row == column else int(column == (row + 1) % count) for column in range(count)] for row in range(count)]
    svg = heat_chart(labels, matrix, frame(width))
    assert len(marks(svg, "rect", "right")) == count
    assert len(marks(svg, "rect", "wrong")) == count
    assert all(texts(svg).count(label) == 2 for label in labels)
    edges = [float(cell.attrib["x"]) + float(cell.attrib["width"]) for cell in marks(svg, "rect", "cell")]
    assert max(edges) <= float(ET.fromstring(svg).attrib["viewBox"].split()[2]) + 1
    tips = [element.text for element in ET.fromstring(svg).iter("title")]
    assert "label 0 answered as label 1: 1 of 21" in tips


def test_a_parent_that_stands_behind_another_one_has_no_arc_of_its_own() -> None:
    assert [direct_parents(NODES, index) for index in range(4)] == [[], [0], [1], [2]]
    apart = [Node("a", "", []), Node("b", "", []), Node("c", "", [0, 1])]
    assert direct_parents(apart, 2) == [0, 1]


@WIDTHS
def test_a_lineage_chart_has_a_line_a_stage_and_an_arc_a_parent_inside_its_frame(width: int) -> None:
    wide = [*NODES, Node("report", "4 s", [0, 3]), Node("floor", "1 s", []), Node("end", "1 s", [4, 5])]
    svg = lineage_chart(wide, frame(width))
    assert {"data", "student", "report"} <= set(texts(svg))
    assert ("3 min" in texts(svg)) == (width == 500)  # no room for times on a phone
    arcs = [arc.attrib["d"] for arc in marks(svg, "path", "link")]
    assert len(arcs) == 6
    # A cubic Bezier curve reaches three quarters of the way to its control points.
    for arc in arcs:
        start = float(arc[1:].split()[0])
        bow = float(arc.partition("C")[2].split()[0])
        assert start - 0.75 * (start - bow) >= 0
