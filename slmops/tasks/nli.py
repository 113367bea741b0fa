"""Natural language inference: does a premise entail, contradict or leave open a hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator

from slmops.tasks.labels import by_form, form, label_scores, labels_of, named_label
from slmops.tasks.reasoning import Reasoned, split_answer

_LABELS = ("entailment", "neutral", "contradiction")


class Nli(Reasoned):
    """One label for a premise and a hypothesis; a sentence that names one label and denies none will do.

    Args:
        labels: The valid answers.
    """

    labels: tuple[str, ...] = Field(_LABELS, min_length=2, description="The valid answers")

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
        """Without ``labels``, the three usual ones; where no answer in the data is one of them, those in the data."""
        usual = {form(label) for label in _LABELS}
        plain = [split_answer(answer)[1] for answer in answers]
        if options.get("labels") or not plain or any(form(answer) in usual for answer in plain):
            return dict(options)
        return {**options, "labels": labels_of(plain)}

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        return "Say how the second text, the hypothesis, relates to the first, the premise. Answer with one label alone: {labels}."

    def slots(self) -> Mapping[str, str]:
        """``{labels}``: the labels, separated by commas."""
        return {"labels": ", ".join(self.labels)}

    def parse(self, text: str) -> str:
        """The label that a text names; raises :class:`AnswerError` where it names none or several."""
        return named_label(self.final(text), self._by_form)

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Accuracy, macro F1 and the share of answers that are labels."""
        return label_scores([self.read(answer) for answer in answers], [self.parse(reference) for reference in references])
