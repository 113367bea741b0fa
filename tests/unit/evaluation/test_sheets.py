"""Blind sheets: the same seed gives the same ones, nothing in them tells the models apart, and texts stay texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from slmops.data.readers import read_table
from slmops.data.rowfiles import Rejected
from slmops.errors import ArtifactError, DataError, UsageError
from slmops.evaluation.pairs import Pair, Paired
from slmops.evaluation.review import KEY, Review, make_review, read_key, write_review
from tests.unit.evaluation.html_page import Page

EVIL = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> & \u2028 =1+1"


def pair(number: int, a: str | None = None, b: str | None = None) -> Pair:
    turns = ({"role": "user", "content": f"question {number}?"},)
    return Pair(f"id-{number}", turns, a or f"alpha {number}", b or f"beta {number}")


PAIRED = Paired(
    "big-model", "small-model", tuple(pair(number) for number in range(40)), (Rejected("b.jsonl:3", "no answer", "{}"),)
)


def review(paired: Paired = PAIRED, *, rows: int = 20, raters: int = 2, seed: int = 0) -> Review:
    return make_review(paired, rows=rows, raters=raters, seed=seed, rubric="Which one helps?")


def test_the_same_seed_gives_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    folders = {"one": 0, "again": 0, "other": 1}
    for name, seed in folders.items():
        write_review(review(seed=seed), PAIRED, tmp_path / name)
    one, again, other = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in folders)
    assert set(one) == {KEY, "rejected.jsonl", "rater-1.csv", "rater-1.html", "rater-2.csv", "rater-2.html"}
    assert one == again
    assert one["rater-1.csv"] != other["rater-1.csv"]


def test_sides_are_drawn_a_row_and_swapped_for_the_second_rater() -> None:
    made = review(rows=40)
    sides = [row.first for row in made.key.rows.values()]
    assert all({first["rater-1"], first["rater-2"]} == {"a", "b"} for first in sides)
    assert 10 <= Counter(first["rater-1"] for first in sides)["a"] <= 30
    for rater, sheet in made.sheets.items():
        for shown in sheet:
            first = "alpha" if made.key.rows[shown.row].first[rater] == "a" else "beta"
            assert shown.answers[0].startswith(first)


def test_every_rater_sees_the_same_rows_in_an_order_of_its_own() -> None:
    one, two = ([shown.row for shown in sheet] for sheet in review().sheets.values())
    assert set(one) == set(two)
    assert one != two


def test_more_rows_go_on_from_fewer() -> None:
    few, many = ({row.id for row in review(rows=rows).key.rows.values()} for rows in (5, 15))
    assert few < many
    assert len(many) == 15


def test_equal_answers_are_counted_and_not_shown() -> None:
    paired = Paired("m", "n", (pair(0, "same", "same"), pair(1), pair(2, "same", "same")), ())
    made = review(paired)
    assert (made.key.compared, made.key.equal, len(made.key.rows)) == (3, 2, 1)
    with pytest.raises(DataError, match="same answers to all 2 questions"):
        review(Paired("m", "n", (pair(0, "same", "same"), pair(2, "same", "same")), ()))


def test_nothing_that_a_rater_gets_names_a_model(tmp_path: Path) -> None:
    for file in write_review(review(), PAIRED, tmp_path):
        text = file.read_text(encoding="utf-8")
        assert "big-model" not in text
        assert "small-model" not in text


def test_what_answers_say_is_shown_as_text_and_runs_nowhere(tmp_path: Path) -> None:
    paired = Paired("m", "n", (pair(0, EVIL, "=HYPERLINK(1)"),), ())
    write_review(review(paired, raters=1), paired, tmp_path)
    text = (tmp_path / "rater-1.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    data = re.search(r'<script type="application/json" id="sheet">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert set(json.loads(data[1])["rows"][0]["answers"]) == {EVIL, "=HYPERLINK(1)"}
    assert {name for name, _ in page.attributes if name.startswith("on")} == set()
    assert [value for name, value in page.attributes if name in ("src", "href")] == ["data:,"]
    policy = next(value for name, value in page.attributes if value.startswith("default-src"))
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    (record,) = read_table(tmp_path / "rater-1.csv").records
    assert record.values is not None
    assert set(record.values.values()) >= {EVIL, "'=HYPERLINK(1)"}


def test_a_rubric_is_escaped(tmp_path: Path) -> None:
    made = make_review(PAIRED, rows=1, raters=1, seed=0, rubric="shorter <b>wins</b>")
    write_review(made, PAIRED, tmp_path)
    assert "b" not in Page((tmp_path / "rater-1.html").read_text()).tags


def test_turns_before_the_question_are_in_the_sheet(tmp_path: Path) -> None:
    turns = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "one?"})
    paired = Paired("m", "n", (Pair("x", turns, "1", "2"),), ())
    write_review(review(paired), paired, tmp_path)
    (record,) = read_table(tmp_path / "rater-1.csv").records
    assert record.values is not None
    assert record.values["question"] == "[system]\nbe brief\n\n[user]\none?"


def test_the_key_of_another_review_is_not_written_over(tmp_path: Path) -> None:
    write_review(review(), PAIRED, tmp_path)
    write_review(review(), PAIRED, tmp_path)
    before = read_key(tmp_path / KEY)
    with pytest.raises(UsageError, match="the key of another review"):
        write_review(review(seed=1), PAIRED, tmp_path)
    assert read_key(tmp_path / KEY) == before


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_key(tmp_path / KEY)
    for text in ("{}", "not json", '{"schema_version": 2}'):
        (tmp_path / KEY).write_text(text)
        with pytest.raises(ArtifactError, match="no key of a review"):
            read_key(tmp_path / KEY)
