"""Plain text becomes passages, each with a beginning and what follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.data.plain_text import PlainText
from slmops.data.sources import SOURCES
from slmops.errors import DataError


def written(folder: Path, text: str, name: str = "text.txt") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_passages_follow_each_other_and_keep_their_lines(tmp_path: Path) -> None:
    file = written(tmp_path, 'One two\nthree.\n\n"Four  five." Six seven\neight nine! Ten eleven twelve\n')
    splits = PlainText(train=file, prompt_words=2, answer_words=2).read()
    assert [(row.question, row.answer, row.origin) for row in splits.labelled] == [
        ("One two", 'three.\n\n"Four  five."', f"{file}:1"),
        ("Six seven", "eight nine!", f"{file}:4"),
    ]
    assert (splits.pool, splits.validation, splits.test, splits.rejected) == ([], [], [], [])


def test_text_in_which_no_sentence_ends_in_time_is_left_out(tmp_path: Path) -> None:
    file = written(tmp_path, "a b c d e f\ng h.")
    assert [row.question for row in PlainText(train=file, prompt_words=1, answer_words=1).read().labelled] == ["g"]


def test_held_out_files_are_read_the_same_way(tmp_path: Path) -> None:
    files = {name: written(tmp_path, f"{name} a b c.", f"{name}.txt") for name in ("train", "validation", "test")}
    splits = PlainText(**files, prompt_words=3, answer_words=1).read()
    assert [row.question for row in (*splits.validation, *splits.test)] == ["validation a b", "test a b"]


def test_another_text_or_another_cut_is_another_source(tmp_path: Path) -> None:
    file = written(tmp_path, "a b c. d e f.")
    known = PlainText(train=file, prompt_words=2, answer_words=1).fingerprint()
    assert PlainText(train=file, prompt_words=2, answer_words=1).fingerprint() == known
    assert PlainText(train=file, prompt_words=1, answer_words=1).fingerprint() != known
    written(tmp_path, "a b c. d e g.")
    assert PlainText(train=file, prompt_words=2, answer_words=1).fingerprint() != known


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "0 words hold no passage of 72"), (b"\xff\xfe", "not UTF-8"), (None, "cannot be read")]
)
def test_what_is_no_text_is_said(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        SOURCES.get("plain-text")(train=tmp_path / "text.txt").read()
