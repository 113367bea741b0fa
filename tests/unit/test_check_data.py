"""``slmops check-data``: from a file to good rows, the others, and a report."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from slmops import cli
from slmops.files import read_json, read_jsonl
from tests.words import WORDS

pytest.importorskip("datasketch", reason="check-data needs the extra quality")
pytest.importorskip("py3langid", reason="check-data needs the extra quality")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"text": f"{one} beside the {other}", "label": label}
        for one in WORDS
        for other, label in zip(WORDS, "ab" * 3, strict=False)
    ]
    rows += [rows[0], {"text": "  ", "label": "a"}, {"text": "something else altogether", "label": "c"}]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def call(*arguments: object) -> int:
    try:
        cli.main(["check-data", *map(str, arguments)])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def test_rows_rejected_rows_and_reports_are_written(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    assert call("--data", data, "--output_path", folder) == 0
    assert {file.name for file in folder.iterdir()} == {
        *("train.jsonl", "pool.jsonl", "validation.jsonl", "test.jsonl", "rejected.jsonl"),
        *("data.json", "data-report.json", "data-report.html"),
    }
    report = read_json(folder / "data-report.json")
    rejected = read_jsonl(folder / "rejected.jsonl")
    kept = sum(len(read_jsonl(folder / f"{name}.jsonl")) for name in ("train", "validation"))
    assert report["read"] == kept + len(rejected) == 99
    assert sorted(bad["reason"].partition(" of ")[0] for bad in rejected) == ["duplicate", "empty field 'text'"]
    out, err = capsys.readouterr()
    assert "97 of 99 rows are good" in out
    assert str(folder / "data-report.html") in out
    assert "taken as question in 'text'" in err


def test_json_is_the_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--data", data, "-o", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out) == read_json(tmp_path / "out" / "data-report.json")


def test_labels_that_are_named_are_the_valid_ones(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--data", data, "-o", tmp_path / "out", "--task_type", "classification", "--labels", "a, b", "--json") == 0
    aside = {item["kind"]: item["rows"] for item in json.loads(capsys.readouterr().out)["aside"]}
    assert aside == {"duplicate": 1, "empty field 'text'": 1, "not a label": 1}


def test_a_test_file_takes_its_rows_out_of_training(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text('{"text": "APPLE beside the apple!", "label": "a"}\n{"text": "never seen", "label": "b"}', encoding="utf-8")
    assert call("--data", data, "--test_data", test, "-o", tmp_path / "out", "--json", "--validation_share", 0) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["leaks"] == [["test", "train", 2]]
    assert (report["rows"]["test"], report["rows"]["validation"]) == (2, 0)


def test_the_same_data_gives_the_same_files(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert call("--data", data, "-o", tmp_path / name) == 0
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--task_type", "classificaton"], "did you mean 'classification'?"),
        (["--input_field", "txt"], "there is no column 'txt'"),
        (["--test_data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_end_with_2(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert call("--data", data, "-o", tmp_path / "out", *arguments) == 2
    assert problem in capsys.readouterr().err


OWN = """
from slmops.tasks.prompts import Prompted
from slmops.tasks.base import AnswerError

class Shout(Prompted):
    @property
    def primary_measure(self):
        return "exact_match"

    def parse(self, text):
        if text != text.upper():
            raise AnswerError("not loud: it has small letters")
        return text

    def score(self, answers, references):
        return {"exact_match": 1.0}
"""


def test_every_task_type_has_its_check_under_any_of_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "shout.py"
    own.write_text(OWN, encoding="utf-8")
    for task_type, good, bad, reason in (
        ("NLU-QA", "B", "none of them", "not a choice"),
        ("NLI", "entailment", "maybe", "not a label"),
        ("math", "42 apples", "many", "no number"),
        (str(own), "LOUD", "quiet", "not loud"),
    ):
        file = tmp_path / "rows.jsonl"
        rows = [{"question": f"what of {one} and {other}", "answer": good} for one, other in pairwise(WORDS)]
        file.write_text("\n".join(json.dumps(row) for row in [*rows, {"question": "the last", "answer": bad}]), encoding="utf-8")
        assert call("--data", file, "-o", tmp_path / "out", "--task_type", task_type, "--json", "--validation_share", 0) == 0
        report = json.loads(capsys.readouterr().out)
        assert {item["kind"]: item["rows"] for item in report["aside"]} == {reason: 1}, task_type


def test_columns_without_a_header_tags_and_reasoning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.tsv"
    lines = [f"is the {one} red\tyes\ta {one} is red" for one in WORDS]
    file.write_text("\n".join(lines), encoding="utf-8")
    names = ("--column_names", "question, answer, why", "--rationale_field", "why")
    assert call("--data", file, "-o", tmp_path / "out", "--task_type", "qa", *names, "--json", "--near_duplicates", 1) == 0
    assert json.loads(capsys.readouterr().out)["read"] == len(WORDS)
    assert read_jsonl(tmp_path / "out" / "train.jsonl")[0]["answer"].endswith("\nAnswer: yes")


def test_too_few_good_rows_end_with_2_and_leave_the_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--data", data, "-o", tmp_path / "out", "--labels", "a,c", "--min_success", "0.9") == 2
    said = capsys.readouterr().err
    assert "fewer than the 90.0% asked for" in said
    assert str(tmp_path / "out" / "data-report.html") in said
    assert (tmp_path / "out" / "data-report.html").is_file()


def test_a_real_file_of_each_of_azures_kinds_works_as_it_is(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, rows in (("nli", 256), ("nlu_qa", 256), ("math", 42)):
        file = shared_data / "azure_distillation" / f"validation_{kind}.jsonl"
        assert call("--data", file, "-o", tmp_path / kind, "--task_type", kind.upper(), "--json") == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["read"], report["success"]) == (rows, 1.0)
        assert report["rows"]["pool"] >= 0.95 * rows
