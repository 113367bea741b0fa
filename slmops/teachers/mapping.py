"""A teacher's signals for a student whose vocabulary is a part of the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.models.tokenmap import TokenMap
from slmops.signals.distribution import Distribution
from slmops.signals.sampled import Sampled
from slmops.signals.store import SignalStore
from slmops.signals.topk import TopK
from slmops.teachers.logprobs import certain_signal


@dataclass(frozen=True)
class MappedSignals:
    """Signals under the student's token ids.

    A row whose answer both split into the same tokens has the teacher's distribution, with the mass of tokens that the
    student lacks in its tail; of drawn tokens those that it lacks do not count. Where the student needs more tokens for an
    answer, positions are not the teacher's: such a row learns from its answer alone.

    Args:
        store: The teacher's signals.
        teacher: How rows become the teacher's tokens.
        student: The same of the student.
        tokens: Which token is which.
    """

    store: SignalStore
    teacher: Template
    student: Template
    tokens: TokenMap

    def get(self, row: Row) -> Distribution:
        """The signal at the answer tokens of a row, as the student splits it.

        Raises:
            FingerprintError: There is none for this question and answer.
        """
        signal = self.store.get(row)
        size, answer = len(self.student.tokenizer), self.student.encode(row).answer_ids
        if isinstance(signal, Sampled):
            return signal.remapped(self.tokens.new_ids, size, answer) if self.fits(row) else Sampled.certain(answer, size)
        assert isinstance(signal, TopK)
        if not self.fits(row):
            return certain_signal(self.student, row, signal.ids.shape[-1])
        return signal.remapped(self.tokens.new_ids, size)

    def fits(self, row: Row) -> bool:
        """Whether the answer of a row has the same tokens for both."""
        return self.tokens.moved(self.teacher.encode(row).answer_ids) == list(self.student.encode(row).answer_ids)

    def describe(self, rows: Sequence[Row]) -> str:
        """How many rows have the teacher's distribution, for people."""
        fitting = sum(map(self.fits, rows))
        others = "" if fitting == len(rows) else "; the others learn from their answers alone"
        return f"  signals of {fitting:,} of {len(rows):,} rows fit the student's {len(self.student.tokenizer):,} tokens{others}"
