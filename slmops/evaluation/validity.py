"""Whether answers are right, valid, in the form of the schema, as the user asserts, and the teacher's."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel

from slmops.errors import ConfigError
from slmops.evaluation.json_schema import follows, is_text
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.tally import Tally
from slmops.tasks.assertions import Assertion
from slmops.tasks.base import Task, read_answer, rejection
from slmops.tasks.math import Math
from slmops.tasks.reasoning import Reasoned


def right_tally(outputs: Outputs) -> Tally:
    """Share of right answers."""
    return Tally.mean(outputs.correct)


def valid_tally(outputs: Outputs) -> Tally:
    """Share of answers that the task can read."""
    return Tally.mean([answer is not None for answer in outputs.read])


def numeric_tally(outputs: Outputs) -> Tally:
    """Share of answers whose number is the reference's.

    Raises:
        ConfigError: A reference has no number.
    """
    if isinstance(outputs.task, Math):
        return right_tally(outputs)
    numbers = Math()
    for row, reference in zip(outputs.rows, outputs.expected, strict=True):
        if rejection(numbers, reference) is not None:
            raise ConfigError("numeric_match needs a number in every reference", where=row.origin or row.id)
    return Tally.mean([numbers.correct(text, reference) for text, reference in zip(outputs.texts, outputs.expected, strict=True)])


def schema_tally(outputs: Outputs) -> Tally:
    """Share of answers that follow the task's JSON schema as generated, nothing repaired; reasoning before them may stand.

    ``valid_share`` is milder: it reads JSON in a fence or cut off, and a label in other letters.
    """
    return Tally.mean([_follows(outputs.task, answer) for answer in outputs.answers])


def agreement_tally(outputs: Outputs) -> Tally:
    """Share of answers that are right where the teacher's answer is taken for the right one; an invalid one agrees with none.

    Raises:
        ConfigError: The teacher's answers are not there.
    """
    if outputs.teacher is None:
        raise ConfigError("agreement needs the teacher's answers", fix="let the teacher answer the test rows, or leave it out")
    task = outputs.task
    pairs = zip(outputs.answers, outputs.teacher, strict=True)
    return Tally.mean([rejection(task, other) is None and task.correct(answer, other) for answer, other in pairs])


def assertions_of(task: Task) -> Sequence[Assertion]:
    """What the user asserts about answers of this task."""
    found: Sequence[Assertion] = getattr(task, "assertions", ())
    return found


def assertion_tally(outputs: Outputs) -> Tally:
    """Share of answers for which all of the user's assertions hold; one that is no answer fails.

    Raises:
        ConfigError: The task has none.
    """
    each = [tally.rows[:, 0] for tally in assertion_tallies(outputs).values()]
    if not each:
        raise ConfigError("nothing is asserted about answers", where="task.assertions", fix="state what must hold for an answer")
    return Tally.mean([all(held) for held in zip(*each, strict=True)])


def assertion_tallies(outputs: Outputs) -> dict[str, Tally]:
    """The share of each assertion, by its text such as ``lacks='damn'``."""
    task = outputs.task
    free = task.model_copy(update={"assertions": ()}) if isinstance(task, BaseModel) else task
    texts = [read_answer(free.parse, answer) for answer in outputs.answers]
    return {
        ", ".join(f"{name}={value!r}" for name, value in assertion.model_dump(exclude_none=True).items()): Tally.mean(
            [text is not None and assertion.failure(text) is None for text in texts]
        )
        for assertion in assertions_of(task)
    }


def _follows(task: Task, answer: str) -> bool:
    text = (task.split(answer)[1] if isinstance(task, Reasoned) else answer).strip()
    schema = task.answer_schema
    if is_text(schema):
        return follows(text, schema)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return follows(value, schema)
