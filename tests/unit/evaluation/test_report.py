"""The HTML page, made from sample reports."""

from __future__ import annotations

import html
from typing import Any

import pytest

from slmops.evaluation.report import render_html
from tests.unit.evaluation.html_page import Page
from tests.unit.evaluation.sample_report import LABELS, sample_report
from tests.unit.evaluation.sample_variants import empty_report, sample_evaluation


@pytest.fixture(scope="module")
def source() -> str:
    return render_html(sample_report())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_the_page_is_well_formed_and_has_every_section(page: Page) -> None:
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    sections = "comparison differences gates charts export data answers disagreements how lineage reproduce notes"
    assert set(sections.split()) <= set(ids)


def test_a_judge_has_a_section_with_what_his_verdicts_came_to() -> None:
    report = sample_report()
    counts = {"wins": 3012, "losses": 1204, "ties": 784, "same": 41, "invalid": 7, "contradicted": 355, "unread": 12}
    told = {
        "name": "gpt-4o",
        "rubric": "Which one is <kinder>?",
        "masked": {"EMAIL": 3},
        "calls": 9876,
        "tokens": 5_000_000,
        "cost": 12.5,
    }
    page = Page(render_html({**report, "judge": {**counts, **told}}))
    assert ("id", "judge") in page.attributes
    for text in (
        "3,012",
        "1,204",
        "784",
        "41",
        "7",
        "355",
        "12",
        "$12.5000 for 9,876 calls",
        "3 × EMAIL",
        "Which one is <kinder>?",
    ):
        assert text in page.text
    assert ("id", "judge") not in Page(render_html(report)).attributes


def test_the_page_needs_nothing_from_outside_and_runs_no_script(page: Page, source: str) -> None:
    loading = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert {value for value in loading if not value.startswith(("#", "data:"))} == {"data-report.html"}
    assert "script" not in page.tags
    assert "http://" not in source
    assert "https://" not in source
    assert "@import" not in source
    assert "url(" not in source


def test_every_row_and_every_label_is_on_the_page(page: Page) -> None:
    report = sample_report()
    for row in report["rows"]:
        assert {row["title"], row["name"], row["runtime"], row["precision"], row["note"]} <= _phrases(page.text, row)
    for label in LABELS:
        assert label in page.text


def _phrases(text: str, row: dict[str, Any]) -> set[str]:
    return {row[key] for key in ("title", "name", "runtime", "precision", "note") if row[key] in text}


def test_what_was_not_reached_is_said(page: Page) -> None:
    assert "4 of 5 targets reached" in page.text
    assert "5.7 × ✕ not reachedtarget 6 ×" in page.text
    assert "Six times the requests per second was not reached" in page.text


def test_the_packaged_row_is_marked_once(source: str) -> None:
    body = source.partition('class="comparison"')[2].partition("</table>")[0]
    rows = body.split("<tr")[2:]
    assert ["packaged</span>" in row for row in rows] == [False] * 7 + [True]


def test_charts_have_accessible_titles_and_descriptions(page: Page, source: str) -> None:
    assert page.tags.count("svg") == 2 * 10 + 5  # each chart wide and narrow; one small chart a difference
    assert page.tags.count("desc") == page.tags.count("svg")
    ids = {value for name, value in page.attributes if name == "id"}
    for _, value in (pair for pair in page.attributes if pair[0] == "aria-labelledby"):
        assert set(value.split()) <= ids
    assert "Teacher, tuned 0.800 (0.761 to 0.839)" in page.text


