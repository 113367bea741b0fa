"""``slmops augment``: a teacher makes more training rows out of those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import cost_lines, new_app, print_facts, print_requests, rejected_lines
from slmops.config import build
from slmops.teachers.augment import AUGMENTED, REJECTED, Augment, AugmentOptions
from slmops.values import with_overrides

app = new_app()


@app.command()
def augment(
    data: given.Data,
    task_type: given.KnownTaskType,
    teacher: Annotated[
        list[str],
        typer.Option(help="API teacher such as gpt-4o, with --base_url any model of that endpoint, or a model on this machine"),
    ],
    method: Annotated[str, typer.Option(help="paraphrase, back_translation, or seeds: new questions like the given ones")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where the new rows go")],
    per_row: Annotated[int, typer.Option("--per_row", help="New rows for each row")] = 1,
    test_data: Annotated[Path | None, typer.Option("--test_data", help="Rows that no new row may be like")] = None,
    validation_data: Annotated[Path | None, typer.Option("--validation_data", help="The same")] = None,
    with_originals: Annotated[bool, typer.Option("--with_originals", help="Write the given rows too, before the new ones")] = False,
    pivot: Annotated[str | None, typer.Option(help="Language that back_translation goes through; left out: German")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the rows, for back_translation; left out: English")] = None,
    max_cost: given.StopAtCost = None,
    base_url: given.OtherBaseUrl = None,
    sampling_temperature: Annotated[
        float, typer.Option("--sampling_temperature", help="Softness of the sampling; 0: the likeliest reply")
    ] = 0.7,
    min_success: Annotated[float, typer.Option("--min_success", help="Least share of good rows among those asked for")] = 0.7,
    seed: Annotated[int, typer.Option(help="Another one gives other texts")] = 0,
    input_field: given.InputField = None,
    answer_field: given.AnswerField = None,
    plan: given.PlanOfCost = False,
    as_json: given.AsJson = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="More options: task.labels=[a,b], seeds_per_call=8, quality.near_duplicates=0.7"
        ),
    ] = None,
) -> None:
    """Let a teacher make more training rows. Killed or stopped, the same command continues; nothing is paid twice."""
    values: dict[str, Any] = {
        "data": data,
        "output_path": output_path,
        "task_type": task_type,
        "teacher_names": teacher,
        "teacher": {"base_url": base_url} if base_url else {},
        "requests": {"max_cost": max_cost} if max_cost is not None else {},
        "method": method.replace("-", "_"),
        "per_row": per_row,
        "validation_data": validation_data,
        "test_data": test_data,
        "with_originals": with_originals,
        **({"pivot": pivot} if pivot else {}),
        **({"language": language} if language else {}),
        "sampling_temperature": sampling_temperature,
        "min_success": min_success,
        "seed": seed,
        "input_field": input_field,
        "answer_field": answer_field,
    }
    job = Augment(build(AugmentOptions, with_overrides(values, overrides or []), where="augment"))
    if plan:
        print_requests(job.plan(), teacher, as_json)
    else:
        print_facts(job.run(), lambda facts: _table(facts, output_path), as_json)


def _table(facts: dict[str, Any], folder: Path) -> str:
    lines = [f"new rows  {facts['kept']:,} of {facts['asked']:,} asked for, from {facts['rows']:,} rows, in {folder / AUGMENTED}"]
    lines += rejected_lines(facts, folder / REJECTED)
    if facts["set_aside"]:
        lines.append(f"set aside {facts['set_aside']:,} given rows, in {folder / REJECTED} too")
    if facts["labels"]:
        lines.append("labels    " + ", ".join(f"{name} {count:,}" for name, count in facts["labels"].items()))
    return "\n".join([*lines, *cost_lines(facts)])
