"""The split syntax of the ``datasets`` library for local files: ``train[:4096]``, ``train[10%:20%]``, ``train[-100:]``.

Parts are added with ``+``. Numbers count records as they stand in the file, bad ones too; percentages round to the nearest record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from slmops.errors import DataError

_PIECE = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")
_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Split:
    """Parts of one split, in order.

    Args:
        text: As it was written.
        name: ``train``, ``validation`` or ``test``.
        pieces: Where each begins and ends, as written; empty for the ends of the split.
    """

    text: str
    name: str
    pieces: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Split:
        """Read one.

        Raises:
            DataError: It is written otherwise, or adds parts of different splits.
        """
        found = [_PIECE.fullmatch(piece.strip()) for piece in text.split("+")]
        matches = [match for match in found if match is not None]
        if len(matches) < len(found):
            raise DataError(
                f"{text!r} is no split", where="split", fix="write train[:4096], train[10%:20%] or train[:10]+train[-10:]"
            )
        names = {_NAMES.get(match[1]) for match in matches}
        name = names.pop()
        if name is None or names:
            raise DataError(
                f"{text!r} does not name one of the splits train, validation and test", where="split", fix="such as train[:80%]"
            )
        return cls(text, name, tuple((match[2] or "", match[3] or "") for match in matches))

    def of(self, records: Sequence[_T], where: str) -> list[_T]:
        """The records of all parts.

        Raises:
            DataError: There are none.
        """
        count = len(records)
        chosen = [record for start, end in self.pieces for record in records[_bound(start, count, 0) : _bound(end, count, count)]]
        if not chosen:
            raise DataError(f"{self.text!r} holds none of the {count:,} records", where=where, fix="take a part that the file has")
        return chosen


def files_in(folder: Path) -> dict[str, Path]:
    """The file of each split in a folder, by their names: ``train.jsonl``, ``validation.csv``, ``dev.tsv``, ``test.parquet``.

    Raises:
        DataError: There is no training file, or two files for one split.
    """
    found: dict[str, Path] = {}
    for file in sorted(path for path in folder.iterdir() if path.is_file() and path.stem in _NAMES):
        name = _NAMES[file.stem]
        if name in found:
            raise DataError(f"both {found[name].name} and {file.name} are {name}", where=str(folder), fix="name the file itself")
        found[name] = file
    if "train" not in found:
        raise DataError("no file train.* in this folder", where=str(folder), fix="name the file itself")
    return found


def _bound(text: str, count: int, without: int) -> int:
    if not text:
        return without
    number = int(text.removesuffix("%"))
    place = round(number * count / 100) if text.endswith("%") else number
    return max(0, min(count, place + count if number < 0 else place))
