"""The HTML page and the terminal table, made from a sample report."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from rich.cells import cell_len

from slmops.errors import ArtifactError
from slmops.evaluation.formats import figure, headline_value, number
from slmops.evaluation.report import render_html, render_table
from slmops.evaluation.schema import Headline, Measure, parse_report
from tests.unit.evaluation.html_page import Page
from tests.unit.evaluation.sample_report import LABELS, sample_report


@pytest.fixture(scope="module")
def source() -> str:
    return render_html(sample_report())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def empty_report() -> dict[str, Any]:
    """A report of a task without labels in which nothing could be measured, trained, exported or packaged."""
    report = sample_report()
    for key in ("differences", "headline", "export", "training", "disagreements", "notes", "stages", "models"):
        report[key] = []
    report["confusion"] = None
    report["verdict"] |= {"word": "INCONCLUSIVE", "packaged": None, "why": "No candidate passes."}
    report["answers"] |= {"reasons": {}, "right_where_known": None}
    report["data"] |= {"labels": [], "rejected": {}}
    for row in report["rows"]:
        row |= {"measures": dict.fromkeys(row["measures"]), "intervals": {}, "latencies_ms": [], "gates": [], "packaged": False}
    return report


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


def test_conversions_are_compared_by_a_measure_of_their_own() -> None:
    report = sample_report()
    rate = {"title": "Win rate", "unit": "", "better": "higher", "help": "By a judge."}
    judged = {
        **report,
        "primary_measure": "win_rate",
        "export_measure": "accuracy",
        "measures": {**report["measures"], "win_rate": rate},
    }
    assert '<th scope="col" class="n">Accuracy</th><th scope="col" class="n">Before export</th>' in render_html(judged)
    with pytest.raises(ArtifactError, match="not explained under measures: token_f1"):
        parse_report({**judged, "export_measure": "token_f1"})


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
    assert page.tags.count("svg") == 2 * 7 + 5  # each chart wide and narrow; one small chart a difference
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


def test_a_target_that_could_not_be_measured_is_not_called_reached() -> None:
    report = sample_report()
    report["headline"][0] |= {"value": None, "reached": False}
    assert "accuracy kept – ✕ not measuredtarget 92 %" in Page(render_html(report)).text
    assert "NOT measured  accuracy kept" in render_table(report)


def test_a_report_with_nothing_in_it_still_renders() -> None:
    page = Page(render_html(empty_report()))
    assert "Nothing is packaged. No candidate passes." in page.text
    assert "svg" not in page.tags
    assert "None" not in page.text.replace("None.", "")


def test_the_rate_of_a_missed_target_is_not_rounded_up_to_it() -> None:
    item = Headline(what="requests per second", value=5.996, target=6.0, unit="times", reached=False)
    assert (headline_value(item, item.value), headline_value(item, item.target)) == ("6.00 ×", "6.00 ×")
    item = Headline(what="latency", value=84.96, target=85.0, unit="percent less", reached=False)
    assert (headline_value(item, item.value), headline_value(item, item.target)) == ("84.96 % less", "85.00 % less")
    item = Headline(what="latency", value=-12.0, target=85.0, unit="percent less", reached=False)
    assert headline_value(item, item.value) == "12 % more"


def test_figures_have_few_digits() -> None:
    assert [number(value) for value in (None, 0, 0.00481, 0.31, 4.1, 36.54, 99.96, 1340.2)] == [
        "–", "0", "0.00481", "0.31", "4.10", "36.5", "100", "1,340",
    ]  # fmt: skip
    score = Measure(title="Accuracy", unit="", better="higher", help="")
    assert figure("accuracy", 0.8, score) == "0.800"
    assert figure("parameters", 56_600_000, score) == "56.6 M"
    assert figure("share_of_teacher", 1.0725, score) == "107.2 %"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_terminal_table_fits_its_width(width: int) -> None:
    lines = render_table(sample_report(), width).splitlines()
    assert max(map(cell_len, lines)) <= width
    for row in sample_report()["rows"]:
        (line,) = (line for line in lines if line.startswith((f"  {row['name']} ", f"* {row['name']} ")))
        assert f"{row['measures']['accuracy']:.3f} [" in line


def test_the_terminal_table_at_100_columns_has_every_column_and_the_verdict() -> None:
    text = render_table(sample_report())
    assert text.startswith("better: Distillation beats tuning")
    assert "Packaged: Distilled. It has the highest" in text
    for heading in ("params", "MB", "mem MiB", "p50 ms", "p95 ms", "req/s", "accuracy", "kept", "cost/1M"):
        assert heading in text
    assert re.search(r"^NOT reached +requests per second +5\.7 × +target 6 ×$", text, re.MULTILINE)
    assert re.search(r"^reached +accuracy kept +107\.2 % +target 92 %$", text, re.MULTILINE)
    assert re.search(r"^\* packaged .* 0\.858 \[0\.824, 0\.892\] ", text, re.MULTILINE)
    assert re.search(r"^  tfidf .* – ", text, re.MULTILINE)
    assert "No room for" not in text


def test_a_narrow_terminal_is_told_which_columns_are_left_out() -> None:
    assert "No room for: p95 ms, params.\n" in render_table(sample_report(), 85)


def test_the_terminal_table_shows_text_as_it_is_and_drops_control_characters() -> None:
    report = sample_report()
    report["verdict"]["sentence"] = "[bold]:smile:\x1b[2J"
    assert "better: [bold]:smile: [2J" in render_table(report)


def test_the_terminal_table_of_an_empty_report_has_only_dashes() -> None:
    text = render_table(empty_report())
    assert "Nothing is packaged. No candidate passes." in text
    assert re.search(r"^  teacher +(– +){8}–$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda report: report.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda report: report["rows"][0].update(speed=1), "rows.0.speed: Extra inputs"),
        (lambda report: report.pop("notes"), "notes: Field required"),
        (lambda report: report.update(schema_version=2), "schema_version"),
        (lambda report: report["verdict"].update(word="maybe"), "verdict.word"),
        (lambda report: report["measures"].pop("size_mb"), "not explained under measures: size_mb"),
        (lambda report: report["confusion"]["matrix"].pop(), "must be 18 × 18"),
        (lambda report: report["rows"][0]["measures"].update(accuracy=float("nan")), "rows.0.measures.accuracy"),
    ],
)
def test_a_report_that_does_not_follow_the_schema_is_refused(change: Any, message: str) -> None:
    report = sample_report()
    change(report)
    with pytest.raises(ArtifactError, match=re.escape(message)):
        render_html(report)


def test_the_schema_reads_back_what_it_writes() -> None:
    report = parse_report(sample_report())
    assert parse_report(report.model_dump(mode="json")) == report
