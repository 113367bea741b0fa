"""Charts in a grid as inline SVG, in the manner of ``charts``: a confusion matrix, and which stage was made from which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmops.evaluation.svg import FONT, Frame, Svg, shortened, text_width

_STEP = 22


@dataclass(frozen=True)
class Node:
    """A line of :func:`lineage_chart`: what it is, how long it took, and the indices of the earlier ones it was made from."""

    label: str
    text: str
    parents: Sequence[int]
    strong: bool = False


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


def lineage_chart(nodes: Sequence[Node], frame: Frame) -> str:
    """A line for each stage, with arcs from what it was made from; a parent that stands behind another parent is left out."""
    longest = max((at - parent for at, node in enumerate(nodes) for parent in node.parents), default=1)
    reach = min(80.0 if frame.narrow else 170.0, 26.0 + 12 * longest)
    left = 0.75 * reach + 8
    svg = Svg(frame, _STEP * len(nodes) + 4)
    for index in range(len(nodes)):
        for parent in direct_parents(nodes, index):
            top, bottom = (_STEP * (at + 0.5) for at in (parent, index))
            bow = left - reach * (0.18 + 0.82 * (index - parent) / longest)
            look = f"link series-{parent % 8 + 1}"
            svg.add("path", look, d=f"M{left:.1f} {top:.1f}C{bow:.1f} {top:.1f} {bow:.1f} {bottom:.1f} {left:.1f} {bottom:.1f}")
    for index, node in enumerate(nodes):
        y = _STEP * (index + 0.5)
        svg.marker(f"series-{index % 8 + 1}", left, y, strong=False, tip=f"{node.label}: {node.text}")
        room = frame.width - left - 12 - (0 if frame.narrow else text_width(node.text, FONT) + 8)
        svg.text("label strong" if node.strong else "label", left + 12, y + 4, shortened(node.label, room, FONT))
        if not frame.narrow:
            svg.text("tick", frame.width - 2, y + 4, node.text, "end")
    return str(svg)


def direct_parents(nodes: Sequence[Node], index: int) -> list[int]:
    """The parents of a node without those that are also behind another of its parents."""
    behind: list[set[int]] = []
    for node in nodes[: index + 1]:
        behind.append(set(node.parents).union(*(behind[parent] for parent in node.parents)))
    parents = nodes[index].parents
    return [parent for parent in parents if not any(parent in behind[other] for other in parents)]
