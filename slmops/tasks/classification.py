"""Classification: the answer is one label of a closed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator

from slmops.config import Section
from slmops.tasks.base import AnswerError


class Classification(Section):
    """Route, tag or judge a text with one of a list of labels.

    Args:
        labels: The valid answers. Case, outer white space and a closing full stop of an answer do not matter.
    """

    labels: tuple[str, ...] = Field(min_length=2)

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        by_form: dict[str, str] = {}
        for label in labels:
            if _form(label) in by_form:
                raise ValueError(f"{by_form[_form(label)]!r} and {label!r} are one label")
            by_form[_form(label)] = label
        return labels

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""
        return "accuracy"

    @cached_property
    def _by_form(self) -> dict[str, str]:
        return {_form(label): label for label in self.labels}

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Without ``labels``, the valid answers are those that occur in the data."""
        if options.get("labels"):
            return dict(options)
        by_form: dict[str, str] = {}
        for answer in answers:
            by_form.setdefault(_form(answer), " ".join(answer.split()))
        return {**options, "labels": sorted(by_form.values())}

    def parse(self, text: str) -> str:
        """The label that a text names; raises :class:`AnswerError` where it names none."""
        label = self._by_form.get(_form(text))
        if label is None:
            raise AnswerError(f"not a label: {_short(text)!r}")
        return label

    def correct(self, answer: str, reference: str) -> bool:
        """Whether an answer names the label of the reference."""
        label = self._by_form.get(_form(answer))
        return label is not None and label == self.parse(reference)

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Accuracy, macro F1 over the labels that occur in the references, and the share of answers that are labels."""
        predicted = [self._by_form.get(_form(answer)) for answer in answers]
        expected = [self.parse(reference) for reference in references]
        total = max(len(expected), 1)
        return {
            "accuracy": sum(p is not None and p == e for p, e in zip(predicted, expected, strict=True)) / total,
            "macro_f1": _macro_f1(predicted, expected),
            "valid_share": sum(p is not None for p in predicted) / total,
        }


def _form(text: str) -> str:
    return " ".join(text.split()).rstrip(". ").casefold()


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _macro_f1(predicted: Sequence[str | None], expected: Sequence[str]) -> float:
    scores = []
    for label in sorted(set(expected)):
        hits = sum(p == label == e for p, e in zip(predicted, expected, strict=True))
        claimed, actual = predicted.count(label), expected.count(label)
        scores.append(2 * hits / (claimed + actual))
    return sum(scores) / len(scores) if scores else 0.0
