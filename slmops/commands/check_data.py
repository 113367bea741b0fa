"""``slmops check-data``: a data file looked at once; good rows, the others with their reasons, and a report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from slmops.commands.common import new_app
from slmops.config import build
from slmops.data.prepare import write
from slmops.data.quality.check import check_source
from slmops.data.quality.options import QualityOptions
from slmops.data.rows import Row
from slmops.data.sources import FilesSource, RawSplits, detect
from slmops.errors import UsageError, nearest
from slmops.files import write_json, write_text
from slmops.progress import say
from slmops.tasks.base import TASKS, Task, open_task, rejection

app = new_app()

REPORT, PAGE = "data-report.json", "data-report.html"
_ANY_LANGUAGE = ("translation",)


@app.command()
def check_data(
    data: Annotated[Path, typer.Option("--data", "--data_name", help="Rows: JSONL, JSON, CSV, TSV or Parquet")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where rows and report go")] = Path("checked-data"),
    task_type: Annotated[
        str | None, typer.Option("--task_type", "--task", "--task_name", help="Kind of work; left out: guessed")
    ] = None,
    pool: Annotated[Path | None, typer.Option(help="Rows without answers")] = None,
    validation_data: Annotated[Path | None, typer.Option("--validation_data", help="Left out: held out of the data")] = None,
    test_data: Annotated[Path | None, typer.Option("--test_data", help="Left out: there is no test split")] = None,
    text_template: Annotated[
        str | None, typer.Option("--text_template", help='Text with fields, such as "{phrase} => {tone}"')
    ] = None,
    input_field: Annotated[str | None, typer.Option("--input_field", help="Column of the question")] = None,
    answer_field: Annotated[str | None, typer.Option("--answer_field", help="Column of the answer")] = None,
    validation_share: Annotated[
        float, typer.Option("--validation_share", min=0, max=0.5, help="Share held out without a validation file; 0: none")
    ] = 0.15,
    labels: Annotated[str | None, typer.Option(help="Valid answers, separated by commas; left out: those of the data")] = None,
    language: Annotated[
        str | None, typer.Option(help="Of free answers: prompt (the question's), any, or a code such as en")
    ] = None,
    near_duplicates: Annotated[
        float, typer.Option("--near_duplicates", min=0.01, max=1, help="Least similarity of near duplicates")
    ] = 0.85,
    max_label_ratio: Annotated[
        float | None,
        typer.Option("--max_label_ratio", min=1, help="Balance: most training rows of a label, in times the median label's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the splits and of balancing")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object")] = False,
) -> None:
    """Look at data once: good rows in splits, rejected.jsonl with a reason for each other row, and a report with charts."""
    from slmops.evaluation.data_page import render_html, render_table

    if task_type is not None and task_type not in TASKS.names():
        raise UsageError(f"unknown task type {task_type!r}", where="--task_type", fix=nearest(task_type, TASKS.names()))
    source = FilesSource(
        train=data,
        pool=pool,
        validation=validation_data,
        test=test_data,
        text_template=text_template,
        input_field=input_field,
        answer_field=answer_field,
    )
    say(detect(data, text_template=text_template, input_field=input_field, answer_field=answer_field).describe())
    rows = source.read()
    options = build(
        QualityOptions,
        {
            "language": language or ("any" if task_type in _ANY_LANGUAGE else "prompt"),
            "near_duplicates": near_duplicates,
            "max_label_ratio": max_label_ratio,
        },
        where="check-data",
    )
    given = tuple(name.strip() for name in labels.split(",")) if labels else None
    task = _task(task_type or ("classification" if given else None), given, rows)

    def check(row: Row) -> str | None:
        return rejection(task, str(row.answer)) if task is not None else None

    prepared, report = check_source(
        _Read(rows),
        options,
        name=data.name,
        labels=getattr(task, "labels", None),
        check_answer=check,
        seed=seed,
        max_bad_share=1,
        validation_share=validation_share if rows.labelled else 0,
        test_share=0,
    )
    write(prepared, output_path)
    write_text(output_path / PAGE, render_html(report))
    write_json(output_path / REPORT, report.as_dict())
    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        print(render_table(report), end="")
        print(f"\nrows    {output_path}\nreport  {output_path / PAGE}")


@dataclass(frozen=True)
class _Read:
    """A source that has been read."""

    rows: RawSplits

    def fingerprint(self) -> str:
        return ""

    def read(self) -> RawSplits:
        return self.rows


def _task(task_type: str | None, labels: tuple[str, ...] | None, rows: RawSplits) -> Task | None:
    """The task to check answers with; ``None`` where nobody names one."""
    if task_type is None:
        return None
    answers = [row.answer for row in (*rows.labelled, *rows.validation, *rows.test) if row.answer is not None]
    return open_task(task_type, TASKS.get(task_type).complete({"labels": labels} if labels else {}, answers))
