"""Pairs of rows of one answer, and of two, for a loss that compares what a model makes of their questions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from slmops.data.rows import Row
from slmops.data.templates import Encoded
from slmops.errors import TrainingError
from slmops.tasks.labels import form
from slmops.training.pairs import Pair


def row_pairs(plan: Sequence[Sequence[int]], rows: Sequence[Row], encoded: Sequence[Encoded], seed: int) -> list[list[Pair]]:
    """A partner for each row of each batch: as often one with the same answer as one with another, of any other label alike.

    Which partner a row has the first time, the second time and so on depends on nothing but the seed, so it is the same
    however rows are put into batches. What is compared are the questions as the template renders them, without the answers.

    Args:
        plan: Row indices of each batch.
        rows: Training rows.
        encoded: Their tokens.
        seed: Of the partners.

    Raises:
        TrainingError: All rows have one answer, or no two have the same.
    """
    labels = [form(str(row.answer)) for row in rows]
    members: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    if len(members) < 2 or len(members) == len(rows):
        what = f"all rows have the answer {rows[0].answer!r}" if len(members) < 2 else "no two rows have the same answer"
        raise TrainingError(
            f"{what}, so there are no pairs to compare",
            where="training.objectives",
            fix="a loss on pairs of rows needs labels as answers, each of several rows",
        )
    names = sorted(members)
    seen: Counter[int] = Counter()

    def partner(row: int) -> Pair:
        rng = random.Random(f"{seed}:{row}:{seen[row]}")
        seen[row] += 1
        own = labels[row]
        same = [other for other in members[own] if other != row]
        if same and rng.random() < 0.5:
            return Pair(_question(encoded[row]), _question(encoded[rng.choice(same)]), False)
        place = rng.randrange(len(names) - 1)
        label = names[place + (place >= names.index(own))]
        return Pair(_question(encoded[row]), _question(encoded[rng.choice(members[label])]), True)

    return [[partner(row) for row in batch] for batch in plan]


def _question(row: Encoded) -> tuple[int, ...]:
    return row.input_ids[: row.prompt_length]
