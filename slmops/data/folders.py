"""The files of a data set: one, several that follow each other, or a folder with a part for each split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from slmops.data.columnar import format_of, read_columnar
from slmops.data.readers import read_table
from slmops.data.records import Table
from slmops.data.split_syntax import SPLIT_NAMES, split_name
from slmops.errors import DataError
from slmops.files import digest, file_digest, read_json

_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_STATE, _DICT = "state.json", "dataset_dict.json"
_SNAPSHOT_DATA = "data"


class Part(NamedTuple):
    """One split on disk.

    ``name`` is what it is called in messages, ``files`` what it lies in, one behind the other.
    """

    name: Path
    files: tuple[Path, ...]

    @classmethod
    def at(cls, path: Path) -> Part:
        """A file, or a folder as ``Dataset.save_to_disk`` leaves it."""
        return cls(path, _saved_files(path) if (path / _STATE).is_file() else (path,))

    def read(self, names: Sequence[str] = ()) -> Table:
        """Its records; of several files they are counted through.

        Args:
            names: The columns of CSV and TSV files that have no header.

        Raises:
            DataError: A file is missing or cannot be read.
            MissingExtraError: Parquet or Arrow files, and pyarrow is not installed.
        """
        if len(self.files) == 1:
            return replace(read_table(self.files[0], names), path=self.name)
        formats = [format_of(file) for file in self.files]
        if all(formats):
            return Table(self.name, str(formats[0]), "UTF-8", read_columnar(self.files))
        tables = [read_table(file, names) for file in self.files]
        records = chain.from_iterable(table.records for table in tables)
        counted = [record._replace(line=number) for number, record in enumerate(records, 1)]
        return replace(tables[0], path=self.name, records=counted)

    def digest(self) -> str:
        """Hash of the contents.

        Raises:
            DataError: A file cannot be read.
        """
        found = [_digest(file) for file in self.files]
        return found[0] if len(found) == 1 else digest(found)


def parts_in(folder: Path) -> dict[str, Part]:
    """The splits in a folder, by their names.

    It may be as ``save_to_disk`` of the library ``datasets`` leaves it, or have files that are called after their splits, in it or
    in its folder ``data``: ``train.jsonl``, ``dev.tsv``, or in pieces as sets on the hub have them,
    ``train-00000-of-00002.parquet``.

    Raises:
        DataError: There is no training file, or two files for one split; a piece is missing.
    """
    if (folder / _STATE).is_file():
        return {"train": Part.at(folder)}
    if (folder / _DICT).is_file():
        return {split_name(name): Part.at(folder / name) for name in read_json(folder / _DICT)["splits"]}
    found = _named_files(folder)
    if not found and (folder / _SNAPSHOT_DATA).is_dir():
        found = _named_files(folder / _SNAPSHOT_DATA)
    if not found or not (set(found) - {"validation", "test"}):
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and _named_files(path))
        fix = f"name one of the folders in it: {', '.join(inside)}" if inside else "name the file itself"
        raise DataError("no file train.* in this folder", where=str(folder), fix=fix)
    return found


def _named_files(folder: Path) -> dict[str, Part]:
    """Whole files with the name of a split, and pieces of a split with any name."""
    found: dict[str, Part] = {}
    pieces: dict[str, list[Path]] = {}
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        piece = _SHARD.fullmatch(file.stem)
        if piece is not None:
            pieces.setdefault(f"{piece['split']}-*-of-{piece['count']}{file.suffix}", []).append(file)
        elif file.stem in SPLIT_NAMES:
            _add(found, split_name(file.stem), Part(file, (file,)), folder)
    for name, files in pieces.items():
        piece = _SHARD.fullmatch(files[0].stem)
        if piece is None or len(files) != int(piece["count"]):
            raise DataError(
                f"{len(files)} of the pieces {name} are here", where=str(folder), fix="fetch the others, or name one file"
            )
        _add(found, split_name(piece["split"]), Part(files[0] if len(files) == 1 else folder / name, tuple(files)), folder)
    return found


def _add(found: dict[str, Part], name: str, part: Part, folder: Path) -> None:
    if name in found:
        raise DataError(
            f"both {found[name].name.name} and {part.name.name} are {name}", where=str(folder), fix="name the file itself"
        )
    found[name] = part


def _saved_files(folder: Path) -> tuple[Path, ...]:
    return tuple(folder / Path(entry["filename"]).name for entry in read_json(folder / _STATE)["_data_files"])


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=str(path), fix="check the path") from error
