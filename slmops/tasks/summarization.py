"""Summarization, with chain of density as an option (Adams et al. 2023)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from slmops.data.rows import Row
from slmops.tasks.assertions import Assertion, check
from slmops.tasks.base import AnswerError
from slmops.tasks.jsontext import read_json_text
from slmops.tasks.prompts import Example, Prompted
from slmops.tasks.reasoning import rationale_row
from slmops.tasks.scores import rouge, same_text

_DENSITY = (
    "Write {steps} summaries of the text, each denser than the one before. For each step, first name one to three informative "
    "entities of the text that the summary before lacks, then write a new summary of the same length, at most {max_words} words, "
    "that has all entities so far: make room by fusing and shortening, and drop none. Answer with one JSON list of {steps} "
    'objects alone, each {"missing": "entities, separated by semicolons", "summary": "the summary"}.'
)
_SUMMARY_KEYS = ("summary", "denser_summary", "Denser_Summary")


class Summarization(Prompted):
    """A short text that says what a long one says.

    Args:
        max_words: Most words of a summary; a longer answer is rejected.
        chain_of_density: Ask the teacher for ever denser summaries; the last is the answer, the earlier ones its rationale.
        steps: How many.
        rationales: What becomes of the earlier ones: ``keep`` them beside the answer, ``train`` them as a second task, or
            ``drop`` them.
        assertions: What must hold for a summary.
    """

    max_words: int | None = Field(None, ge=5, description="Most words; left out: 80 with chain_of_density, else any")
    chain_of_density: bool = Field(False, description="Ask the teacher for ever denser summaries and take the last")
    steps: int = Field(5, ge=2, le=10, description="Summaries of a chain of density")
    rationales: Literal["keep", "train", "drop"] = Field("keep", description="What becomes of the earlier, less dense summaries")
    assertions: tuple[Assertion, ...] = Field((), description="What must hold for a summary")

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""
        return "rouge_l"

    @property
    def _longest(self) -> int | None:
        return 80 if self.max_words is None and self.chain_of_density else self.max_words

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        limit = f" in at most {self._longest} words" if self._longest else ""
        return f"Summarize the text{limit}. Answer with the summary alone."

    def slots(self) -> Mapping[str, str]:
        """``{max_words}`` and ``{steps}``."""
        return {"max_words": str(self._longest or ""), "steps": str(self.steps)}

    def told(self, system: str) -> str:
        """With chain of density, how to write it down."""
        return "\n\n".join(part for part in (system, self.filled(_DENSITY)) if part) if self.chain_of_density else system

    def shown(self, example: Example) -> str:
        """With chain of density, the answer as a list, as it is asked for."""
        if not self.chain_of_density or example.answer.lstrip().startswith("["):
            return example.answer
        return json.dumps([{"missing": example.rationale or "", "summary": example.answer}], ensure_ascii=False)

    def parse(self, text: str) -> str:
        """The summary on one line; raises :class:`AnswerError` where there is none, it is too long or fails an assertion."""
        steps = self._steps(text)
        answer = " ".join((steps[-1][1] if steps else text).split())
        if not answer:
            raise AnswerError("empty answer")
        if not steps and self.chain_of_density and (answer.startswith(("[", "{")) or "```" in answer):
            raise AnswerError("no chain of density: the JSON has no summary")
        words = len(answer.split())
        if self._longest is not None and words > self._longest:
            raise AnswerError(f"too long: {words} words where {self._longest} are allowed")
        return check(self.assertions, answer)

    def rationale(self, text: str) -> str | None:
        """The steps of a chain of density: the entities found and the summaries before the last."""
        steps = self._steps(text)
        if self.rationales == "drop" or len(steps) < 2:
            return None
        lines = [f"{missing}: {summary}" if missing else summary for missing, summary in steps[:-1]]
        return "\n".join([*lines, steps[-1][0]]).strip()

    def training_rows(self, row: Row, answer: str, rationale: str | None) -> list[Row]:
        """The row with the summary and, where rationales are trained, a second one with the steps before it."""
        rows = [row.with_answer(answer)]
        if rationale and self.rationales == "train":
            rows.append(rationale_row(row, rationale))
        return rows

    def correct(self, answer: str, reference: str) -> bool:
        """Whether a summary is the reference but for case, punctuation and articles."""
        read = self.read(answer)
        return read is not None and same_text(read, self.parse(reference))

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Mean F of ROUGE-L, ROUGE-1 and ROUGE-2, and the share of valid answers; an invalid one counts as an empty one.

        Raises:
            MissingExtraError: rouge-score is not installed.
        """
        read, expected = [self.read(answer) or "" for answer in answers], [self.parse(reference) for reference in references]
        return {**rouge(read, expected), "valid_share": self.valid_share(answers)}

    def _steps(self, text: str) -> list[tuple[str, str]]:
        """Entities and summary of each whole step of a chain of density; none where the text is no such chain."""
        if not self.chain_of_density:
            return []
        try:
            value = read_json_text(text)
        except ValueError:
            return []
        items = value if isinstance(value, list) else next((v for v in value.values() if isinstance(v, list)), [value])
        return [step for item in items if (step := _step(item)) is not None]


def _step(item: Any) -> tuple[str, str] | None:
    if not isinstance(item, dict):
        return None
    summary = next((item[key] for key in _SUMMARY_KEYS if key in item), None)
    missing = next((value for key, value in item.items() if key.casefold().startswith("missing")), "")
    if not isinstance(summary, str) or not summary.strip():
        return None
    return "; ".join(map(str, missing)) if isinstance(missing, list) else str(missing).strip(), " ".join(summary.split())
