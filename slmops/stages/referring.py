"""Held-out rows without gold answers: the teacher's own take their place, and are marked as such."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.artifact import StageKey
from slmops.data.rows import Row
from slmops.errors import DataError
from slmops.evaluation.data_page import PAGE, REPORT
from slmops.files import write_jsonl
from slmops.stages.answering import RunTeacher
from slmops.stages.context import Context, rows_of
from slmops.stages.preparing import Gold
from slmops.teachers.answered import count_reasons, rejected_line
from slmops.workspace import Made, StageResult, link_or_copy

REFERENCES = "references"
_KEPT = ("train.jsonl", "pool.jsonl", "task.json", PAGE, REPORT)


def answer_held_out(context: Context, teacher: RunTeacher, data: StageResult, gold: Gold) -> StageResult:
    """The data with the teacher's answers as references where validation or test has none; data with all of them, as it is.

    What it does not answer is set aside with its reason. ``facts["references"]`` has the rows it answered, by split.

    Raises:
        DataError: Too few answers are usable, or none of a split.
        TeacherError: It refuses, or the cap on the cost is reached; the same command continues.
    """
    if gold.validation and gold.test:
        return data
    recipe = context.recipe
    section = recipe.answers
    config = {
        **section.model_dump(mode="json", include={"retries", "retry_temperature", "min_success"}),
        **teacher.answer_key,
    }
    key = StageKey(REFERENCES, "dataset", 1, config, {"teacher": teacher.id, "data": data.id})

    def make(folder: Path, work: Path) -> Made:
        task = context.task(data)
        splits = {name: rows_of(data, name) for name in ("validation", "test")}
        answered = teacher.ask(task, [row for rows in splits.values() for row in rows if row.answer is None], work)
        said = {row.id: row for row in answered.rows}
        kept: dict[str, list[Row]] = {}
        for name, rows in splits.items():
            kept[name] = [said.get(row.id, row) for row in rows if row.answer is not None or row.id in said]
            if rows and not kept[name]:
                raise DataError(f"the teacher answers no {name} row", where=str(folder), fix="give it a better prompt")
            write_jsonl(folder / f"{name}.jsonl", [row.as_dict() for row in kept[name]])
        unusable = [one for one in answered.given if one.answer is None]
        write_jsonl(folder / "rejected.jsonl", [rejected_line(one, str(one.reason)) for one in unusable])
        for name in _KEPT:
            link_or_copy(data.path / name, folder / name)
        return Made({**answered.facts, **_facts(data, splits, kept, count_reasons(str(one.reason) for one in unusable))})

    return context.workspace.stage(key, make)


def _facts(
    data: StageResult, splits: Mapping[str, Sequence[Row]], kept: Mapping[str, Sequence[Row]], reasons: Mapping[str, int]
) -> dict[str, Any]:
    """The facts of the data with what has changed."""
    facts = data.facts
    aside = {f"not answered by the teacher: {reason}": count for reason, count in reasons.items()}
    labels = facts["labels"]
    if labels is not None:
        counts = {name: Counter(row.answer for row in rows) for name, rows in kept.items()}
        labels = {label: {**known, **{name: count[label] for name, count in counts.items()}} for label, known in labels.items()}
    return {
        **facts,
        "rows": {
            **facts["rows"],
            **{name: len(rows) for name, rows in kept.items()},
            "rejected": facts["rows"]["rejected"] + sum(reasons.values()),
        },
        "rejected": {**facts["rejected"], **aside},
        "labels": labels,
        REFERENCES: {name: sum(row.answer is None for row in rows) for name, rows in splits.items()},
    }
