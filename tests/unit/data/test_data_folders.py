"""Folders as ``datasets`` and the hub leave them, and the label names that their files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.data.columnar import read_columnar
from slmops.data.folders import Part, parts_in
from slmops.data.readers import read_table
from slmops.data.sources import FilesSource
from slmops.errors import DataError

datasets: Any = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")

TONES = ["warm", "cold"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def tones(count: int, label: str = "please") -> Any:
    features = datasets.Features({"phrase": datasets.Value("string"), "tone": datasets.ClassLabel(names=TONES)})
    rows = [{"phrase": f"{label} {number}", "tone": number % 2} for number in range(count)]
    return datasets.Dataset.from_list(rows, features=features)


def read(folder: Path, **options: Any) -> list[list[tuple[str, str | None]]]:
    raw = FilesSource(train=folder, input_field="phrase", answer_field="tone", **options).read()
    return [[(row.question, row.answer) for row in rows] for rows in (raw.labelled, raw.validation, raw.test)]


def test_a_saved_data_set_is_read_with_the_names_of_its_labels(tmp_path: Path) -> None:
    tones(5).save_to_disk(str(tmp_path / "set"), num_shards=2)
    (train, validation, test) = read(tmp_path / "set")
    assert train == [(f"please {n}", TONES[n % 2]) for n in range(5)]
    assert (validation, test) == ([], [])
    raw = FilesSource(train=tmp_path / "set", text_template="{phrase} => {tone}", train_split="train[3:]").read()
    assert [(row.answer, row.origin) for row in raw.labelled] == [
        ("cold", f"{tmp_path / 'set'}:4"),
        ("warm", f"{tmp_path / 'set'}:5"),
    ]


def test_the_splits_of_a_saved_dictionary_have_their_roles(tmp_path: Path) -> None:
    splits = {"train": tones(4), "validation": tones(2, "kindly"), "test_b": tones(1, "now")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "sets"))
    train, validation, test = read(tmp_path / "sets")
    assert [len(train), validation, test] == [4, [("kindly 0", "warm"), ("kindly 1", "cold")], []]
    assert read(tmp_path / "sets", test_split="test_b")[2] == [("now 0", "warm")]
    assert read(tmp_path / "sets" / "train", validation=tmp_path / "sets" / "validation")[1] == validation
    with pytest.raises(DataError, match=r"train_split 'trian': there is no split trian\n.*there are test_b, train, validation"):
        read(tmp_path / "sets", train_split="trian")


def test_other_data_of_the_same_shape_have_another_fingerprint(tmp_path: Path) -> None:
    for name, label in (("one", "please"), ("two", "please"), ("three", "now")):
        tones(4, label).save_to_disk(str(tmp_path / name))
    one, two, three = (FilesSource(train=tmp_path / name).fingerprint() for name in ("one", "two", "three"))
    assert one == two != three


@pytest.mark.parametrize("below", ["", "data"])
def test_pieces_of_a_hub_snapshot_are_one_split(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    whole = tones(5)
    for place in range(2):
        whole.shard(2, place, contiguous=True).to_parquet(str(folder / f"train-0000{place}-of-00002.parquet"))
    tones(1, "kindly").to_parquet(str(folder / "validation-00000-of-00001.parquet"))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    train, validation, _ = read(tmp_path)
    assert train == [(f"please {n}", TONES[n % 2]) for n in range(5)]
    assert validation == [("kindly 0", "warm")]
    raw = FilesSource(train=tmp_path, text_template="{phrase} => {tone}", train_split="train[-1:]").read()
    assert [row.origin for row in raw.labelled] == [f"{folder}/train-*-of-00002.parquet:5"]
    (folder / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"1 of the pieces train-\*-of-00002.parquet are here"):
        read(tmp_path)


def test_a_snapshot_with_configurations_names_their_folders(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    tones(2).to_parquet(str(tmp_path / "en" / "train-00000-of-00001.parquet"))
    with pytest.raises(DataError, match=r"name one of the folders in it: en"):
        read(tmp_path)
    assert len(read(tmp_path / "en")[0]) == 2


def test_labels_have_their_names_wherever_they_stand(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["O", "B-x"])
    kinds = {"tone": label, "tags": datasets.List(label), "inner": {"of": label}, "many": datasets.List({"of": label})}
    features = datasets.Features(kinds)
    rows = [
        {"tone": -1, "tags": [0, 1], "inner": {"of": 1}, "many": [{"of": 0}, {"of": 1}]},
        {"tone": None, "tags": [], "inner": None, "many": None},
    ]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    values = [record.values for record in read_table(tmp_path / "rows.parquet").records]
    assert values[0] == {"tone": None, "tags": ["O", "B-x"], "inner": {"of": "B-x"}, "many": [{"of": "O"}, {"of": "B-x"}]}
    assert values[1]["tags"] == []


def test_records_are_counted_as_they_stand_however_they_are_taken(tmp_path: Path) -> None:
    tones(2500).to_parquet(str(tmp_path / "many.parquet"))
    records = read_columnar([tmp_path / "many.parquet"])
    assert [len(records), len(records[10:20]), len(records[20:10])] == [2500, 10, 0]
    assert [record.line for record in records] == list(range(1, 2501))
    assert [(record.line, record.values["phrase"]) for record in records[1999:2001]] == [
        (2000, "please 1999"),
        (2001, "please 2000"),
    ]
    assert records[-1].line == 2500


def test_a_damaged_arrow_file_and_pieces_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.arrow").write_bytes(b"\xff\xff\xff\xff\x10\x00\x00\x00")
    with pytest.raises(DataError, match=r"rows\.arrow: the Arrow file cannot be read"):
        read_table(tmp_path / "rows.arrow")
    tones(1).to_parquet(str(tmp_path / "train-00000-of-00002.parquet"))
    datasets.Dataset.from_list([{"other": 1}]).to_parquet(str(tmp_path / "train-00001-of-00002.parquet"))
    with pytest.raises(DataError, match="different columns"):
        parts_in(tmp_path)["train"].read()


def test_pieces_of_text_files_are_counted_through(tmp_path: Path) -> None:
    for place in range(2):
        (tmp_path / f"train-0000{place}-of-00002.csv").write_text(f"text,label\nrow {place},x\n")
    table = parts_in(tmp_path)["train"].read()
    assert [(record.line, record.values["text"]) for record in table.records] == [(1, "row 0"), (2, "row 1")]
    assert isinstance(parts_in(tmp_path)["train"], Part)
