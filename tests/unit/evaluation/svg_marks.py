"""A chart taken apart."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from slmops.evaluation.svg import Frame

WIDTHS = pytest.mark.parametrize("width", [326, 500])


def frame(width: int = 500) -> Frame:
    return Frame("chart", width, "A finding", "The figures")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("text")]


def marks(svg: str, tag: str, look: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(svg).iter(tag) if look in element.get("class", "").split()]
