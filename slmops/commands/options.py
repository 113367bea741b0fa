"""Options that several verbs read in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _typed(text: str | None) -> str | None:
    r"""What a person means by ``\n`` and ``\t`` between a shell's double quotes."""
    return text.replace("\\n", "\n").replace("\\t", "\t") if text is not None else None


Data = Annotated[Path, typer.Option("--data", "--data_name", help="Training rows: JSONL, JSON, CSV, TSV or Parquet")]
HubOrData = Annotated[
    Path | None,
    typer.Option("--data", "--data_name", help="Hub data set (owner/name), file or folder: JSONL, CSV, Parquet, ..., texts"),
]
DataConfig = Annotated[str | None, typer.Option("--data_config", "--subset", help="Configuration of a hub data set")]
Teacher = Annotated[
    list[str],
    typer.Option(
        "--teacher",
        help="API teacher such as gpt-4o, catalogue name, folder, .gguf file, hub id, or recorded answers; may be given again",
    ),
]
Student = Annotated[
    str | None, typer.Option("--student", help="Model that learns; left out: a shallower cut of a teacher on this machine")
]
Combine = Annotated[
    str | None,
    typer.Option("--combine", help="How several teachers' answers become one: vote, best-of-n, judge, route, mixture"),
]
BaseUrl = Annotated[str | None, typer.Option("--base_url", help="Endpoint of an API teacher; ends with /v1")]
OtherBaseUrl = Annotated[str | None, typer.Option("--base_url", help="Endpoint in place of the catalogue's; ends with /v1")]
MaxCost = Annotated[float | None, typer.Option("--max_cost", help="US dollars at which an API teacher stops")]
StopAtCost = Annotated[float | None, typer.Option("--max_cost", help="US dollars at which it stops; a higher one continues")]
StudentLayers = Annotated[int | None, typer.Option("--student_layers", help="Cut the student to so many layers")]
TaskType = Annotated[str | None, typer.Option("--task_type", "--task", "--task_name", help="Kind of work; left out: guessed")]
KnownTaskType = Annotated[str, typer.Option("--task_type", "--task", "--task_name", help="Kind of work")]
Pool = Annotated[Path | None, typer.Option("--pool", help="Rows without answers, for the teacher to answer")]
ValidationData = Annotated[Path | None, typer.Option("--validation_data", help="Left out: held out of the data")]
TestData = Annotated[Path | None, typer.Option("--test_data", help="Left out: held out of the data")]
TextTemplate = Annotated[
    str | None,
    typer.Option("--text_template", help='Text with fields, such as "{phrase} => {tone}"; \\n is a new line', callback=_typed),
]
InputField = Annotated[str | None, typer.Option("--input_field", help="Column of the question")]
AnswerField = Annotated[str | None, typer.Option("--answer_field", help="Column of the answer")]
TagsField = Annotated[str | None, typer.Option("--tags_field", help="Column of one tag a word, for extraction")]
MaxBadShare = Annotated[float, typer.Option("--max_bad_share", help="Share of bad rows above which nothing starts")]
Seed = Annotated[int, typer.Option("--seed", help="Of splits, batches and weights")]
Plan = Annotated[bool, typer.Option("--plan", help="Say what was taken for what and what it will need, and stop")]
PlanOfCost = Annotated[bool, typer.Option("--plan", help="Say what it will need and cost, and stop; needs no key")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
ReportAsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object")]
RecipeName = Annotated[str, typer.Argument(help="Path of a recipe, or the name of one that comes with the package")]
OutputOfRun = Annotated[Path | None, typer.Option("--output_path", "-o", help="Where everything of the run goes")]
RecipeValues = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the recipe's")]
Servable = Annotated[Path, typer.Argument(help="Folder of a run, of a package, or of a model")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="More of the recipe: answers.retries=2, teacher.api.price_input=2"),
]
