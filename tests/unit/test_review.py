"""``slmops review``: from a run to sheets, and from verdicts to a word."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest

from slmops.files import read_json, read_jsonl
from tests.commands import Call
from tests.unit.evaluation.finished_run import write_run


@pytest.fixture
def review(call: Call) -> Call:
    return partial(call, "review")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    questions = [f"question {number}" for number in range(30)]
    long = [f"a long answer to {number}" for number in range(30)]
    short = [f"no {number}" for number in range(24)] + long[24:]
    return write_run(tmp_path / "run", questions, {"teacher": long, "distilled.int4": short}, packaged="distilled")


def judge(sheet: Path, *, prefer: str, leave: int = 0) -> Path:
    """Fill in a sheet: the answer that begins so is the better one; the last rows stay open."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[: len(rows) - leave]:
        row["verdict"] = "1" if row["answer_1"].startswith(prefer) else "2"
    filled = sheet.with_suffix(".filled.csv")
    with filled.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return filled


def test_people_judge_a_run(review: Call, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "review"
    made = review(run, "--a", "packaged", "--b", "teacher", "--rows", 20, "--output-path", folder)
    assert (made.code, made.err) == (0, "")
    assert "20 to compare; 6 of 30 have equal answers and are ties" in made.out
    assert {file.name for file in folder.glob("rater-*")} == {f"rater-{n}.{kind}" for n in (1, 2) for kind in ("csv", "html")}

    filled = [judge(folder / "rater-1.csv", prefer="a long"), judge(folder / "rater-2.csv", prefer="a long", leave=2)]
    with filled[1].open("a") as file:
        file.write(",,,,,,who knows,\n")
    read = review("--read", *filled, "--key", folder / "key.json")
    assert (read.code, read.err) == (0, "")
    assert "of packaged over teacher, 95% interval: teacher is better" in read.out
    assert "rater-2   0.000 [0.000, 0.176], 2 without a verdict" in read.out
    assert "agreement 100.0% on 18 rows" in read.out
    found = read_json(folder / "review.json")
    assert (found["word"], found["win_rate"]) == ("B better", pytest.approx(6 / 30 / 2))
    assert [line["reason"] for line in read_jsonl(folder / "rejected-verdicts.jsonl")] == ["another review: ''"]


def test_json_is_what_the_file_says(review: Call, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "review"
    made = review(run, "--a", "packaged", "--b", "teacher", "--raters", 1, "-o", folder, "--json")
    facts = json.loads(made.out)
    assert (facts["shown"], facts["compared"], facts["equal"]) == (24, 30, 6)
    assert facts["sheets"] == [str(folder / "rater-1.csv"), str(folder / "rater-1.html")]
    filled = judge(folder / "rater-1.csv", prefer="no")
    read = review("--read", filled, "--key", facts["key"], "--json", "--confidence", 0.9)
    assert json.loads(read.out) == read_json(folder / "review.json")
    assert (json.loads(read.out)["word"], json.loads(read.out)["confidence"]) == ("A better", 0.9)


def test_two_files_of_answers_need_no_run(review: Call, tmp_path: Path) -> None:
    for name, answer in (("a", "yes"), ("b", "no")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "1", "question": "well?", "answer": answer}))
    made = review("--a", tmp_path / "a.jsonl", "--b", tmp_path / "b.jsonl", "-o", tmp_path / "review")
    assert (made.code, made.out.splitlines()[0]) == (0, "rows      1 to compare; 0 of 1 have equal answers and are ties")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["RUN"], "name the two models to compare by --a and --b"),
        (["RUN", "--a", "teacher", "--b", "teacher"], "--a and --b are both 'teacher'"),
        (["RUN", "--a", "teacher", "--b", "student"], "no answers of 'student'"),
        (["RUN", "--a", "teacher", "--b", "packaged", "--key", "key.json"], "--key is for --read"),
        (["--read", "verdicts.csv"], "--read takes files of verdicts and --key"),
        (["--read", "verdicts.csv", "--key", "nowhere.json"], "nowhere.json: no such file"),
        (["RUN", "--a", "teacher", "--b", "packaged", "--rows", "0"], "--rows"),
    ],
)
def test_wrong_usage_is_named(review: Call, run: Path, words: list[str], problem: str) -> None:
    result = review(*(run if word == "RUN" else word for word in words))
    assert result.code == 2
    assert problem in result.err
