"""What a task type is, and the registry of task types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from slmops.config import TEXT, build
from slmops.data.rows import Row
from slmops.errors import UsageError, nearest
from slmops.files import file_digest
from slmops.registry import Entry, Registry


class Task(Protocol):
    """How rows of one kind are asked, answers read and scored, and training rows made.

    ``tasks.prompts.Prompted`` has the options and the methods that most tasks share.
    """

    @property
    def primary_measure(self) -> str:
        """The measure that decides; a name in the table of measures."""

    @property
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of an answer in its normal form, for endpoints that can be held to one."""

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """The options with what the recipe left to the data filled in from the labelled rows' answers."""

    def ask(self, row: Row) -> list[dict[str, str]]:
        """The turns that the teacher is asked; they may be more than the student's.

        Raises:
            AnswerError: The row is no question of this task.
        """

    def parse(self, text: str) -> str:
        """The answer in its normal form; raises :class:`AnswerError` with the reason if the text is no valid answer."""

    def rationale(self, text: str) -> str | None:
        """What a text says before its answer, where the task asks for it; ``None`` where there is nothing to keep."""

    def training_rows(self, row: Row, answer: str, rationale: str | None) -> list[Row]:
        """The rows that a question with an answer in its normal form becomes; the first is the question itself."""

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """The task's measures over a whole test set; keys are names in the table of measures."""

    def correct(self, answer: str, reference: str) -> bool:
        """Whether one answer is right."""


TASKS = Registry(
    "task",
    {
        "classification": Entry("slmops.tasks.classification:Classification"),
        "conversation": Entry("slmops.tasks.conversation:Conversation"),
        "extraction": Entry("slmops.tasks.extraction:Extraction"),
        "generation": Entry("slmops.tasks.generation:Generation"),
        "math": Entry("slmops.tasks.math:Math"),
        "nli": Entry("slmops.tasks.nli:Nli"),
        "qa": Entry("slmops.tasks.qa:QuestionAnswering"),
        "summarization": Entry("slmops.tasks.summarization:Summarization"),
        "translation": Entry("slmops.tasks.translation:Translation"),
    },
)

_ALIASES = {"nlu_qa": "qa", "text_generation": "generation", "text_classification": "classification"}
_LONGEST = {"classification": 16, "nli": 16, "math": 32, "qa": 64}


class AnswerError(ValueError):
    """A text is no valid answer of the task; the message is the reason, particulars behind a colon."""


def task_name(name: str) -> str:
    """The registered name of a task type: case, hyphens and the names other tools use do not matter; a file as given.

    Raises:
        UsageError: No such task type.
    """
    if names_file(name):
        return name
    plain = name.strip().casefold().replace("-", "_")
    plain = _ALIASES.get(plain, plain)
    if plain == TEXT:
        raise UsageError("texts without answers are learned by slmops finetune alone", where=f"task type {name!r}")
    if plain not in TASKS.entries():
        raise UsageError(
            f"unknown task type {name!r}", fix=f"{nearest(plain, TASKS.names())}; or the path of a .py file with your own"
        )
    return plain


def task_class(name: str) -> Any:
    """The class of a task type, which is its options model.

    Args:
        name: A registered name, or ``path/to/file.py`` or ``path/to/file.py:Class`` for a task of one's own; that file's
            code runs.

    Raises:
        UsageError: No such task type.
        ConfigError: The file has no such class, or it is no options model.
    """
    known = task_name(name)
    if not names_file(known):
        return TASKS.get(known)
    from slmops.tasks.own import load_class

    return load_class(known)


def task_key(name: str) -> Any:
    """What stands for a task type in a stage's id: its name, for a file with a hash of its contents.

    Raises:
        UsageError: No such task type.
    """
    known = task_name(name)
    return {"file": file_digest(Path(known.rpartition(".py")[0] + ".py")), "name": known} if names_file(known) else known


def open_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task type of that name with its options.

    Raises:
        UsageError: No such task type.
        ConfigError: An option it does not know, or a wrong type.
    """
    task: Task = build(task_class(name), options, where=f"task {name!r}")
    return task


def longest_answer(name: str) -> int:
    """Tokens of the longest answer to expect of a task type; texts may be long."""
    return _LONGEST.get(name, 256)


def closed_labels(task: Task) -> tuple[str, ...] | None:
    """The answers that a task chooses from; ``None`` where answers are free."""
    labels = task.answer_schema.get("enum")
    return tuple(map(str, labels)) if labels else None


def normal_row(task: Task, row: Row) -> Row:
    """A row with its label in the normal form; one with a free answer, or with reasoning before the label, as it is."""
    if row.answer is None or closed_labels(task) is None or task.rationale(row.answer):
        return row
    return row.with_answer(task.parse(row.answer))


def read_answer(parse: Callable[[str], str], text: str) -> str | None:
    """The normal form of a text as a task's ``parse`` reads it, or ``None`` where it is no valid answer."""
    try:
        return parse(text)
    except AnswerError:
        return None


def rejection(task: Task, answer: str) -> str | None:
    """Why a text is no valid answer, or ``None`` if it is one."""
    try:
        task.parse(answer)
    except AnswerError as error:
        return str(error)
    return None


def nearest_answer(task: Task, answer: str, row: Row) -> str:
    """Of a row's right answers the one that gives an answer the best primary measure; of equals the first."""
    first, *others = row.answers
    valid = [first, *(other for other in others if rejection(task, other) is None)]
    return valid[0] if len(valid) == 1 else max(valid, key=lambda one: task.score([answer], [one])[task.primary_measure])


def problem(task: Task, row: Row) -> str | None:
    """Why a row cannot be used for a task: no question of its kind, or an answer that is none; else ``None``."""
    try:
        task.ask(row)
        if row.answer is not None:
            task.parse(row.answer)
    except AnswerError as error:
        return str(error)
    return None


def names_file(name: str) -> bool:
    """Whether a name is the path of a Python file, or of something in it (``file.py:name``)."""
    return name.endswith(".py") or ".py:" in name
