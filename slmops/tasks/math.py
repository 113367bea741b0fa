"""Math: a word problem whose answer is a number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from pydantic import Field

from slmops.tasks.base import AnswerError
from slmops.tasks.labels import short
from slmops.tasks.numbers import is_number, numbers_in, written
from slmops.tasks.reasoning import Reasoned, split_answer

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_CALCULATOR = re.compile(r"<<[^<>]*>>")


class Math(Reasoned):
    r"""One number.

    It is looked for, in this order, behind the last ``####`` (as GSM8K has it), in the last ``\boxed{}``, behind
    ``Answer:`` or ``the answer is``, and at the end of the text. ``1,000``, ``$1000.00`` and ``1000 km`` are one answer; a
    percent sign is a unit, so ``50 %`` is 50.

    Args:
        tolerance: Relative difference up to which two numbers are the same.
    """

    tolerance: float = Field(1e-6, ge=0, lt=1, description="Relative difference up to which two numbers are the same")

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""
        return "numeric_match"

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        return "Solve the problem." if self.chain_of_thought else "Solve the problem. Answer with the number alone."

    @property
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of the normal form."""
        return {"type": "string", "pattern": r"^-?\d+(\.\d+|/\d+)?$"}

    def split(self, text: str) -> tuple[str, str]:
        """The reasoning, without GSM8K's ``<<...>>`` calculator marks, and the text that holds the number."""
        head, mark, tail = text.rpartition("####")
        if mark and numbers_in(tail.strip().partition("\n")[0]):
            return _CALCULATOR.sub("", head).strip(), tail.strip().partition("\n")[0]
        boxes = list(_BOXED.finditer(text))
        if boxes:
            return text[: boxes[-1].start()].strip(), boxes[-1].group(1)
        return split_answer(text)

    def parse(self, text: str) -> str:
        """The number in its normal form (``1000``, ``0.5``, ``1/3``); raises :class:`AnswerError` where there is none."""
        reasoning, answer = self.split(text)
        found = numbers_in(answer)
        if not found:
            raise AnswerError(f"no number: {short(text.strip())!r}" if text.strip() else "empty answer")
        if reasoning:
            return written((numbers_in(_result(answer)) or found)[0])
        if self.chain_of_thought and not is_number(answer):
            raise AnswerError("no answer behind the reasoning")
        return written(found[-1])

    def correct(self, answer: str, reference: str) -> bool:
        """Whether the numbers differ by no more than the tolerance."""
        read = self.read(answer)
        if read is None:
            return False
        value, expected = Fraction(read), Fraction(self.parse(reference))
        return abs(value - expected) <= Fraction(self.tolerance) * abs(expected)

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Share of right numbers, and share of answers that have a number."""
        hits = [self.correct(answer, reference) for answer, reference in zip(answers, references, strict=True)]
        return {"numeric_match": sum(hits) / max(len(hits), 1), "valid_share": self.valid_share(answers)}


def _result(answer: str) -> str:
    """What a marked answer such as ``5 + 3 = 8 apples`` comes to: the text behind the last ``=`` of its first line."""
    return answer.strip().partition("\n")[0].rpartition("=")[2]
