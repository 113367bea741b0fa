"""What can be wrong with a single answer; for rows of a file and for what a teacher has just said."""

from __future__ import annotations

from slmops.data.quality.language import Languages
from slmops.data.quality.refusals import refusal
from slmops.data.quality.repetition import cut_off, loop
from slmops.sections import QualitySection

_SHOWN = 60


def answer_problem(question: str, answer: str, options: QualitySection, languages: Languages) -> str | None:
    """Why a free-text answer cannot be trained on, or ``None``; the text before the colon is the kind of reason.

    Args:
        question: What was asked.
        answer: What was answered.
        options: Bounds.
        languages: Tells languages, and which is wanted; kept between calls.
    """
    if not answer.strip():
        return "empty answer"
    if len(answer) > options.longest:
        return f"too long: the answer has {len(answer):,} characters"
    if words := refusal(answer, question):
        return f"refusal: {shown(words)}"
    if words := loop(answer):
        return f"repetition: {shown(words)}"
    if why := cut_off(answer):
        return f"cut off: {why}"
    return languages.mismatch(question, answer)


def shown(text: str) -> str:
    """A text in quotes, in one line, not longer than sixty characters."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…")
