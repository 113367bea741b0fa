"""A model as judge by a rubric: of two answers, who won, in both orders; of one answer, a grade."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from slmops.data.rows import Message
from slmops.tasks.base import AnswerError
from slmops.tasks.classification import Classification
from slmops.tasks.labels import short

Verdict = Literal["A", "B", "tie"]

RUBRIC = "Which answer helps the user more? It should do what was asked, be right, fit the conversation, and waste no words."
_TOLD = (
    "You compare two answers to the same conversation. {rubric} The order of the answers and their length do not matter by "
    "themselves. Write one line of reasons, then, on the last line, 'Verdict: A', 'Verdict: B' or 'Verdict: tie'."
)
GRADES = ("1", "2", "3", "4", "5")
GRADES_RUBRIC = (
    "5: does all that was asked, is right, and wastes no words. 4: right, with a small flaw. 3: right in part, or hard to use. "
    "2: mostly wrong or beside the question. 1: wrong, harmful or no answer."
)
_GRADING = (
    "You grade one answer to a conversation with a whole number from 1 (worst) to 5 (best). {rubric} Length does not matter by "
    "itself, and other words than those of the right answer are as good. Write one line of reasons, then, on the last line, "
    "'Grade:' and the number."
)
_GRADE = re.compile(r"\bgrade\b(?:\W*1\s*(?:-|–|to)\s*5\b)?\W*([1-5])(?![\d.,]*\d)", re.IGNORECASE)
_VERDICT = re.compile(r"\bverdict\b\W*(?:answer\s+)?(a|b|tie)\b", re.IGNORECASE)


def shown_turns(messages: Sequence[Message]) -> str:
    """A conversation as a judge reads it."""
    told = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in messages)
    return f"Conversation:\n\n{told}"


def comparison(messages: Sequence[Message], first: str, second: str, rubric: str = RUBRIC) -> list[dict[str, str]]:
    """The turns that a judge is asked; the first answer is A, the second B."""
    asked = f"{shown_turns(messages)}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}"
    return [{"role": "system", "content": _TOLD.replace("{rubric}", rubric)}, {"role": "user", "content": asked}]


def read_verdict(text: str) -> Verdict | None:
    """The last verdict of a judge's text, ``None`` where it gives none."""
    found = _VERDICT.findall(text) or ([text.strip()] if text.strip().casefold() in ("a", "b", "tie") else [])
    if not found:
        return None
    last = found[-1].casefold()
    return "A" if last == "a" else "B" if last == "b" else "tie"


class Verdicts(Classification):
    """Comparisons as a task: their answer is a verdict, so that any teacher, or several, can be asked for it."""

    labels: tuple[str, ...] = Field(("A", "B", "tie"), description="The verdicts")

    def parse(self, text: str) -> str:
        """The verdict; raises :class:`AnswerError` where there is none."""
        verdict = read_verdict(text)
        if verdict is None:
            raise AnswerError(f"no verdict: {short(text)!r}")
        return verdict


def grading(messages: Sequence[Message], answer: str, reference: str, rubric: str = GRADES_RUBRIC) -> list[dict[str, str]]:
    """The turns that a judge is asked for the grade of one answer; the reference shows what would be right."""
    asked = f"{shown_turns(messages)}\n\nAn answer that is right:\n{reference}\n\nAnswer to grade:\n{answer}"
    return [{"role": "system", "content": _GRADING.replace("{rubric}", rubric)}, {"role": "user", "content": asked}]


def read_grade(text: str) -> str | None:
    """The last grade of a judge's text, ``None`` where it gives none from 1 to 5."""
    found = _GRADE.findall(text) or ([text.strip()] if text.strip() in GRADES else [])
    return found[-1] if found else None


class Grades(Classification):
    """Grades as a task, so that any teacher, or several, can be asked for them."""

    labels: tuple[str, ...] = Field(GRADES, description="The grades")

    def parse(self, text: str) -> str:
        """The grade; raises :class:`AnswerError` where there is none."""
        grade = read_grade(text)
        if grade is None:
            raise AnswerError(f"no grade from 1 to 5: {short(text)!r}")
        return grade


def pair_score(answer_first: str | None, reference_first: str | None) -> float:
    """1 where the answer wins in both orders, 0 where the reference does, else ½.

    Both orders are asked, because judges favour a place: verdicts that contradict each other are a tie. So is a pair of
    which a verdict is missing.

    Args:
        answer_first: The verdict where the answer is A.
        reference_first: The verdict where it is B.
    """
    return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((str(answer_first), str(reference_first)), 0.5)
