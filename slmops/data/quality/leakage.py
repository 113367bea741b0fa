"""Leakage: held-out texts that stand, whole or nearly so, inside training texts (n-gram overlap).

Equal and nearly equal questions are found as duplicates; this finds a held-out text inside a longer one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from slmops.data.quality.near import compared_text
from slmops.data.rows import Row

_WORDS = 8
_LEAST_GRAMS = 4
_MOST_ROWS = 3
"""Rows of one side with the same n-gram; what stands in more is an instruction or a passage that many questions share."""


class Overlap:
    """How much of each held-out text stands in a training text.

    Args:
        held_out: Validation and test rows. Those of fewer than eleven words have too few 8-grams to tell anything.
        training: Rows to train on.
    """

    def __init__(self, held_out: Sequence[Row], training: Sequence[Row]) -> None:
        self._held_out = held_out
        rows_with: defaultdict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(held_out):
            for gram in set(_grams(row)):
                rows_with[gram].append(index)
        seen = Counter(gram for row in training for gram in set(_grams(row)) if gram in rows_with) if rows_with else Counter[int]()
        self._rows_with = {gram: rows for gram, rows in rows_with.items() if len(rows) <= _MOST_ROWS and seen[gram] <= _MOST_ROWS}
        self._sizes = Counter(index for rows in self._rows_with.values() for index in rows)

    def most(self, row: Row) -> tuple[Row, float] | None:
        """The held-out row of which the largest share of n-grams stands in a training row, and that share."""
        found: Counter[int] = Counter()
        for gram in set(_grams(row)):
            found.update(self._rows_with.get(gram, ()))
        shares = [(count / self._sizes[index], -index) for index, count in found.items() if self._sizes[index] >= _LEAST_GRAMS]
        if not shares:
            return None
        share, index = max(shares)
        return self._held_out[-index], share


def _grams(row: Row) -> Iterator[int]:
    words = compared_text(row).split()
    return (hash(tuple(words[start : start + _WORDS])) for start in range(len(words) - _WORDS + 1))
