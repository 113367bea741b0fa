"""What every HTML page of the package shares: one file that opens offline, light and dark, and charts in two sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from slmops.evaluation.formats import chance, number, percent, score
from slmops.evaluation.svg import Frame
from slmops.progress import duration

WIDE, FULL, NARROW = 500, 720, 326
"""Widths of charts in pixels: beside another one, alone, and on a phone."""

Draw = Callable[[Frame], str]


@dataclass(frozen=True)
class Figure:
    """A chart in two sizes, of which the stylesheet shows the one that fits."""

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup

    @classmethod
    def drawn(cls, name: str, title: str, caption: str, described: str, draw: Draw, *, wide: int = WIDE) -> Figure:
        """Draw a chart for a desktop and for a phone.

        Args:
            name: Unique on the page.
            title: The finding.
            caption: How to read it.
            described: The figures, for those who do not see the chart.
            draw: Draws it into a frame.
            wide: Width of the larger one.
        """
        both = (Markup(draw(Frame(name, width, title, described))) for width in (wide, NARROW))
        return cls(name, title, caption, *both)


def render_page(template: str, **values: Any) -> str:
    """Fill a template of this folder; texts are escaped.

    Args:
        template: Name of the file.
        values: What the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files("slmops.evaluation").joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "score": score, "chance": chance}
    environment.filters |= {"duration": duration, "breakable": _breakable}
    return environment.get_template(template).render(**values)


def _breakable(label: str) -> Markup:
    """A label that may be broken over lines after its underscores."""
    return Markup("_<wbr>").join(label.split("_"))
