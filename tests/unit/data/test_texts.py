"""Texts from files, folders and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.data.given import detect_task, named_source
from slmops.data.texts import Texts
from slmops.errors import ConfigError, DataError


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def questions(source: Texts) -> list[list[str]]:
    raw = source.read()
    assert raw.labelled == raw.test == []
    return [[row.question for row in rows] for rows in (raw.pool, raw.validation)]


def test_a_file_is_one_text_as_it_stands(tmp_path: Path) -> None:
    file = written(tmp_path / "corpus.txt", "\ufeffOne, two;\n\n  three\n")
    assert questions(Texts(train=str(file))) == [["One, two;\n\n  three\n"], []]
    other = written(tmp_path / "other.md", "# four")
    assert questions(Texts(train=str(file), validation=other)) == [["One, two;\n\n  three\n"], ["# four"]]


def test_a_folder_holds_a_text_a_file_below_it_too(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.md", ".git/d.txt", "a/picture.png"):
        written(tmp_path / name, name)
    assert questions(Texts(train=str(tmp_path))) == [["a/c.md", "b.txt"], []]
    assert questions(Texts(train=str(tmp_path), train_split="train[:1]", validation_split="train[1:]")) == [["a/c.md"], ["b.txt"]]


def test_files_that_are_called_after_splits_belong_to_them(tmp_path: Path) -> None:
    for name in ("train.txt", "valid.txt", "test.txt"):
        written(tmp_path / name, name)
    assert questions(Texts(train=str(tmp_path))) == [["train.txt"], ["valid.txt"]]
    assert questions(Texts(train=str(tmp_path), validation_split="test")) == [["train.txt"], ["test.txt"]]
    with pytest.raises(DataError, match="there is no split other"):
        Texts(train=str(tmp_path), train_split="other").read()


def test_a_table_holds_a_text_a_row(tmp_path: Path) -> None:
    rows = [{"text": "one", "by": "A", "year": 1}, {"text": "two", "by": "B", "year": 2}, {"text": None, "by": "C", "year": 3}]
    file = written(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    raw = Texts(train=str(file), train_split="train[1:]").read()
    assert [(row.question, row.origin) for row in raw.pool] == [("two", f"{file}:2")]
    assert [(bad.origin, bad.reason) for bad in raw.rejected] == [(f"{file}:3", "empty field 'text'")]
    assert questions(Texts(train=str(file), text_template="{by} ({year})\n{by}"))[0] == ["A (1)\nA", "B (2)\nB", "C (3)\nC"]
    assert questions(Texts(train=str(file), text_field="by"))[0] == ["A", "B", "C"]
    with pytest.raises(DataError, match=r"there is no column 'author'(.|\n)*'by'|known: by"):
        Texts(train=str(file), text_field="author").read()


def test_what_holds_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no text in it"):
        Texts(train=str(written(tmp_path / "empty.txt", " \n"))).read()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Texts(train=str(tmp_path / "missing.txt")).fingerprint()
    with pytest.raises(DataError, match=r"there is no text\n.*rows.jsonl:1: empty field 'text'"):
        Texts(train=str(written(tmp_path / "rows.jsonl", '{"text": ""}\n'))).read()
    with pytest.raises(ConfigError, match="exclude each other"):
        Texts(train=str(tmp_path / "rows.jsonl"), text_field="text", text_template="{text}").read()


def test_another_text_or_another_part_is_another_source(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "one")
    known = Texts(train=str(file)).fingerprint()
    moved = Texts(train=str(written(tmp_path / "b.txt", "one"))).fingerprint()
    assert moved == known
    assert Texts(train=str(file), train_split="train[:1]").fingerprint() != known
    written(file, "two")
    assert Texts(train=str(file)).fingerprint() != known


def test_a_template_without_an_answer_is_about_texts(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n')
    named = named_source(file)
    source, kind, said = detect_task(named, {"text_template": "{text}"}, None)
    assert (source, kind) == ({"name": "texts", "train": str(file), "text_template": "{text}"}, "text")
    assert "texts without answers" in said
    assert detect_task(named, {"input_field": "text"}, "text")[0]["text_field"] == "text"
    assert detect_task({"name": "hub", "id": "some/tones", "config": "en"}, {}, "text")[0]["train"] == "some/tones:en"
    assert detect_task(named, {"text_template": "{text} => {label}"}, None)[1] == "generation"
    with pytest.raises(ConfigError, match="texts have no answer"):
        detect_task(named, {"answer_field": "label"}, "text")
