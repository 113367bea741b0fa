"""Questions and answers: multiple choice, a span of a given text, or open."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator

from slmops.tasks.base import AnswerError
from slmops.tasks.labels import by_form, form, label_scores, named_letter
from slmops.tasks.reasoning import Reasoned, split_answer
from slmops.tasks.scores import exact_match, mean_token_f1, same_text

_PROMPTS = {
    "multiple_choice": "Answer the question with the letter of the right choice alone: {choices}.",
    "extractive": "Answer the question with the shortest passage of the given text that answers it, word for word.",
    "open": "Answer the question as briefly as possible, without an explanation.",
}
_MEASURES = {"multiple_choice": "accuracy", "extractive": "exact_match", "open": "token_f1"}
_CHOICE = re.compile(r"^\W?([A-Za-z]|\d{1,2})\W?$")


class QuestionAnswering(Reasoned):
    """A short answer to a question.

    Args:
        kind: ``multiple_choice`` (a letter), ``extractive`` (a passage of the text beside the question) or ``open``.
        choices: The letters of multiple choice.
    """

    kind: Literal["multiple_choice", "extractive", "open"] = Field("multiple_choice", description="What an answer is")
    choices: tuple[str, ...] = Field(("A", "B", "C", "D", "E"), min_length=2, description="The letters of multiple choice")

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        by_form(choices)
        return choices

    @property
    def primary_measure(self) -> str:
        """The measure that decides: accuracy of choices, exact match of passages, token F1 of open answers."""
        return _MEASURES[self.kind]

    @property
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of the normal form: one of the letters, or some text."""
        return {"enum": list(self.choices)} if self.kind == "multiple_choice" else super().answer_schema

    @cached_property
    def _by_form(self) -> dict[str, str]:
        return by_form(self.choices)

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Without ``kind``: multiple choice where most answers are a letter or there are none, else open.

        Without ``choices``: from the first letter (or 0 or 1) to the last that occurs, and at least A to E.
        """
        plain = [split_answer(answer)[1] for answer in answers]
        letters = [found.group(1).upper() for found in map(_CHOICE.match, plain) if found]
        kind = options.get("kind") or ("multiple_choice" if len(letters) * 2 >= len(answers) else "open")
        completed = {**options, "kind": kind}
        if kind == "multiple_choice" and letters and not options.get("choices"):
            completed["choices"] = _range(letters)
        return completed

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        return _PROMPTS[self.kind]

    def slots(self) -> Mapping[str, str]:
        """``{choices}``: the letters, separated by commas."""
        return {"choices": ", ".join(self.choices)}

    def parse(self, text: str) -> str:
        """The letter of multiple choice, else the text of the answer; :class:`AnswerError` where there is none."""
        answer = self.final(text).strip()
        if self.kind == "multiple_choice":
            return named_letter(answer, self._by_form)
        answer = " ".join(answer.split()).strip('"“”* ')
        if not answer:
            raise AnswerError("empty answer")
        return answer

    def correct(self, answer: str, reference: str) -> bool:
        """Whether the letter is the reference's, or the text is the same but for case, punctuation and articles."""
        read = self.read(answer)
        if read is None:
            return False
        expected = self.parse(reference)
        return read == expected if self.kind == "multiple_choice" else same_text(read, expected)

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Multiple choice: accuracy, macro F1; else exact match and token F1; always the share of valid answers."""
        read, expected = [self.read(answer) for answer in answers], [self.parse(reference) for reference in references]
        if self.kind == "multiple_choice":
            return label_scores(read, expected)
        texts = [answer or "" for answer in read]
        return {
            "exact_match": exact_match(texts, expected),
            "token_f1": mean_token_f1(texts, expected),
            "valid_share": self.valid_share(answers),
        }


def _range(letters: Sequence[str]) -> list[str]:
    if all(letter.isdigit() for letter in letters):
        numbers = [int(letter) for letter in letters]
        first = min(1, *numbers)
        return [str(number) for number in range(first, max(first + 1, *numbers) + 1)]
    last = max(form(letter) for letter in letters if not letter.isdigit()).upper()
    return list(string.ascii_uppercase[: max(5, string.ascii_uppercase.index(last) + 1)])
