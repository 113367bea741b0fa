"""The page on which a rater compares answers: one file that opens offline and keeps what was said in the browser."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from slmops.evaluation.page import render_page


def render_sheet(review: str, rater: str, rubric: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One HTML file with everything in it; its policy allows no network and no script but its own.

    Args:
        review: Tells these sheets from others.
        rater: Whose sheet it is.
        rubric: What makes an answer the better one.
        rows: With ``row`` (its name), ``turns`` (the conversation) and ``answers`` (two texts). They stand in the page as
            JSON without ``<``, and are shown as text alone.
    """
    script = files("slmops.evaluation").joinpath("review.js").read_text(encoding="utf-8")
    # The browser hashes what stands between the tags.
    inside = f"\n{script}"
    data = {"review": review, "rater": rater, "rows": rows}
    return render_page(
        "review.html.j2",
        review=review,
        rater=rater,
        rubric=rubric,
        script=Markup(inside),
        policy=base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode(),
        data=Markup(_json_in_html(data)),
    )


def _json_in_html(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
