"""``slmops probe``: whether distilling is worth it, from a small sample."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app, print_plan
from slmops.commands.drafting import Draft, draft
from slmops.data.sources import RawSplits
from slmops.estimate import Estimate
from slmops.evaluation.probe import decide
from slmops.evaluation.probe_table import figures, render_table
from slmops.files import write_json
from slmops.models.resolve import ResolvedModel, find, resolve
from slmops.pipeline import references
from slmops.preflight import check_extras, check_machine, check_names, check_tuning
from slmops.progress import say
from slmops.stages.answering import count_tokens, plan_answers
from slmops.stages.context import Context, ModelAt
from slmops.stages.probing import Probed, Sizes, asked_rows, probe_recipe, run_probe, updates_of
from slmops.workspace import Step, Undecided, Workspace

app = new_app()

PROBE = "probe.json"
EXIT = {"yes": 0, "no": 1, "INCONCLUSIVE": 3}


@app.command()
def probe(
    data: given.Data,
    teacher: given.Teacher,
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where everything goes")] = Path("probe"),
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
    rows: Annotated[
        int, typer.Option(min=1, help="Most test rows; without --test_data at most a third of the labelled ones")
    ] = 200,
    train_rows: Annotated[int, typer.Option("--train_rows", min=8, help="Most labelled rows to fine-tune on")] = 1000,
    pool_rows: Annotated[
        int, typer.Option("--pool_rows", min=0, help="Besides, distill on so many rows of the pool for a trial; 0: none")
    ] = 0,
    margin: Annotated[
        float, typer.Option(min=0.0001, help="Lead of the teacher that is too small to distill for, in the measure's units")
    ] = 0.03,
    seed: given.Seed = 0,
    plan: given.Plan = False,
    as_json: given.AsJson = False,
    overrides: given.Overrides = None,
) -> None:
    """Should I distill at all? A small sample says what the teacher knows more than plain fine-tuning and TF-IDF reach.

    It exits with 0 for yes, 1 for no, 3 for INCONCLUSIVE, 2 on an error. Killed or stopped, the same command continues.
    """
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
        gates=None,
        seed=seed,
        overrides=overrides,
        plan=plan,
    )
    sizes = Sizes(rows, train_rows, pool_rows)
    small = replace(drafted, recipe=probe_recipe(drafted.recipe, drafted.rows, sizes))
    asked = asked_rows(small.recipe, drafted.rows, sizes)
    paid = None if drafted.requests is None else plan_answers(small.recipe, drafted.rows, asked)
    if plan and as_json:
        needs = asdict(_needs(small, sizes))
        stages = [asdict(step) for step in _steps(small, sizes)]
        facts = {"data": drafted.detected.describe(), "needs": needs, "distillation": _cost(drafted), "stages": stages}
        print(json.dumps({**facts, **({"requests": paid.as_dict()} if paid else {})}, ensure_ascii=False))
        return
    say(drafted.detected.describe())
    say(drafted.choices())
    say(f"The probe will need {_needs(small, sizes).describe()}.")
    if paid is not None:
        say(f"For it the teacher is asked:\n{paid.describe()}")
    if plan:
        print_plan(_steps(small, sizes))
        return
    probed = _run(small, sizes)
    confidence = small.recipe.evaluation.confidence
    finding = decide(probed.evidence, confidence=confidence, margin=margin)
    found = figures(probed.systems, probed.curve, probed.evidence, finding, confidence=confidence, margin=margin)
    pace = probed.seconds / _needs(small, sizes).seconds
    result = {**found, "updates": dict(probed.updates), "seconds": probed.seconds, "distillation": _cost(drafted, pace)}
    write_json(output_path / PROBE, result)
    print(json.dumps(result, ensure_ascii=False) if as_json else render_table(result))
    raise typer.Exit(EXIT[finding.word])


def _run(small: Draft, sizes: Sizes) -> Probed:
    recipe = small.recipe
    workspace = Workspace(recipe.output_path)
    with workspace.lock():
        check_names(recipe)
        check_extras(recipe)
        check_tuning(recipe, bool(small.rows.labelled))
        teacher, student = references(recipe)
        here = resolve(teacher) if teacher else None
        base = resolve(student)
        if not (recipe.output_path / PROBE).is_file():
            check_machine(recipe, here, base)
        probed = run_probe(Context(recipe, workspace), _at(here) if here else None, _at(base), sizes)
        workspace.remember()
    return probed


def _steps(small: Draft, sizes: Sizes) -> list[Step]:
    """What a probe would do."""
    workspace = Workspace(small.recipe.output_path, planning=True)
    teacher, student = references(small.recipe)
    bases = [_at(model) if isinstance(model := find(name), ResolvedModel) else None for name in (teacher, student) if name]
    absent = ModelAt(Path("absent"), "not fetched yet")
    try:
        run_probe(Context(small.recipe, workspace), (bases[0] or absent) if teacher else None, bases[-1] or absent, sizes)
    except Undecided:
        workspace.steps.append(Step("the rest", "run", "how many rows there are decides it"))
    return workspace.steps


def _needs(small: Draft, sizes: Sizes) -> Estimate:
    """About what the probe takes: the three fine-tuned students stand where a run has three students."""
    rows, recipe = small.rows, small.recipe
    part = RawSplits(rows.labelled[: sizes.train_rows], rows.pool[: sizes.pool_rows], rows.validation, rows.test[: sizes.rows])
    updates = updates_of(recipe, len(part.labelled), len(rows.labelled) + len(rows.pool))
    training = recipe.training.model_copy(update={"max_steps": updates})
    return small.needs_of(recipe.model_copy(update={"training": training}), part)


def _cost(drafted: Draft, pace: float = 1.0) -> dict[str, Any]:
    """What the distillation itself will take: time on this machine, tokens, and US dollars where an API is asked.

    Args:
        drafted: The distillation.
        pace: How long the probe took, in times of what was estimated for it.
    """
    needs, requests = drafted.needs, drafted.requests
    read, written = count_tokens(drafted.recipe, drafted.rows)
    seconds = pace * needs.seconds
    return {
        "seconds": seconds,
        "disk_mb": needs.disk_mb,
        "memory_mb": needs.memory_mb,
        "machine_cost": seconds / 3600 * drafted.recipe.evaluation.price_per_machine_hour,
        "rows": sum(map(len, (drafted.rows.labelled, drafted.rows.pool, drafted.rows.validation, drafted.rows.test))),
        "prompt_tokens": read,
        "completion_tokens": written,
        "requests": requests.as_dict() if requests else None,
    }


def _at(model: ResolvedModel) -> ModelAt:
    return ModelAt(model.path, model.fingerprint)
