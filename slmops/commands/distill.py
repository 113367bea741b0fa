"""``slmops distill``: from a file and a teacher to a packaged model, without a recipe to write."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands.common import do, new_app, print_plan
from slmops.config import Recipe, TeacherSection, build, with_overrides
from slmops.data.sources import Detected, detect
from slmops.errors import UsageError
from slmops.estimate import estimate, matmul_rate
from slmops.models.load import read_config
from slmops.models.resolve import Pending, ResolvedModel, find, resolve
from slmops.models.sizes import parameters_after_cut
from slmops.pipeline import plan as plan_run
from slmops.pipeline import references
from slmops.preflight import check_judge, check_teacher
from slmops.progress import say
from slmops.stages.answering import plan_answers
from slmops.stages.context import Context
from slmops.stages.judging import plan_judging
from slmops.stages.preparing import open_source
from slmops.tasks.base import TASKS, longest_answer, task_name
from slmops.teachers.spec import spec_of
from slmops.workspace import Workspace

app = new_app()

_UPDATES = 200
_LEAST_LAYERS = 2
_SHALLOW_SHARE = 6 / 30
"""Share of the teacher's layers that a student keeps where nobody says; docs/experiments.md has the trial."""


@app.command()
def distill(
    data: Annotated[Path, typer.Option("--data", "--data_name", help="Training rows: JSONL, JSON, CSV, TSV or Parquet")],
    teacher: Annotated[
        list[str],
        typer.Option(
            help="API teacher such as gpt-4o, catalogue name, folder, .gguf file, hub id, or recorded answers; may be given again"
        ),
    ],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where everything goes")],
    student: Annotated[
        str | None, typer.Option(help="Model that learns; left out: a shallower cut of a teacher on this machine")
    ] = None,
    combine: Annotated[
        str | None, typer.Option(help="How several teachers' answers become one: vote, best-of-n, judge, route, mixture")
    ] = None,
    base_url: Annotated[str | None, typer.Option("--base_url", help="Endpoint of an API teacher; ends with /v1")] = None,
    max_cost: Annotated[float | None, typer.Option("--max_cost", help="US dollars at which an API teacher stops")] = None,
    student_layers: Annotated[int | None, typer.Option("--student_layers", help="Cut the student to so many layers")] = None,
    task_type: Annotated[
        str | None, typer.Option("--task_type", "--task", "--task_name", help="Kind of work; left out: guessed")
    ] = None,
    pool: Annotated[Path | None, typer.Option(help="Rows without answers, for the teacher to answer")] = None,
    validation_data: Annotated[Path | None, typer.Option("--validation_data", help="Left out: held out of the data")] = None,
    test_data: Annotated[Path | None, typer.Option("--test_data", help="Left out: held out of the data")] = None,
    text_template: Annotated[
        str | None, typer.Option("--text_template", help='Text with fields, such as "{phrase} => {tone}"')
    ] = None,
    input_field: Annotated[str | None, typer.Option("--input_field", help="Column of the question")] = None,
    answer_field: Annotated[str | None, typer.Option("--answer_field", help="Column of the answer")] = None,
    max_bad_share: Annotated[float, typer.Option("--max_bad_share", help="Share of bad rows above which nothing starts")] = 0.05,
    gate: Annotated[list[str] | None, typer.Option(help="What must hold for a model to be packaged; may be given again")] = None,
    seed: Annotated[int, typer.Option(help="Of splits, batches and weights")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Say what was taken for what and what it will need, and stop")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="More of the recipe: answers.retries=2, teacher.api.price_input=2"),
    ] = None,
) -> None:
    """Distill a teacher into a small model for your data: data, teacher, training, export, evaluation, package."""
    detected = detect(data, text_template=text_template, input_field=input_field, answer_field=answer_field)
    files = {"train": data, "pool": pool, "validation": validation_data, "test": test_data}
    options = {"text_template": text_template, "input_field": input_field, "answer_field": answer_field}
    source = {"name": "files", **{role: str(path.absolute()) for role, path in files.items() if path}}
    source |= {name: value for name, value in options.items() if value is not None}
    task = _task(task_type, detected)
    api = {"base_url": base_url} if base_url else {}
    asked = {"model": teacher[0], "api": api} if len(teacher) == 1 else {"members": [{"model": m, "api": api} for m in teacher]}
    values: dict[str, Any] = {
        "name": _name(output_path),
        "task_type": task,
        "output_path": str(output_path),
        "seed": seed,
        "data": {"source": source, "max_bad_share": max_bad_share},
        "teacher": {
            **asked,
            "combine": {"name": combine} if combine else None,
            "requests": {"max_cost": max_cost} if max_cost is not None else {},
        },
        "answers": {"max_new_tokens": longest_answer(task)},
        "student": {"model": student, "layers": student_layers},
        "training": {"epochs": _epochs(detected.rows)},
    }
    values = with_overrides(values, overrides or [])
    spec = spec_of(build(TeacherSection, values["teacher"], where="distill"))
    local = spec.on_this_machine
    same = local is not None and values["student"]["model"] in (None, local.model)
    model = None if local is None else find(local.model) if plan else resolve(local.model)
    if local is not None and detected.labelled_share:
        tune = {"lora": {}, "epochs": _epochs(round(detected.rows * detected.labelled_share))}
        values["teacher"] = {"tune": tune, **values["teacher"]}
    if same and model is not None and values["student"]["layers"] is None:
        values["student"]["layers"] = _shallow(model)
    if spec.gives_signals:
        values["training"].setdefault("objectives", _OBJECTIVES)
    recorded = any(member.kind == "recorded" for member in spec.members)
    values.setdefault("gates", gate or ([] if recorded else ["share_of_teacher >= 0.92"]))
    recipe = build(Recipe, values, where="distill")
    check_teacher(recipe)
    judges = [find(reference) for reference in check_judge(recipe)]
    later = same and recipe.student.layers is None
    base = model if same and model is not None else find(references(recipe)[1])
    rows = open_source(Context(recipe, Workspace(output_path))).read()
    trained = parameters_after_cut(base, _LEAST_LAYERS if later else recipe.student.layers)
    taught = parameters_after_cut(model, None) if model is not None else 0
    judging_here = sum(parameters_after_cut(judge, None) for judge in judges)
    needs = estimate(recipe, rows, taught, trained, matmul_rate(), judging_here)
    requests = None if local is not None else plan_answers(recipe, rows)
    judging = plan_judging(recipe, rows)
    if plan and as_json:
        stages = [asdict(step) for step in plan_run(recipe)]
        facts = {"data": detected.describe(), "needs": asdict(needs), "recipe": recipe.model_dump(mode="json"), "stages": stages}
        paid = {"requests": requests, "judging": judging}
        print(json.dumps({**facts, **{name: one.as_dict() for name, one in paid.items() if one}}, ensure_ascii=False))
        return
    say(detected.describe())
    say(_choices(recipe, model, base, later))
    say(f"It will need {needs.describe()}.")
    if requests is not None:
        say(f"Besides, the teacher is asked:\n{requests.describe()}")
    if judging is not None:
        say(f"Besides, the judge is asked, if it knows none of the answers yet:\n{judging.describe()}")
    if plan:
        print_plan(plan_run(recipe))
    else:
        do(recipe, as_json=as_json)


