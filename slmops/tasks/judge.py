"""A model as judge of two answers: who won, by a rubric, in both orders."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from slmops.data.rows import Row

Judge = Callable[[list[dict[str, str]]], str]
"""Answers chat turns with text: any teacher's way to answer one row."""

Verdict = Literal["A", "B", "tie"]

RUBRIC = "Which answer helps the user more? It should do what was asked, be right, fit the conversation, and waste no words."
_TOLD = (
    "You compare two answers to the same conversation. {rubric} The order of the answers and their length do not matter by "
    "themselves. Write one line of reasons, then, on the last line, 'Verdict: A', 'Verdict: B' or 'Verdict: tie'."
)
_VERDICT = re.compile(r"\bverdict\b\W*(?:answer\s+)?(a|b|tie)\b", re.IGNORECASE)


def comparison(row: Row, first: str, second: str, rubric: str = RUBRIC) -> list[dict[str, str]]:
    """The turns that a judge is asked; the first answer is A, the second B."""
    told = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in row.messages)
    asked = f"Conversation:\n\n{told}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}"
    return [{"role": "system", "content": _TOLD.replace("{rubric}", rubric)}, {"role": "user", "content": asked}]


def read_verdict(text: str) -> Verdict | None:
    """The last verdict of a judge's text, ``None`` where it gives none."""
    found = _VERDICT.findall(text) or ([text.strip()] if text.strip().casefold() in ("a", "b", "tie") else [])
    if not found:
        return None
    last = found[-1].casefold()
    return "A" if last == "a" else "B" if last == "b" else "tie"


def judge_pair(judge: Judge, row: Row, answer: str, reference: str, rubric: str = RUBRIC) -> float | None:
    """1 where the answer wins, 0 where the reference does, ½ for a tie; ``None`` where the judge did not say.

    Both orders are asked, because judges favour a place; two verdicts that contradict each other are a tie.
    """
    wins = []
    for first, second, own in ((answer, reference, "A"), (reference, answer, "B")):
        verdict = read_verdict(judge(comparison(row, first, second, rubric)))
        if verdict is not None:
            wins.append(0.5 if verdict == "tie" else float(verdict == own))
    return sum(wins) / len(wins) if wins else None


def win_rate(judge: Judge, rows: Sequence[Row], answers: Sequence[str], references: Sequence[str], rubric: str = RUBRIC) -> float:
    """Mean of :func:`judge_pair` over rows; rows without a verdict count as ties. 0.5 means as good as the references."""
    scores = [
        judge_pair(judge, row, answer, reference, rubric) for row, answer, reference in zip(rows, answers, references, strict=True)
    ]
    return sum(0.5 if score is None else score for score in scores) / max(len(scores), 1)
