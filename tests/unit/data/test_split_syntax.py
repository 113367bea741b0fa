"""Parts of local files by the syntax that people know from ``datasets``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.data.folders import parts_in
from slmops.data.sources import FilesSource
from slmops.data.split_syntax import Split
from slmops.errors import DataError

TEN = list(range(10))


@pytest.mark.parametrize(
    ("text", "name", "records"),
    [
        ("train", "train", TEN),
        ("train[:4]", "train", [0, 1, 2, 3]),
        ("train[4:6]", "train", [4, 5]),
        ("train[-3:]", "train", [7, 8, 9]),
        ("dev[:-8]", "validation", [0, 1]),
        ("test[20%:50%]", "test", [2, 3, 4]),
        ("test[-10%:]", "test", [9]),
        ("train[:25%]", "train", [0, 1]),  # two and a half, to the even one
        ("train[:4096]", "train", TEN),
        ("train[:2] + train[8:]", "train", [0, 1, 8, 9]),
    ],
)
def test_a_split_is_what_datasets_makes_of_it(text: str, name: str, records: list[int]) -> None:
    split = Split.parse(text)
    assert (split.name, split.of(TEN, "rows.csv")) == (name, records)


def test_it_agrees_with_datasets_itself() -> None:
    read = pytest.importorskip("datasets", reason="the library datasets is not installed").ReadInstruction
    inside = ("train[:4]", "train[-3:]", "train[20%:50%]", "train[:25%]", "train[:35%]", "train[-7%:]", "train[:2]+train[8:]")
    for text in (*inside, "train[:4096]", "train[-20:]", "train[5:20]"):
        absolute = read.from_spec(text).to_absolute({"train": 10})
        expected = [row for part in absolute for row in TEN[part.from_ : part.to]]
        assert Split.parse(text).of(TEN, "rows.csv") == expected, text


@pytest.mark.parametrize("text", ["train[4096]", "train[:x]", "", "train[1:2", "train[:1]+test[:1]", "train[:101%]"])
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"split: .*\n.*train\["):
        Split.parse(text)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(DataError, match=r"rows.csv: 'train\[10:\]' holds none of the 10 records"):
        Split.parse("train[10:]").of(TEN, "rows.csv")


def rows(file: Path, *texts: str) -> Path:
    file.write_text("".join(json.dumps({"text": text, "label": "a" if "1" in text else "b"}) + "\n" for text in texts))
    return file


def test_a_file_with_fewer_rows_gives_those_it_has_and_no_empty_validation(tmp_path: Path) -> None:
    file = rows(tmp_path / "few.jsonl", *(f"text {n}" for n in range(10)))
    assert len(FilesSource(train=file, train_split="train[:4096]").read().labelled) == 10
    # The library gives no rows here, with which nothing could be validated.
    with pytest.raises(DataError, match=r"few.jsonl: 'train\[4096:4224\]' holds none of the 10 records"):
        FilesSource(train=file, train_split="train[:4096]", validation_split="train[4096:4224]").read()


def test_training_and_validation_are_parts_of_one_file(tmp_path: Path) -> None:
    file = rows(tmp_path / "all.jsonl", *(f"text {n}" for n in range(10)))
    raw = FilesSource(train=file, train_split="train[:6]", validation_split="train[6:8]").read()
    assert [row.question for row in raw.labelled] == [f"text {n}" for n in range(6)]
    assert [row.question for row in raw.validation] == ["text 6", "text 7"]
    assert FilesSource(train=file, train_split="train[:6]").fingerprint() != FilesSource(train=file).fingerprint()


def test_a_folder_has_a_file_a_split(tmp_path: Path) -> None:
    rows(tmp_path / "train.jsonl", "one 1", "two 2")
    rows(tmp_path / "dev.jsonl", "three 1")
    raw = FilesSource(train=tmp_path).read()
    assert [[row.question for row in part] for part in (raw.labelled, raw.validation, raw.test)] == [
        ["one 1", "two 2"],
        ["three 1"],
        [],
    ]
    assert len(FilesSource(train=tmp_path, validation_split="validation[:1]").read().validation) == 1
    with pytest.raises(DataError, match=r"there is no split test\n.*there are train, validation"):
        FilesSource(train=tmp_path, test_split="test").read()
    rows(tmp_path / "valid.jsonl", "four 1")
    with pytest.raises(DataError, match=r"both dev.jsonl and valid.jsonl are validation"):
        parts_in(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file train"):
        FilesSource(train=tmp_path / "empty").read()
