"""The page of a quality pass: one file, offline, escaped, and its charts say what the figures say."""

from __future__ import annotations

import re
from typing import Any

from slmops.data.quality.report import Aside, DataReport, Example
from slmops.evaluation.data_page import render_html, render_table
from tests.unit.evaluation.html_page import Page


def sample(**changes: Any) -> DataReport:
    quantiles = [float(10 + n) for n in range(41)]
    values: dict[str, Any] = {
        "name": "train.jsonl",
        "read": 1464,
        "success": 0.986,
        "rows": {"train": 971, "pool": 0, "validation": 172, "test": 0},
        "aside": (
            Aside(
                "duplicate",
                300,
                (Example("train.jsonl:7", "duplicate of train.jsonl:2", "I'm <b>thrilled</b> & [EMAIL_1]", "joy"),),
            ),
            Aside("refusal", 21, (Example("train.jsonl:9", "refusal: 'as an AI, I'", "Why?", "As an AI, I …"),)),
        ),
        "leaks": (("test", "train", 25),),
        "alike": 3,
        "labels": {"joy": {"train": 500, "validation": 90, "test": 0}, "card_arrival": {"train": 471, "validation": 82, "test": 0}},
        "evenness": 0.99,
        "diversity": {"questions": [0.2, 0.61, None]},
        "lengths": {"question": {"train": quantiles, "validation": quantiles}},
        "agreement": {"questions": 4, "unanimous": 1, "pairwise": 0.4, "alpha": None, "confused": (("joy", "<fear>", 3),)},
        "languages": {"en": 900, "de": 20, "?": 223},
        "personal": {"EMAIL": 2},
        "notes": ("Fewer than five training rows: rare.",),
    }
    return DataReport(**{**values, **changes})


def test_the_page_is_whole_and_asks_for_nothing_outside() -> None:
    html = render_html(sample())
    page = Page(html)
    assert html.lstrip().startswith("<!doctype html>")
    assert "script" not in page.tags
    assert [value for name, value in page.attributes if name in ("src", "href") and not value.startswith(("#", "data:"))] == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", html)
    assert "prefers-color-scheme: dark" in html
    anchors = {value for name, value in page.attributes if name == "href" and value.startswith("#")}
    assert {anchor[1:] for anchor in anchors} <= {value for name, value in page.attributes if name == "id"}


def test_texts_of_the_data_are_escaped() -> None:
    html = render_html(sample(name="<img src=x onerror=alert(1)>"))
    assert "<b>thrilled" not in html
    assert "I&#39;m &lt;b&gt;thrilled&lt;/b&gt; &amp; [EMAIL_1]" in html
    assert "<img" not in html
    assert "&lt;fear&gt;" in html


def test_charts_and_tables_have_the_figures() -> None:
    html = render_html(sample())
    assert "1,143 of 1,464 rows are good; most of the others: duplicate (300)" in html
    assert "Half of the questions of train have at most 30 characters" in html
    assert "97.8 % of the questions that are long enough to tell are in en" in html
    assert "refusal: 21" in html
    assert html.count("<svg") == 6  # three charts, each for wide and for narrow screens
    assert "card_<wbr>arrival" in html


def test_a_report_with_nothing_in_it_can_be_shown() -> None:
    empty = sample(
        read=1, rows={"train": 1, "pool": 0, "validation": 0, "test": 0}, aside=(), leaks=(), labels=None, evenness=None,
        diversity={}, lengths={}, agreement={}, languages={}, personal={}, notes=(),
    )  # fmt: skip
    html = render_html(empty)
    assert "All 1 rows are good" in html
    assert "No row of one split stands in another." in html
    assert Page(html).tags


def test_the_table_for_a_terminal() -> None:
    assert render_table(sample(notes=("look\x1b[2J here",))).splitlines() == [
        "1,143 of 1,464 rows are good; most of the others: duplicate (300)",
        "",
        f"{'train':<12}{'971':>9}",
        f"{'validation':<12}{'172':>9}",
        "",
        f"{'set aside':<12}{'321':>9}",
        f"{'  duplicate':<12}{'300':>9}",
        f"{'  refusal':<12}{'21':>9}",
        "",
        "- look [2J here",
    ]
