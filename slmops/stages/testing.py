"""The test rows of an evaluation by itself: read, looked at, and beside them what they are sliced by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.artifact import StageKey
from slmops.data.columns import look_like_labels
from slmops.data.rowfiles import FileRows, read_rows
from slmops.data.rows import Row
from slmops.errors import ConfigError, DataError, UsageError
from slmops.evaluation.options import EvaluateOptions
from slmops.evaluation.subjects import Subject
from slmops.files import file_digest, write_json, write_jsonl
from slmops.progress import say
from slmops.tasks.base import TASKS, open_task, problem, task_class, task_key, task_name
from slmops.workspace import Made, StageResult, Workspace

COLUMNS = "columns.jsonl"
"""Name of the file with a line a test row: its values of the columns that are looked at by themselves."""


def read_test(workspace: Workspace, options: EvaluateOptions, subjects: Sequence[Subject]) -> StageResult:
    """Test rows, the task's options completed from models and rows, and what cannot be used with its reason.

    ``facts["task_type"]`` is the kind of work.

    Raises:
        DataError: The file cannot be used, or no row has an answer.
        UsageError: Nobody says what kind of work it is.
    """
    source = options.source
    config = {
        **options.model_dump(mode="json", include={"task", "slices"}),
        "columns": source.model_dump(mode="json", exclude={"train", "pool", "validation", "test"}),
        "task_type": task_key(options.task_type) if options.task_type else [subject.task_type for subject in subjects],
        "labels": [list(subject.labels) for subject in subjects],
    }
    key = StageKey("test", "dataset", 1, config, {"data": file_digest(options.test_data)})

    def make(folder: Path, work: Path) -> Made:
        found = read_rows(options.test_data, "test", source.columns())
        if not found.labelled:
            raise DataError("no row has an answer to compare with", where=str(options.test_data), fix="name --answer_field")
        kind = _task_type(options, subjects, found.labelled)
        task_options = _options(options, kind, subjects, found.labelled)
        task = open_task(kind, task_options)
        judged = [(row, problem(task, row)) for row in found.labelled]
        rows = [row for row, reason in judged if reason is None]
        if not rows:
            first, reason = judged[0]
            raise DataError(f"no row fits the task {kind}: {reason}", where=first.origin, fix="name another --task_type or columns")
        write_jsonl(folder / "test.jsonl", [row.as_dict() for row in rows])
        write_jsonl(folder / COLUMNS, _columns(found, rows, options.slices))
        write_json(folder / "task.json", task_options)
        unfit = [{"origin": row.origin, "reason": reason, "row": row.as_dict()} for row, reason in judged if reason is not None]
        bad = [*(one.as_dict() for one in found.rejected), *unfit]
        write_jsonl(folder / "rejected.jsonl", bad)
        if bad:
            say(f"  {len(bad):,} rows cannot be used; they lie with their reasons in {folder / 'rejected.jsonl'}")
        return Made({"rows": len(rows), "rejected": len(bad), "task_type": kind})

    return workspace.stage(key, make)


def _task_type(options: EvaluateOptions, subjects: Sequence[Subject], rows: Sequence[Row]) -> str:
    if options.task_type is not None:
        return task_name(options.task_type)
    said = [subject.task_type for subject in subjects if subject.task_type]
    if said:
        return task_name(said[0])
    if look_like_labels([str(row.answer) for row in rows]):
        return "classification"
    raise UsageError(
        "the answers are free text, which may be several kinds of task",
        where="--task_type",
        fix=f"name it: {', '.join(TASKS.names())}, or the path of a file with your own",
    )


def _options(options: EvaluateOptions, kind: str, subjects: Sequence[Subject], rows: Sequence[Row]) -> dict[str, Any]:
    """The task's options; labels are those of the models that name theirs, and those of the rows."""
    known = [label for subject in subjects for label in subject.labels]
    completed: dict[str, Any] = task_class(kind).complete(options.task, [*known, *(str(row.answer) for row in rows)])
    return completed


def _columns(found: FileRows, rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, str]]:
    by_line = {record.line: record.values for record in found.table.records if record.values is not None}
    known = sorted({name for values in by_line.values() for name in values})
    for name in names:
        if name not in known:
            raise ConfigError(f"no column {name!r}", where="--slice", fix=f"columns: {', '.join(known)}")
    return [_values(by_line[int(row.origin.rpartition(":")[2])], names) for row in rows]


def _values(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    return {name: str(record[name]) for name in names if record.get(name) is not None}
