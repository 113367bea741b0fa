"""The split syntax of the ``datasets`` library for local files: ``train[:4096]``, ``train[10%:20%]``, ``train[-100:]``.

Parts are added with ``+``. Numbers count records as they stand in the file, bad ones too, and may be more than there are;
percentages round to the nearest record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from slmops.errors import DataError

_PIECE = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
"""What the splits that are known here are called."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Split:
    """Parts of one split, in order.

    Args:
        text: As it was written.
        name: ``train``, ``validation``, ``test``, or another that a data set has.
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
        beyond = [bound for match in matches for bound in match.groups()[1:] if bound and _is_beyond(bound)]
        if beyond:
            raise DataError(f"{text!r} is more than all of it", where="split", fix="write train[10%:20%]")
        names = {split_name(match[1]) for match in matches}
        if len(names) > 1:
            raise DataError(f"{text!r} adds parts of several splits", where="split", fix="write train[:10]+train[-10:]")
        name = names.pop()
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


def split_name(name: str) -> str:
    """The name that a split has here; ``dev`` and ``valid`` are ``validation``."""
    return SPLIT_NAMES.get(name, name)


def _is_beyond(bound: str) -> bool:
    return bound.endswith("%") and abs(int(bound.removesuffix("%"))) > 100


def _bound(text: str, count: int, without: int) -> int:
    if not text:
        return without
    number = int(text.removesuffix("%"))
    place = round(number * count / 100) if text.endswith("%") else number
    return max(0, min(count, place + count if number < 0 else place))
