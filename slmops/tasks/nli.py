"""Natural language inference: does a premise entail, contradict or leave open a hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from slmops.tasks.labelled import Labelled
from slmops.tasks.labels import form, labels_of, named_label
from slmops.tasks.reasoning import Reasoned, split_answer

_LABELS = ("entailment", "neutral", "contradiction")


class Nli(Reasoned, Labelled):
    """One label for a premise and a hypothesis; a sentence that names one label and denies none will do.

    Args:
        labels: The valid answers.
    """

    labels: tuple[str, ...] = Field(_LABELS, min_length=2, description="The valid answers")

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
        return named_label(self.final(text), self.known)
