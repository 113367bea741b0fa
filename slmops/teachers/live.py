"""A teacher that scores what its student says, while the student is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded, Template
from slmops.errors import ConfigError
from slmops.models.tokenmap import TokenMap
from slmops.signals.forms import TopKForm
from slmops.signals.topk import TopK
from slmops.teachers.local import LocalTeacher


@dataclass(frozen=True)
class LiveTeacher:
    """The distribution of a teacher on this machine at tokens that a student sampled, as it would be cached for these.

    Args:
        teacher: Who is asked.
        form: What is kept of its distribution.
        tokens: Which of its tokens is which of the student's.
        turns: A row as the teacher is asked it.
    """

    teacher: LocalTeacher
    form: TopKForm
    tokens: TokenMap
    turns: Callable[[Row], Row]

    @classmethod
    def of(cls, teacher: LocalTeacher, k: int, student: Template, turns: Callable[[Row], Row]) -> LiveTeacher:
        """The same for a student.

        Raises:
            ConfigError: The student has tokens that are not the teacher's.
        """
        tokens = TokenMap.between(teacher.template.tokenizer, student.tokenizer)
        if not tokens.part:
            raise other_tokens()
        return cls(teacher, TopKForm(k), tokens, turns)

    def score(self, rows: Sequence[Row], samples: Sequence[Sequence[int]]) -> list[TopK]:
        """The distributions at the tokens of samples, in the student's ids, as one batch.

        A token that the teacher lacks, a single byte, is the last one of its sample that has a distribution: which token
        stands at a position makes no difference to the distribution there.

        Args:
            rows: What was asked.
            samples: What the student said, in its ids.
        """
        read = [self._encoded(row, sample) for row, sample in zip(rows, samples, strict=True)]
        signals = [signal for signal in self.teacher.signals(read, self.form) if isinstance(signal, TopK)]
        if self.tokens.same:
            return signals
        return [signal.remapped(self.tokens.new_ids, len(self.tokens.smaller)) for signal in signals]

    def _encoded(self, row: Row, sample: Sequence[int]) -> Encoded:
        """A sample as the teacher reads it, up to the first token that it lacks."""
        prompt = tuple(self.teacher.template.prompt_ids(self.turns(row)))
        theirs = [self._theirs(number) for number in sample]
        end = theirs.index(None) if None in theirs else len(theirs)
        unread = int(self.teacher.template.tokenizer.eos_token_id)
        answer = tuple(unread if number is None else number for number in theirs[: end + 1])
        return Encoded(prompt + answer, (IGNORED,) * len(prompt) + answer)

    def _theirs(self, number: int) -> int | None:
        """The teacher's id of a student's token; ``None`` for those it lacks, and for rows that only pad a vocabulary."""
        known = self.tokens.old_ids
        return int(known[number]) if number < len(known) and known[number] >= 0 else None


def other_tokens() -> ConfigError:
    """What is wrong with a recipe whose teacher cannot read what its student samples, and what to do."""
    return ConfigError(
        "the teacher cannot score the student's own samples, which are made of other tokens than its own",
        where="training.on_policy",
        fix="take a student with the teacher's tokenizer, as one cut from it (without student.model) has, or leave on_policy out",
    )
