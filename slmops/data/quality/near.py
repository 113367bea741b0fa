"""Near duplicates: MinHash finds candidates (Broder 1997), the true Jaccard index of their shingles decides.

Shingles are five characters of the normalised text, so that texts of a few words can be compared too. What a fifth of
all rows share, such as the same instruction before every question, says nothing and is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from slmops.data.prepare import normal
from slmops.data.rows import Row
from slmops.errors import MissingExtraError

_SHINGLE = 5
_PERMUTATIONS = 128
_SCHEME = "affine32"
_MOST_CANDIDATES = 200
_LARGEST_THRESHOLD = 0.95
"""Of the search for candidates, which needs several bands; the true index decides."""
_LEAST_ROWS_FOR_COMMON = 50
_COMMON_SHARE = 0.2
_LEAST_SHINGLES = 8
_NO_WORD = re.compile(r"[^\w\s]|_")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class NearIndex:
    """Finds the rows added before that are like another one.

    Args:
        rows: All rows that will be asked for; an index into them stands for a row.
        threshold: Least Jaccard index, 0 to 1.

    Raises:
        MissingExtraError: datasketch is not installed.
    """

    def __init__(self, rows: Sequence[Row], threshold: float) -> None:
        try:
            from datasketch import MinHashLSH
        except ModuleNotFoundError as error:
            raise MissingExtraError("datasketch", "quality", without="near_duplicates: null finds equal words alone") from error

        self._threshold = threshold
        self._numbers: dict[str, int] = {}
        self._hashes: list[int] = []
        self._shingles = self._without_common([self._of(compared_text(row)) for row in rows])
        self._lsh: Any = MinHashLSH(threshold=min(threshold, _LARGEST_THRESHOLD), num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
        self._sketches: dict[int, Any] = {}
        self._permutations: Any = None

    def similar(self, index: int) -> list[tuple[int, float]]:
        """Added rows at least as like as the threshold, with their Jaccard index, most alike first."""
        if not self._shingles[index]:
            return []
        candidates = sorted(self._lsh.query(self._sketch(index)))[:_MOST_CANDIDATES]
        scored = [(other, jaccard(self._shingles[index], self._shingles[other])) for other in candidates if other != index]
        return sorted((pair for pair in scored if pair[1] >= self._threshold), key=lambda pair: (-pair[1], pair[0]))

    def add(self, index: int) -> None:
        """Make a row one that others can be like."""
        if self._shingles[index]:
            self._lsh.insert(index, self._sketch(index), check_duplication=False)
        self._sketches.pop(index, None)

    def _of(self, text: str) -> frozenset[int]:
        numbers = self._numbers
        return frozenset(
            numbers.setdefault(text[start : start + _SHINGLE], len(numbers)) for start in range(max(1, len(text) - _SHINGLE + 1))
        )

    def _without_common(self, shingles: list[frozenset[int]]) -> list[frozenset[int]]:
        self._hashes = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") for text in self._numbers]
        if len(shingles) < _LEAST_ROWS_FOR_COMMON:
            return shingles
        rows_with = Counter(number for of_row in shingles for number in of_row)
        common = {number for number, rows in rows_with.items() if rows > _COMMON_SHARE * len(shingles)}
        rest = [of_row - common for of_row in shingles]
        return [few if len(few) >= _LEAST_SHINGLES else of_row for few, of_row in zip(rest, shingles, strict=True)]

    def _sketch(self, index: int) -> Any:
        from datasketch import MinHash

        if index not in self._sketches:
            sketch = MinHash(num_perm=_PERMUTATIONS, hashfunc=int, permutations=self._permutations, scheme=_SCHEME)
            self._permutations = sketch.permutations
            sketch.update_batch([self._hashes[number] for number in self._shingles[index]])
            self._sketches[index] = sketch
        return self._sketches[index]


class EqualIndex:
    """Finds the rows added before that have the same words as another one: the floor below :class:`NearIndex`.

    Args:
        rows: All rows that will be asked for; an index into them stands for a row.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._texts = [compared_text(row) for row in rows]
        self._with: dict[str, list[int]] = {}

    def similar(self, index: int) -> list[tuple[int, float]]:
        """Added rows with the same words, each with the Jaccard index 1."""
        return [(other, 1.0) for other in self._with.get(self._texts[index], ())]

    def add(self, index: int) -> None:
        """Make a row one that others can be like."""
        self._with.setdefault(self._texts[index], []).append(index)


def compared_text(row: Row) -> str:
    """What two rows are compared by: the words of all turns but the system's, without case and any punctuation."""
    text = normal("\n".join(turn["content"] for turn in row.messages if turn["role"] != "system"))
    return " ".join(_NO_WORD.sub(" ", text).split()) or text


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """Shared elements as a share of all elements of two sets that are not both empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def same_numbers(one: Row, other: Row) -> bool:
    """Whether two questions have the same numbers in the same order; with other numbers they are other questions."""
    return numbers_of(one) == numbers_of(other)


def numbers_of(row: Row) -> list[str]:
    """The numbers of a question, as they stand there, in their order."""
    found: list[str] = _NUMBER.findall(" ".join(turn["content"] for turn in row.messages))
    return found


class Groups:
    """Which rows belong together, by their ids (union-find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def join(self, one: str, other: str) -> None:
        """Put the groups of two rows together."""
        first, second = sorted((self.of(one), self.of(other)))
        self._above[second] = first

    def of(self, row: str) -> str:
        """The group of a row: the smallest id in it, or its own id where it is alone."""
        root = row
        while (above := self._above.get(root, root)) != root:
            root = above
        while (above := self._above.get(row, row)) != root:
            self._above[row], row = root, above
        return root

    def as_dict(self) -> dict[str, str]:
        """Group by row, for the rows that are not alone."""
        return {row: self.of(row) for row in self._above} | {self.of(row): self.of(row) for row in self._above}