_OBJECTIVES: list[dict[str, Any]] = [{"name": "cross_entropy", "weight": 0.3}, {"name": "forward_kl", "weight": 0.7}]


def _task(given: str | None, detected: Detected) -> str:
    if given is None and detected.task_type != "classification":
        unlabelled = "no row has an answer, so the kind of task cannot be told"
        raise UsageError(
            unlabelled if not detected.labelled_share else "the answers are free text, which may be several kinds of task",
            where="--task_type",
            fix=f"name it: {', '.join(TASKS.names())}",
        )
    return task_name(given or detected.task_type)


def _epochs(rows: int, batch_size: int = 16) -> int:
    """Passes that give about 200 updates, from 3 to 10: few rows need many passes, many rows few."""
    return max(3, min(10, math.ceil(_UPDATES * batch_size / max(1, rows))))


def _shallow(model: ResolvedModel | Pending) -> int | None:
    """Layers of a cut of the teacher; not known before the teacher is on this machine."""
    if isinstance(model, Pending):
        return None
    return max(_LEAST_LAYERS, round(_SHALLOW_SHARE * int(read_config(model.path)["num_hidden_layers"])))


def _choices(recipe: Recipe, teacher: ResolvedModel | Pending | None, student: ResolvedModel | Pending, later: bool) -> str:
    shape = f"cut to {recipe.student.layers} layers" if recipe.student.layers else "as it is"
    if later:
        shape = "cut to about a fifth of its layers (how many is known once it is here)"
    if isinstance(teacher, Pending):
        size = f"{teacher.download_mb:,.0f} MB" if teacher.download_mb is not None else "its size is known to the hub alone"
        fetched = f" (to be fetched first: {size})"
    else:
        fetched = f" ({teacher.source})" if teacher is not None else ""
    tuned = f", tuned for {recipe.teacher.tune.epochs:g} epochs on the labelled rows" if recipe.teacher.tune else ""
    spec = spec_of(recipe.teacher)
    names = [member.model for member in spec.members]
    learns = "answers and signals" if spec.gives_signals else "answers"
    return (
        f"Teacher: {', '.join(names)}{fetched}{tuned}. Student: {student.reference}, {shape}, "
        f"trained for {recipe.training.epochs:g} epochs on the teacher's {learns}."
    )


def _name(output_path: Path) -> str:
    allowed = "".join(
        sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in output_path.resolve().name.lower()
    )
    return allowed.strip("._-") or "model"
