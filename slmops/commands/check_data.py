"""``slmops check-data``: a data file looked at once; good rows, the others with their reasons, and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app
from slmops.config import build
from slmops.data.prepare import write
from slmops.data.quality.check import check_source, check_success
from slmops.data.sources import FilesSource, RawSplits, look_at
from slmops.progress import say
from slmops.sections import QualitySection
from slmops.tasks.base import Task, open_task, task_class, task_name

app = new_app()


@app.command()
def check_data(
    data: Annotated[Path, typer.Option("--data", "--data_name", help="Rows: JSONL, JSON, CSV, TSV, CoNLL or Parquet")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where rows and report go")] = Path("checked-data"),
    task_type: Annotated[
        str | None,
        typer.Option(
            "--task_type", "--task", "--task_name", help="Kind of work, or the path of a file with your own; left out: none"
        ),
    ] = None,
    pool: Annotated[Path | None, typer.Option(help="Rows without answers")] = None,
    validation_data: given.ValidationData = None,
    test_data: Annotated[Path | None, typer.Option("--test_data", help="Left out: there is no test split")] = None,
    text_template: given.TextTemplate = None,
    input_field: Annotated[str | None, typer.Option("--input_field", help="Column of the question, or several: a,b")] = None,
    answer_field: given.AnswerField = None,
    tags_field: given.TagsField = None,
    rationale_field: Annotated[str | None, typer.Option("--rationale_field", help="Column of the reasoning")] = None,
    column_names: Annotated[
        str | None, typer.Option("--column_names", help="Columns of a file without a header, separated by commas")
    ] = None,
    validation_share: Annotated[
        float, typer.Option("--validation_share", min=0, max=0.5, help="Share held out without a validation file; 0: none")
    ] = 0.15,
    labels: Annotated[str | None, typer.Option(help="Valid answers, separated by commas; left out: those of the data")] = None,
    language: Annotated[
        str | None, typer.Option(help="Of free answers: prompt (the question's), any, or a code such as en")
    ] = None,
    near_duplicates: Annotated[
        float | None, typer.Option("--near_duplicates", min=0.01, max=1, help="Least similarity of near duplicates")
    ] = None,
    max_label_ratio: Annotated[
        float | None,
        typer.Option("--max_label_ratio", min=1, help="Balance: most training rows of a label, in times the median label's"),
    ] = None,
    min_success: Annotated[
        float | None, typer.Option("--min_success", min=0, max=1, help="Least share of good rows; with fewer it ends with 2")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the splits and of balancing")] = 0,
    as_json: given.ReportAsJson = False,
) -> None:
    """Look at data once: good rows in splits, rejected.jsonl with a reason for each other row, and a report with charts."""
    from slmops.evaluation.data_page import PAGE, render_table, write_pages

    name = task_name(task_type) if task_type is not None else "classification" if labels else None
    columns = {
        "text_template": text_template,
        "input_field": input_field,
        "answer_field": answer_field,
        "tags_field": tags_field,
        "rationale_field": rationale_field,
        "column_names": _listed(column_names),
    }
    files = {"train": data, "pool": pool, "validation": validation_data, "test": test_data}
    source = build(FilesSource, {**files, **_given(columns)}, where="check-data")
    bounds = {
        "language": language,
        "near_duplicates": near_duplicates,
        "max_label_ratio": max_label_ratio,
        "min_success": min_success,
    }
    options = build(QualitySection, _given(bounds), where="check-data")
    say(look_at(source).describe())
    rows = source.read()
    prepared, report = check_source(
        rows,
        options,
        name=data.name,
        task=_task(name, _listed(labels), rows),
        seed=seed,
        max_bad_share=1,
        validation_share=validation_share if rows.labelled else 0,
        test_share=0,
    )
    write(prepared, output_path)
    write_pages(report, output_path)
    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        print(render_table(report), end="")
        print(f"\nrows    {output_path}\nreport  {output_path / PAGE}")
    check_success(report, options.min_success, where=str(output_path / PAGE))


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, ())}


def _task(name: str | None, labels: tuple[str, ...], rows: RawSplits) -> Task | None:
    """The task to check rows with; ``None`` where nobody names one."""
    if name is None:
        return None
    answers = [row.answer for row in (*rows.labelled, *rows.validation, *rows.test) if row.answer is not None]
    return open_task(name, task_class(name).complete({"labels": labels} if labels else {}, answers))
