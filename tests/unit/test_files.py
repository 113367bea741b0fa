from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from slmops import files


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "rows.jsonl"
    files.write_jsonl(file, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_jsonl(file, rows())
    assert files.read_jsonl(file) == [{"a": 1}]
    assert [path.name for path in file.parent.iterdir()] == ["rows.jsonl"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_json_and_json_lines_survive_a_round_trip(tmp_path: Path) -> None:
    value = {"é": ["😀", 1.5, None, "a\u2028b\nc"]}
    files.write_json(tmp_path / "a.json", value)
    files.write_jsonl(tmp_path / "a.jsonl", [value, 2])
    assert files.read_json(tmp_path / "a.json") == value
    assert files.read_jsonl(tmp_path / "a.jsonl") == [value, 2]
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_text_keeps_its_line_ends(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "one\ntwo\r\n")
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\r\n"


def test_equal_values_have_equal_digests() -> None:
    assert files.digest({"b": [1, 2], "a": "é"}) == files.digest({"a": "é", "b": (1, 2)})
    assert files.digest({"a": [1, 2]}) != files.digest({"a": [2, 1]})
    assert files.canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'


def test_a_file_and_a_folder_have_a_size_and_a_file_a_digest(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "in" / "b").write_bytes(b"123")
    assert (files.size_bytes(tmp_path), files.size_bytes(tmp_path / "a")) == (8, 5)
    assert files.file_digest(tmp_path / "a") == hashlib.sha256(b"12345").hexdigest()
