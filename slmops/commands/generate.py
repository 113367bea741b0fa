"""``slmops generate``: a teacher answers the rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import cost_lines, new_app, print_facts, print_requests, rejected_lines
from slmops.config import build
from slmops.teachers.generate import ANSWERS, REJECTED, Generate, GenerateOptions
from slmops.values import with_overrides

app = new_app()


@app.command()
def generate(
    task_type: given.KnownTaskType,
    teacher: Annotated[
        list[str],
        typer.Option(
            help="API teacher such as gpt-4o, model name, folder, .gguf file, hub id, or recorded answers; may be given again"
        ),
    ],
    data: Annotated[Path, typer.Option("--data", "--data_name", help="Rows: JSONL, JSON, CSV, TSV or Parquet")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where the answers go")],
    combine: given.Combine = None,
    max_cost: given.StopAtCost = None,
    base_url: given.OtherBaseUrl = None,
    max_new_tokens: Annotated[int, typer.Option("--max_new_tokens", help="Longest answer in tokens")] = 256,
    sampling_temperature: Annotated[float, typer.Option("--sampling_temperature", help="0: the likeliest answer")] = 0.0,
    retries: Annotated[int, typer.Option(help="Times an invalid answer, or one that gold proves wrong, is asked again")] = 0,
    min_success: Annotated[float, typer.Option("--min_success", help="Least share of usable answers")] = 0.7,
    input_field: given.InputField = None,
    answer_field: given.AnswerField = None,
    plan: given.PlanOfCost = False,
    as_json: given.AsJson = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="More options: task.labels=[a,b], teacher.price_input=2, requests.patience_s=60, combine.n=8, label_source=agree",
        ),
    ] = None,
) -> None:
    """Let a teacher answer rows. Killed or stopped, the same command continues; no answer is paid twice."""
    values: dict[str, Any] = {
        "data": data,
        "output_path": output_path,
        "task_type": task_type,
        "teacher_names": teacher,
        "combine": {"name": combine} if combine else None,
        "teacher": {"base_url": base_url} if base_url else {},
        "requests": {"max_cost": max_cost} if max_cost is not None else {},
        "max_new_tokens": max_new_tokens,
        "sampling_temperature": sampling_temperature,
        "retries": retries,
        "min_success": min_success,
        "input_field": input_field,
        "answer_field": answer_field,
    }
    job = Generate(build(GenerateOptions, with_overrides(values, overrides or []), where="generate"))
    if plan:
        print_requests(job.plan(), teacher, as_json)
    else:
        print_facts(job.run(), lambda facts: _table(facts, output_path), as_json)


def _table(facts: dict[str, Any], folder: Path) -> str:
    lines = [f"answers   {facts['answered']:,} of {facts['rows']:,} rows in {folder / ANSWERS}"]
    lines += rejected_lines(facts, folder / REJECTED)
    if facts["invalid_beside_gold"]:
        lines.append(f"gold      {facts['invalid_beside_gold']:,} of these by gold alone: the teacher gave no valid answer")
    if facts["gold"]:
        first = f"; {facts['right_by_try'][0]:.1%} at the first try" if "right_by_try" in facts else ""
        lines.append(f"right     {facts['right']:.1%} of {facts['gold']:,} rows with a gold answer{first}")
    if "disagreements" in facts:
        lines.append(f"agreement the members disagree on {facts['disagreements']['share']:.1%} of the rows")
    return "\n".join([*lines, *cost_lines(facts)])
