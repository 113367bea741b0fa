"""Work in chunks: an interrupted run goes on where it stopped, and chunks depend on the items alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from slmops.files import read_json, write_json
from slmops.teachers.chunks import in_chunks

WORDS = ["a", "bbb", "cc", "dddd", "ee", "f", "ggg"]
Make = Callable[[Sequence[str], Path], None]


def shout(words: Sequence[str], folder: Path, make: Make | None = None, size: int = 3) -> dict[str, str]:
    def upper(chunk: Sequence[str], file: Path) -> None:
        write_json(file, [word.upper() for word in chunk])

    found: dict[str, str] = {}
    options = {"size": size, "length": len, "key": str, "folder": folder, "suffix": ".json", "what": "shouting"}
    for chunk, file in in_chunks(words, make=make or upper, **options):
        found |= dict(zip(chunk, read_json(file), strict=True))
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_every_item_is_worked_on(tmp_path: Path) -> None:
    assert shout(WORDS, tmp_path) == {word: word.upper() for word in WORDS}
    assert len(files_in(tmp_path)) == 3


def test_items_of_like_length_share_a_chunk(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def note(chunk: Sequence[str], file: Path) -> None:
        seen.append(list(chunk))
        write_json(file, list(chunk))

    shout(WORDS, tmp_path, note)
    assert seen == [["a", "f", "cc"], ["ee", "bbb", "ggg"], ["dddd"]]


def test_an_interrupted_run_makes_only_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[Sequence[str]] = []

    def once(chunk: Sequence[str], file: Path) -> None:
        if made:
            raise KeyboardInterrupt
        made.append(chunk)
        write_json(file, list(chunk))

    with pytest.raises(KeyboardInterrupt):
        shout(WORDS, tmp_path, once)
    (first,) = files_in(tmp_path)

    def rest(chunk: Sequence[str], file: Path) -> None:
        assert file.name != first
        made.append(chunk)
        write_json(file, list(chunk))

    capsys.readouterr()
    assert shout(WORDS, tmp_path, rest).keys() == set(WORDS)
    assert sorted(word for chunk in made for word in chunk) == sorted(WORDS)
    assert "shouting: 7/7 rows" in capsys.readouterr().err

    def never(chunk: Sequence[str], file: Path) -> None:
        raise AssertionError(chunk)

    shout(WORDS, tmp_path, never)


def test_chunks_do_not_depend_on_the_order_of_the_items(tmp_path: Path) -> None:
    shout(WORDS, tmp_path / "straight")
    shout(WORDS[::-1], tmp_path / "turned")
    shout(sorted(WORDS), tmp_path / "sorted")
    assert files_in(tmp_path / "straight") == files_in(tmp_path / "turned") == files_in(tmp_path / "sorted")


def test_other_items_are_other_chunks(tmp_path: Path) -> None:
    shout(WORDS, tmp_path)
    before = files_in(tmp_path)
    shout([*WORDS[:-1], "zzz"], tmp_path)
    assert len(files_in(tmp_path)) == len(before) + 1  # the chunk with the changed word alone is another one


def test_nothing_to_do_is_fine(tmp_path: Path) -> None:
    assert shout([], tmp_path) == {}
