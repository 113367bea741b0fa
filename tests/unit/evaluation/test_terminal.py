"""A report as a table for a terminal."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from slmops.evaluation.report import render_html
from slmops.evaluation.terminal import render_table
from tests.unit.evaluation.html_page import Page
from tests.unit.evaluation.sample_report import sample_report
from tests.unit.evaluation.sample_variants import empty_report, sample_evaluation


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


def test_a_target_that_could_not_be_measured_is_not_called_reached() -> None:
    report = sample_report()
    report["headline"][0] |= {"value": None, "reached": False}
    assert "accuracy kept – ✕ not measuredtarget 92 %" in Page(render_html(report)).text
    assert "NOT measured  accuracy kept" in render_table(report)


def test_an_evaluation_alone_says_leakage_first_and_each_gate_with_its_figures() -> None:
    text = render_table(sample_evaluation())
    assert text.startswith("LEAKAGE: 12 of 400 test rows (3.0 %) stand in train.jsonl, too.")
    assert "\nINCONCLUSIVE: Whether notes-small passes cannot be told" in text
    assert "packaged" not in text
    assert re.search(r"^INCONCLUSIVE +notes-small +rouge_l >= 0\.3 +0\.312 \[0\.292, 0\.332\] against 0\.300$", text, re.MULTILINE)
    assert "About 410 more test rows would settle" in text


def test_of_a_long_name_the_end_is_shown_so_that_figures_have_room() -> None:
    report = sample_evaluation()
    report["rows"][1]["name"] = "/home/somebody/models/of/long/ago/notes-large-2"
    lines = render_table(report, 80).splitlines()
    (line,) = (line for line in lines if "notes-large-2" in line)
    assert line.startswith("  …s/of/long/ago/notes-large-2 ")
    assert "0.334 [0.313, 0.355]" in line
