"""Chain of thought: reasoning before the answer, kept beside it, trained as a second task or dropped."""

from __future__ import annotations

import json
import re
from typing import Literal

from pydantic import Field, model_validator

from slmops.data.rows import Row
from slmops.tasks.base import AnswerError
from slmops.tasks.prompts import Example, Prompted

_HOW = (
    "First reason step by step. Then write the answer alone on the last line, behind 'Answer:'. "
    "This holds whatever was said before about the form of the answer."
)
_WHY = "Explain step by step how the question is to be answered."
_MARK = re.compile(r"(?:\bthe\s+)?(?:\bfinal\s+|\bcorrect\s+)?\banswer\b\**\s*(?:\bis\b\s*:?|[:=])\**", re.IGNORECASE)
_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
_ANSWER_KEYS = ("answer", "answer_choice", "label", "final_answer")
_REASON_KEYS = ("reason", "reasoning", "rationale", "explanation", "thought")


class Reasoned(Prompted):
    """Options of a task whose teacher may reason before it answers.

    Args:
        chain_of_thought: Ask the teacher to reason first. A text with no marked answer, longer than an answer alone, is
            then rejected: it was cut off.
        rationales: What becomes of the reasoning: ``keep`` it beside the answer; ``train`` it as a second task beside the
            label (distilling step-by-step, Hsieh et al. 2023); ``drop`` it.
    """

    chain_of_thought: bool = Field(False, description="Ask the teacher to reason before it answers")
    rationales: Literal["keep", "train", "drop"] = Field("keep", description="What becomes of the teacher's reasoning")

    @model_validator(mode="after")
    def _rationales_are_asked_for(self) -> Reasoned:
        if not self.chain_of_thought and any(example.rationale for example in self.examples):
            raise ValueError("an example has a rationale, but chain_of_thought is off")
        return self

    def told(self, system: str) -> str:
        """With chain of thought, how to write it down."""
        return "\n\n".join(part for part in (system, _HOW if self.chain_of_thought else "") if part)

    def shown(self, example: Example) -> str:
        """With chain of thought, the reasoning and the marked answer."""
        if not self.chain_of_thought or example.rationale is None:
            return example.answer
        return f"{example.rationale}\nAnswer: {example.answer}"

    def rationale(self, text: str) -> str | None:
        """What stands before the marked answer; nothing where rationales are dropped."""
        if self.rationales == "drop":
            return None
        return self.split(text)[0] or None

    def training_rows(self, row: Row, answer: str, rationale: str | None) -> list[Row]:
        """The row with the answer and, where rationales are trained, a second one that asks for the reasoning."""
        rows = [row.with_answer(answer)]
        if rationale and self.rationales == "train":
            rows.append(rationale_row(row, rationale))
        return rows

    def split(self, text: str) -> tuple[str, str]:
        """The reasoning (empty where there is none) and the text of the answer."""
        return split_answer(text)

    def final(self, text: str) -> str:
        """The text of the answer.

        Raises:
            AnswerError: With chain of thought, reasoning without an answer behind it.
        """
        reasoning, answer = self.split(text)
        if not answer.strip():
            raise AnswerError("empty answer" if not text.strip() else "no answer behind the reasoning")
        if self.chain_of_thought and not reasoning and "\n" in answer.strip():
            raise AnswerError("no answer behind the reasoning")
        return answer


def split_answer(text: str) -> tuple[str, str]:
    """Reasoning and answer of ``... Answer: x``, of JSON such as ``{"reason": ..., "answer": ...}``, or of an answer alone."""
    plain = text.strip()
    fenced = _FENCE.match(plain)
    if plain.startswith("{") or fenced:
        try:
            values = json.loads(fenced.group(1) if fenced else plain)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            answer = next((values[key] for key in _ANSWER_KEYS if key in values), None)
            reason = next((values[key] for key in _REASON_KEYS if key in values), "")
            if answer is not None:
                return str(reason).strip(), str(answer)
    marks = list(_MARK.finditer(plain))
    if not marks:
        return "", plain
    return plain[: marks[-1].start()].rstrip("* \n\t"), plain[marks[-1].end() :].strip()


def rationale_row(row: Row, rationale: str) -> Row:
    """The second task: the same question, told apart by its system turn or, where it has none, by a line behind the question."""
    turns = [dict(turn) for turn in row.messages]
    if turns[0]["role"] == "system":
        turns[0]["content"] = _WHY
    else:
        turns[-1]["content"] += f"\n\n{_WHY}"
    return Row.of(turns, rationale, row.origin)
