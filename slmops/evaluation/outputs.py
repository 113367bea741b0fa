"""The answers of a model to the test rows, with what else is known of them, as measures read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from slmops.data.rows import Row
from slmops.errors import DataError
from slmops.tasks.base import Task, nearest_answer, read_answer

Loss = tuple[float, int, int]
"""Of a text: negative log-likelihood in nats, tokens that it is the sum of, UTF-8 bytes of the text."""


@dataclass(frozen=True)
class Outputs:
    """What a model made of the test rows; everything is in their order.

    Args:
        task: Reads answers.
        rows: The test rows with their right answers.
        answers: As generated.
        teacher: The teacher's answers, for agreement.
        confidences: Probability that the model gave its own answer, for calibration; NaN where it is not known.
        losses: Of each reference text, for perplexity.
        scores: Scores of the rows that are found elsewhere, by measure: a judge's ``win_rate`` and ``rubric_score``, the
            ``similarity`` of embeddings. NaN where a row has none; it does not count then.

    Raises:
        DataError: There are no rows, or not one of everything for each row.
    """

    task: Task
    rows: Sequence[Row]
    answers: Sequence[str]
    teacher: Sequence[str] | None = None
    confidences: Sequence[float] | None = None
    losses: Sequence[Loss] | None = None
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError("there are no test rows to measure answers on")
        given = {"answers": self.answers, "teacher": self.teacher, "confidences": self.confidences, "losses": self.losses}
        for name, values in {**given, **self.scores}.items():
            if values is not None and len(values) != len(self.rows):
                raise DataError(f"{len(values):,} {name} for {len(self.rows):,} test rows")

    @cached_property
    def references(self) -> list[str]:
        """The right answers as they stand in the data; where a row has several, the one that its answer is nearest to.

        Raises:
            DataError: A row has none.
        """
        for row in self.rows:
            if row.answer is None:
                raise DataError("the row has no answer to compare with", where=row.origin or row.id, fix="label it or leave it out")
        return [nearest_answer(self.task, answer, row) for answer, row in zip(self.answers, self.rows, strict=True)]

    @cached_property
    def read(self) -> list[str | None]:
        """The answers in their normal form, ``None`` where one is not valid."""
        return [read_answer(self.task.parse, answer) for answer in self.answers]

    @cached_property
    def texts(self) -> list[str]:
        """The same as measures of texts take them: an invalid answer is an empty one."""
        return [answer or "" for answer in self.read]

    @cached_property
    def expected(self) -> list[str]:
        """The references in their normal form."""
        return [self.task.parse(reference) for reference in self.references]

    @cached_property
    def correct(self) -> list[bool]:
        """Whether each answer is right."""
        return [self.task.correct(answer, reference) for answer, reference in zip(self.answers, self.references, strict=True)]

    @cached_property
    def scored(self) -> list[str]:
        """The measures that the task scores by itself."""
        return list(self.task.score(self.answers[:1], self.references[:1]))

    @cached_property
    def row_scores(self) -> list[dict[str, float]]:
        """The task's own measures of each row by itself."""
        return [self.task.score([answer], [reference]) for answer, reference in zip(self.answers, self.references, strict=True)]