@pytest.mark.parametrize(
    "place",
    [
        lambda report, text: report["disagreements"][0].update(question=text),
        lambda report, text: report["rows"][3].update(title=text, name="x"),
        lambda report, text: report["confusion"]["labels"].__setitem__(0, text),
        lambda report, text: report["verdict"].update(sentence=text),
        lambda report, text: report["training"][0].update(name=text),
        lambda report, text: report["measures"]["accuracy"].update(title=text, help=text),
        lambda report, text: report["data"]["rejected"].update({text: 1}),
        lambda report, text: report["stages"][0].update(id=text),
    ],
)
def test_user_text_is_escaped(place: Any) -> None:
    report, text = sample_report(), '<script>alert("x")</script><img src=x onerror=y>'
    place(report, text)
    source = render_html(report)
    assert "<script" not in source
    assert "<img" not in source
    assert text[:10] in html.unescape(source)
    assert "script" not in Page(source).tags


def test_unknown_values_are_shown_as_dashes(page: Page, source: str) -> None:
    assert '<td class="n">–</td>' in source  # memory of the TF-IDF row
    assert "Not shown, because not measured: TF-IDF + logistic regression" in page.text


def test_a_report_with_nothing_in_it_still_renders() -> None:
    page = Page(render_html(empty_report()))
    assert "Nothing is packaged. No candidate passes." in page.text
    assert "svg" not in page.tags
    assert "None" not in page.text.replace("None.", "")


def test_leakage_is_flagged_before_everything_but_the_verdict() -> None:
    page = Page(render_html(sample_evaluation()))
    assert page.text.index("Leakage. 12 of 400 test rows (3.0 %) stand in train.jsonl, too.") < page.text.index("Comparison")
    assert "A second text that stands in both files." in page.text
    clean = Page(render_html(sample_report())).text
    assert "No test row stands in train, pool or validation." in clean
    assert "nobody looked" in Page(render_html({**sample_report(), "leakage": None})).text


def test_an_evaluation_alone_has_no_section_of_a_distillation() -> None:
    page = Page(render_html(sample_evaluation()))
    ids = {value for name, value in page.attributes if name == "id"}
    assert {"comparison", "differences", "gates", "charts", "slices", "disagreements", "how", "reproduce", "notes"} <= ids
    assert not ids & {"headline", "export", "data", "answers", "lineage", "classes", "judge"}
    links = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    assert links <= ids
    assert "Nothing is packaged" not in page.text
    assert "tuned teacher" not in page.text
    assert "http://127.0.0.1:8000 notes-large has the highest ROUGE-L: 0.334" in page.text


def test_labels_stand_with_the_worst_first_and_other_rows_beside_them(page: Page, source: str) -> None:
    table = Page(source.partition('id="classes"')[2].partition("<table")[2].partition(">")[2].partition("</table>")[0])
    cells = [word.strip() for word in table.words if word.strip()]
    first = cells.index("gift card")
    assert cells[first : first + 6] == ["gift card", "0.693", "0.684", "0.702", "22", "0.867"]
    assert cells.index("gift card") < cells.index("refund status") < cells.index("return label")


def test_the_page_says_what_would_settle_it_and_how_a_row_compares_with_a_margin(page: Page) -> None:
    assert "What would settle it About 1,150 more test rows" in page.text
    assert "cannot be told apart in accuracynot inferior: at most 0.030 worse" in page.text
    assert "< 0.001< 0.001" in page.text


def test_the_page_names_engines_whose_answers_depend_on_batching_and_how_answers_were_made(page: Page) -> None:
    assert "Answers of torch depend on what else is in the batch" in page.text
    assert "Answers of onnxruntime-genai do not depend on batching" in page.text
    assert "greedy, at most 16 new tokens" in page.text
    assert "{{ messages[-1]['content'] }} =>" in page.text


def test_answers_stand_side_by_side_with_their_differences_marked() -> None:
    source = render_html(sample_evaluation())
    assert "<mark>June and costs 4 million</mark>" in source
    assert "notes-small: 0.210" in Page(source).text


def test_throughput_stands_by_requests_at_once(page: Page) -> None:
    assert "Under load" in page.text
    assert "8 at once" in page.text
    assert "Distilled, as packaged: at most 27.3 requests/s, with 4 at once" in page.text
