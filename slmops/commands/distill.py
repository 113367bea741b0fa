"""``slmops distill``: from a file and a teacher to a packaged model, without a recipe to write."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import do, new_app, print_plan
from slmops.commands.drafting import draft
from slmops.pipeline import plan as plan_run
from slmops.progress import say
from slmops.stages.judging import plan_judging

app = new_app()


@app.command()
def distill(
    data: given.Data,
    teacher: given.Teacher,
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where everything goes")],
    student: given.Student = None,
    combine: given.Combine = None,
    base_url: given.BaseUrl = None,
    max_cost: given.MaxCost = None,
    student_layers: given.StudentLayers = None,
    task_type: given.TaskType = None,
    pool: given.Pool = None,
    validation_data: given.ValidationData = None,
    test_data: given.TestData = None,
    text_template: given.TextTemplate = None,
    input_field: given.InputField = None,
    answer_field: given.AnswerField = None,
    max_bad_share: given.MaxBadShare = 0.05,
    gate: Annotated[list[str] | None, typer.Option(help="What must hold for a model to be packaged; may be given again")] = None,
    seed: given.Seed = 0,
    plan: given.Plan = False,
    as_json: given.AsJson = False,
    overrides: given.Overrides = None,
) -> None:
    """Distill a teacher into a small model for your data: data, teacher, training, export, evaluation, package."""
    drafted = draft(
        {"train": data, "pool": pool, "validation": validation_data, "test": test_data},
        {"text_template": text_template, "input_field": input_field, "answer_field": answer_field},
        teachers=teacher,
        output_path=output_path,
        student=student,
        student_layers=student_layers,
        combine=combine,
        base_url=base_url,
        max_cost=max_cost,
        task_type=task_type,
        max_bad_share=max_bad_share,
        gates=gate,
        seed=seed,
        overrides=overrides,
        plan=plan,
    )
    recipe, detected, needs, requests = drafted.recipe, drafted.detected, drafted.needs, drafted.requests
    judging = plan_judging(recipe, drafted.rows)
    if plan and as_json:
        stages = [asdict(step) for step in plan_run(recipe)]
        facts = {"data": detected.describe(), "needs": asdict(needs), "recipe": recipe.model_dump(mode="json"), "stages": stages}
        paid = {"requests": requests, "judging": judging}
        print(json.dumps({**facts, **{name: one.as_dict() for name, one in paid.items() if one}}, ensure_ascii=False))
        return
    say(detected.describe())
    say(drafted.choices())
    say(f"It will need {needs.describe()}.")
    if requests is not None:
        say(f"Besides, the teacher is asked:\n{requests.describe()}")
    if judging is not None:
        say(f"Besides, the judge is asked, if it knows none of the answers yet:\n{judging.describe()}")
    if plan:
        print_plan(plan_run(recipe))
    else:
        do(recipe, as_json=as_json)
