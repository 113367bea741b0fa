"""What is kept of a teacher's layers for a student, as far as both read the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError
from slmops.models.layers import LayerPair
from slmops.signals.internals import Internals, Layers, RowInternals
from slmops.signals.store import SignalStore


@dataclass(frozen=True)
class MatchedLayers:
    """What is kept of a teacher's layers, and where it is about the student's tokens.

    A hidden state is about the student's tokens where the answer is split alike; attention, which looks at all tokens up to
    the answer, where the prompt is the same and split alike, too. Elsewhere a row has no loss on layers.

    Args:
        store: Of the teacher.
        layers: Those that are kept.
        pairs: Of each loss on layers, in the recipe's order.
        student: How rows become the student's tokens.
        new_ids: int64, by the teacher's token id: the student's, or -1; ``None`` where they are the same.
    """

    store: SignalStore
    layers: Layers
    pairs: Sequence[Sequence[LayerPair]]
    student: Template
    new_ids: np.ndarray | None = None

    def get(self, row: Row) -> RowInternals:
        """What is kept for a row.

        Raises:
            FingerprintError: There is nothing for this question and answer.
        """
        kept = self.store.get(row)
        assert isinstance(kept, Internals)
        own = self.student.encode(row)
        theirs = np.asarray(kept.ids, np.int64) if self.new_ids is None else self.new_ids[kept.ids]
        ours = np.array(own.input_ids[:-1])  # all but the end token, which is read by none
        start = int(kept.sizes[0])
        answer = len(kept) == len(own.answer_ids) and bool((theirs[start:] == ours[own.prompt_length :]).all())
        return RowInternals(kept, answer, answer and np.array_equal(theirs, ours))

    def check(self, rows: Sequence[Row]) -> str:
        """How many rows have a loss on layers, for people.

        Raises:
            ConfigError: None has.
        """
        found = [self.get(row) for row in rows]
        counts = {}
        if self.layers.hidden:
            counts["hidden states"] = sum(row.answer for row in found)
        if self.layers.attention:
            counts["attention"] = sum(row.whole for row in found)
        for what, count in counts.items():
            if not count:
                raise ConfigError(
                    f"the teacher's {what} can be compared in no row, as it reads other tokens than the student in all of them",
                    where="training.objectives",
                    fix="take losses on tokens alone" + (", or hidden_states" if what == "attention" else ""),
                )
        return "  compared with the teacher's: " + ", ".join(
            f"{what} in {count:,} of {len(rows):,} rows" for what, count in counts.items()
        )
