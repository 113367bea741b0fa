"""Whether new rows are new: no copies, no near duplicates of what is there, nothing of what is held out."""

from __future__ import annotations

from collections.abc import Sequence

from slmops.data.prepare import question_key
from slmops.data.quality.leakage import Overlap
from slmops.data.quality.near import EqualIndex, NearIndex
from slmops.data.rows import Row
from slmops.sections import QualitySection


def not_fresh(
    new: Sequence[Row], known: Sequence[Row], held_out: Sequence[Row], options: QualitySection | None = None
) -> list[str | None]:
    """Why each new row adds nothing or gives something away, else ``None``; of two that are alike the first one stays.

    Stricter than the pass over given rows: near duplicates go, whatever their answers and numbers.

    Args:
        new: The rows to judge.
        known: Training rows that are there already.
        held_out: Validation and test rows.
        options: Bounds of likeness.
    """
    options = options or QualitySection()
    there = [*held_out, *known]
    everything = [*there, *new]
    threshold = options.near_duplicates
    index = EqualIndex(everything) if threshold is None else NearIndex(everything, threshold)
    places: dict[str, int] = {}
    for place, row in enumerate(there):
        places.setdefault(question_key(row), place)
        index.add(place)
    overlap = Overlap(held_out, known)

    def problem(place: int, row: Row) -> str | None:
        same = places.setdefault(question_key(row), place)
        if same < len(held_out):
            return f"leak: the question of {everything[same].origin}"
        if same != place:
            return f"copy: the question of {everything[same].origin}"
        for other, share in index.similar(place)[:1]:
            kind = "leak" if other < len(held_out) else "near duplicate"
            return f"{kind}: {share:.2f} of {everything[other].origin}"
        found = overlap.most(row)
        if found is not None and found[1] >= options.leak_overlap:
            return f"leak: it holds {found[1]:.0%} of {found[0].origin}"
        index.add(place)
        return None

    return [problem(place, row) for place, row in enumerate(new, len(there))]
