"""What tasks share whose answer is one label of a closed list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator

from slmops.tasks.labels import by_form, label_scores
from slmops.tasks.prompts import Prompted


class Labelled(Prompted):
    """Base of such tasks; a task says how a text names a label, and what a default list is.

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
    def known(self) -> dict[str, str]:
        """Form to label."""
        return by_form(self.labels)

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Accuracy, macro F1 over the labels that occur in the references, and the share of answers that are labels."""
        return label_scores([self.read(answer) for answer in answers], [self.parse(reference) for reference in references])
