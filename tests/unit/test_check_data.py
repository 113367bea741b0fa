"""``slmops check-data``: from a file to good rows, the others, and a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops import cli
from slmops.files import read_json, read_jsonl

pytest.importorskip("datasketch", reason="check-data needs the extra quality")
pytest.importorskip("py3langid", reason="check-data needs the extra quality")

WORDS = [
    "apple",
    "bridge",
    "candle",
    "dragon",
    "engine",
    "forest",
    "garden",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "marble",
    "needle",
    "orange",
    "pocket",
]


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
