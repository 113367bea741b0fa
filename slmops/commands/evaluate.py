"""``slmops evaluate``: models side by side on test rows, with intervals, gates and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app
from slmops.config import build
from slmops.evaluation.options import EvaluateOptions
from slmops.values import with_overrides

app = new_app()


@app.command()
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folder of a run, package or model, catalogue name, .gguf file, http://host:port/v1, API teacher, or recorded "
            "answers; NAME=MODEL names its row, a name given again is another training seed of the same model",
        ),
    ],
    test_data: Annotated[Path, typer.Option("--test_data", "--data", help="Test rows with answers")],
    task_type: Annotated[
        str | None,
        typer.Option(
            "--task_type", "--task", "--task_name", help="Kind of work, or a file with your own; left out: model or data say"
        ),
    ] = None,
    text_template: given.TextTemplate = None,
    input_field: given.InputField = None,
    answer_field: given.AnswerField = None,
    tags_field: given.TagsField = None,
    chat_template: Annotated[
        str | None, typer.Option("--chat_template", help="own, compact, plain or a .jinja file; left out: each model's own")
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(help="row: the row as it stands; task: with the task's instruction; left out: task for APIs, else row"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "--metrics", help="Measure, or file.py:function with your own; separated by commas, or given again"
        ),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="What must hold for the first model: 'accuracy >= 0.9', 'non_inferior(to=NAME, margin=0.03)'"),
    ] = None,
    by: Annotated[list[str] | None, typer.Option("--slice", help="Column whose values are looked at by themselves")] = None,
    train_data: Annotated[
        list[Path] | None, typer.Option("--train_data", help="What the models learned from; test rows in it are flagged")
    ] = None,
    embeddings: Annotated[str | None, typer.Option(help="Model whose embeddings the measure similarity compares")] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max_new_tokens", help="Longest answer; left out: by the task")] = None,
    max_cost: Annotated[float | None, typer.Option("--max_cost", help="US dollars at which an API stops")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of every interval")] = 0.95,
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where everything goes")] = Path("evaluation"),
    as_json: given.ReportAsJson = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="More options: task.labels=[a,b], evaluation.threads=2"),
    ] = None,
) -> None:
    """Evaluate models on test rows. Exits 0 if the gates passed, 1 if one failed, 3 if one is INCONCLUSIVE, 2 on an error."""
    from slmops.evaluation.terminal import render_table
    from slmops.stages.evaluating import evaluate_models

    values: dict[str, Any] = {
        "models": models,
        "test_data": test_data,
        "output_path": output_path,
        "task_type": task_type,
        "text_template": text_template,
        "input_field": input_field,
        "answer_field": answer_field,
        "tags_field": tags_field,
        "chat_template": chat_template,
        "ask": ask,
        "metrics": [name.strip() for given in metric or [] for name in given.split(",")],
        "gates": gate or [],
        "slices": by or [],
        "train_data": train_data or [],
        "embeddings": embeddings,
        "max_new_tokens": max_new_tokens,
        "max_cost": max_cost,
        "evaluation": {"confidence": confidence},
    }
    outcome = evaluate_models(build(EvaluateOptions, with_overrides(values, option or []), where="evaluate"))
    if as_json:
        print(json.dumps(outcome.report, ensure_ascii=False))
    else:
        print(render_table(outcome.report))
        print(f"\nreport   {outcome.root / 'report.html'}")
    outcome.raise_for_gates()
