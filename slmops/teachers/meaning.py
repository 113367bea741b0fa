"""Whether a question in other words still has its answer, as far as that can be seen."""

from __future__ import annotations

import json

from slmops.data.quality.near import numbers_of
from slmops.data.rows import Row
from slmops.tasks.base import Task


def changed(task: Task, source: Row, text: str) -> str | None:
    """Why a rewritten question may have another answer: other numbers, or what the answer quotes is gone.

    Args:
        task: Reads the answer.
        source: The question as it was, with its answer if there is one.
        text: The question as it is now.
    """
    before, after = (sorted(numbers_of(Row.of(words))) for words in (source.question, text))
    if before != after:
        return f"other numbers: {', '.join(after) or 'none'} instead of {', '.join(before) or 'none'}"
    quoted = _quotable(task.parse(source.answer)) if source.answer is not None else []
    lost = [part for part in quoted if part.casefold() in source.question.casefold() and part.casefold() not in text.casefold()]
    return f"the answer is not in it: {lost[0]!r}" if lost else None


def _quotable(answer: str) -> list[str]:
    """The values of an answer that is JSON; else the answer."""
    try:
        values = json.loads(answer)
    except ValueError:
        return [answer]
    found: list[str] = []
    open_values = [values]
    while open_values:
        value = open_values.pop()
        if isinstance(value, dict | list):
            open_values += value.values() if isinstance(value, dict) else value
        else:
            found.append(str(value))
    return found
