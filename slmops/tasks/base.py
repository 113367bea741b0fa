"""What a task type is, and the registry of task types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from slmops.config import build
from slmops.registry import Entry, Registry


class Task(Protocol):
    """How answers of one kind are read and scored."""

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """The options with what the recipe left to the data filled in from the labelled rows' answers."""

    def parse(self, text: str) -> str:
        """The answer in its normal form; raises :class:`AnswerError` with the reason if the text is no valid answer."""

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """The task's measures over a whole test set; keys are names in the table of measures."""

    def correct(self, answer: str, reference: str) -> bool:
        """Whether one answer is right."""


TASKS = Registry("task", {"classification": Entry("slmops.tasks.classification:Classification")})


class AnswerError(ValueError):
    """A text is no valid answer of the task; the message is the reason, particulars behind a colon."""


def open_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task type of that name with its options.

    Raises:
        UsageError: No such task type.
        ConfigError: An option it does not know, or a wrong type.
    """
    task: Task = build(TASKS.get(name), options, where=f"task {name!r}")
    return task


def rejection(task: Task, answer: str) -> str | None:
    """Why a text is no valid answer, or ``None`` if it is one."""
    try:
        task.parse(answer)
    except AnswerError as error:
        return str(error)
    return None
