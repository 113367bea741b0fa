"""Leakage: test rows that stand in the data a model was trained on, whole, nearly so, or inside a longer text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slmops.data.prepare import question_key
from slmops.data.quality.examine import same_answer
from slmops.data.quality.leakage import Overlap
from slmops.data.quality.near import EqualIndex, NearIndex, same_numbers
from slmops.data.rows import Row
from slmops.errors import MissingExtraError
from slmops.sections import QualitySection

_SHOWN = 80


@dataclass(frozen=True)
class Leak:
    """A test row and the training row that gives it away.

    Args:
        row: Of the test.
        of: Of the training data.
        kind: The ``same`` question; one ``near`` to it, with the same numbers and no other answer; or the question stands
            ``inside`` a longer training text.
        share: How alike: Jaccard index of shingles, or share of the test row's 8-grams; 1 for the same.
    """

    row: Row
    of: Row
    kind: Literal["same", "near", "inside"]
    share: float

    def __str__(self) -> str:
        """A line for people."""
        said = {"same": "is", "near": f"is {self.share:.2f} of", "inside": f"stands, {self.share:.0%} of it, in"}[self.kind]
        return f"{_short(self.row.question)} {said} {_short(self.of.question)} ({self.of.origin})"


@dataclass(frozen=True)
class Leaks:
    """What was found.

    Args:
        found: One a test row at most, in their order.
        rows: Test rows that were looked at.
        near: Whether near duplicates were looked for; without the extra ``quality`` only the same words are found.
    """

    found: tuple[Leak, ...]
    rows: int
    near: bool

    @property
    def share(self) -> float:
        """Of the test rows."""
        return len(self.found) / self.rows if self.rows else 0.0


def leaked(test: Sequence[Row], train: Sequence[Row], options: QualitySection | None = None) -> Leaks:
    """The test rows that stand in training data, by the same rules as the data stage sets rows aside.

    Args:
        test: Rows that models are measured with.
        train: Rows that one of them was trained on.
        options: Bounds of what is near, and of what stands inside.
    """
    bounds = options or QualitySection()
    same = {question_key(row): row for row in reversed(train)}
    everything = [*test, *train]
    index, near = _index(everything, bounds.near_duplicates)
    for at in range(len(test), len(everything)):
        index.add(at)
    inside = _inside(test, train, bounds.leak_overlap)
    found = []
    for at, row in enumerate(test):
        if (equal := same.get(question_key(row))) is not None:
            found.append(Leak(row, equal, "same", 1.0))
            continue
        like = [(everything[other], share) for other, share in index.similar(at)]
        sure = next(((other, share) for other, share in like if same_answer(row, other) and same_numbers(row, other)), None)
        if sure is not None:
            found.append(Leak(row, sure[0], "near", sure[1]))
        elif at in inside:
            found.append(inside[at])
    return Leaks(tuple(found), len(test), near)


def _index(rows: Sequence[Row], threshold: float | None) -> tuple[NearIndex | EqualIndex, bool]:
    if threshold is not None:
        try:
            return NearIndex(rows, threshold), True
        except MissingExtraError:
            pass
    return EqualIndex(rows), False


def _inside(test: Sequence[Row], train: Sequence[Row], least: float) -> dict[int, Leak]:
    """The leak of each test row, by its place, that stands inside a training text."""
    places = {id(row): at for at, row in enumerate(test)}
    overlap = Overlap(test, train)
    found: dict[int, Leak] = {}
    for row in train:
        most = overlap.most(row)
        if most is not None and most[1] >= least and same_answer(most[0], row):
            found.setdefault(places[id(most[0])], Leak(most[0], row, "inside", most[1]))
    return found


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return repr(plain if len(plain) <= _SHOWN else plain[: _SHOWN - 1] + "…")
