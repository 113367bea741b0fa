"""Classification: the answer is one label of a closed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator

from slmops.tasks.base import AnswerError
from slmops.tasks.labels import by_form, form, label_scores, labels_of, short
from slmops.tasks.prompts import Prompted


class Classification(Prompted):
    """Route, tag or judge a text with one of a list of labels.

    In a ``system_prompt``, ``{labels}`` stands for the labels, one a line.

    Args:
        labels: The valid answers. Case, outer white space and a closing full stop of an answer do not matter.
    """

    labels: tuple[str, ...] = Field(min_length=2, description="The valid answers; left out: those in the data")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        by_form(labels)
        return labels

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""
        return "accuracy"

    @property
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of the normal form: one of the labels."""
        return {"enum": list(self.labels)}

    @cached_property
    def _by_form(self) -> dict[str, str]:
        return by_form(self.labels)

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Without ``labels``, the valid answers are those that occur in the data."""
        return dict(options) if options.get("labels") else {**options, "labels": labels_of(answers)}

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        return "Answer with one of these labels alone:\n{labels}"

    def slots(self) -> Mapping[str, str]:
        """``{labels}``: the labels, one a line."""
        return {"labels": "\n".join(self.labels)}

    def parse(self, text: str) -> str:
        """The label that a text names; raises :class:`AnswerError` where it names none."""
        label = self._by_form.get(form(text))
        if label is None:
            raise AnswerError(f"not a label: {short(text)!r}")
        return label

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Accuracy, macro F1 over the labels that occur in the references, and the share of answers that are labels."""
        return label_scores([self.read(answer) for answer in answers], [self.parse(reference) for reference in references])
