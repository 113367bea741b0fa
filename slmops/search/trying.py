"""One trial: the student trained with some values, and its goals measured on the validation rows.

The test rows stay unseen: the best of many trials on them would look better than it is. ``slmops run`` with the best recipe
measures on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from slmops.config import Recipe
from slmops.errors import ModelError
from slmops.evaluation.measures import COSTS
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.quality import tally
from slmops.evaluation.stats import interval
from slmops.evaluation.systems import RESULT
from slmops.files import read_json
from slmops.pipeline import models_of
from slmops.preflight import check_tuning
from slmops.search.settings import LOSSES, Search
from slmops.search.trials import Found
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.exporting import answer_split, export_model, package, reference_answers
from slmops.stages.learning import Lesson, located
from slmops.stages.measuring import measure_floor, measure_model
from slmops.stages.preparing import gold_of, prepare_data
from slmops.workspace import StageResult, Workspace

if TYPE_CHECKING:
    from slmops.training.watching import Watch

_VALIDATION = "validation"
_OF_A_TRIAL = ("model", "candidate", "bundle")
_SHARED = ("teacher", "untuned")


@dataclass(frozen=True)
class Tried:
    """What was measured of a trial's student: numbers, and answers to the validation rows."""

    costs: Mapping[str, float]
    answers: list[str]


def learn(recipe: Recipe) -> tuple[Lesson, Workspace]:
    """The stages that trials share, made by whoever needs them first."""
    workspace = Workspace(recipe.output_path)
    context = Context(recipe, workspace)
    teacher, student = models_of(recipe)
    prepared = prepare_data(context, located(student))
    gold = gold_of(context, prepared)
    check_tuning(recipe, gold.training)
    return Lesson.of(context, prepared, gold, located(teacher), located(student)), workspace


def try_values(search: Search, goals: tuple[str, ...], values: Mapping[str, Any], watch: Watch) -> Found:
    """Train the student of a trial and measure its goals; what is on disk already is not done again.

    Raises:
        Abandoned: The trial was pruned.
        ConfigError: The recipe or an objective refuses a value.
        TrainingError: The loss is not finite, or nothing is left to train on.
        ModelError: No such cut of the model, or no conversion keeps its answers.
    """
    recipe = search.recipe_with(values)
    assert isinstance(recipe, Recipe)
    lesson, workspace = learn(recipe)
    row = search.section.row
    train = {"distilled": lesson.distilled, "answers-only": lesson.answers_only, "control": lesson.control_alone}[row]
    model = train(watch)
    tried = _packaged(lesson, row, model) if search.packaged else _as_trained(lesson, row, model)
    curve = [point["validation"] for point in model.facts["curve"] if point["validation"] is not None]
    loss = curve[-1] if curve else None
    outputs = Outputs(lesson.context.task(lesson.data), rows_of(lesson.data, _VALIDATION), tried.answers)
    found, intervals = {}, {}
    for goal in goals:
        if goal in COSTS:
            found[goal] = tried.costs[goal]
        elif goal in LOSSES:
            nats = loss if loss is not None else math.inf
            found[goal] = nats if goal == "validation_loss" else math.exp(min(nats, 700.0))
        else:
            rows = tally(goal, outputs)
            found[goal], intervals[goal] = rows.value, interval(rows, search.confidence)
    made = [
        workspace.artifacts[step.stage].path.name
        for step in workspace.steps
        if step.state != "done" and step.stage not in _SHARED and workspace.artifacts[step.stage].manifest.kind in _OF_A_TRIAL
    ]
    return Found(found, intervals, loss, made)


def _as_trained(lesson: Lesson, row: str, model: StageResult) -> Tried:
    """The student in float32 or bfloat16 answers in this process: nothing is timed."""
    answers = answer_split(lesson.context, row, model, lesson.data, _VALIDATION)
    return Tried({"parameters": _parameters(model)}, read_json(answers.path / RESULT)["answers"])


def _packaged(lesson: Lesson, row: str, model: StageResult) -> Tried:
    """The student as it would be served: converted by the first scheme that keeps its answers, and measured by itself."""
    context, data = lesson.context, lesson.data
    section = context.recipe.export
    reference = reference_answers(context, row, model, data, lesson.answers)
    for scheme, following in zip_longest(section.schemes, section.schemes[1:]):
        exported = export_model(context, row, model, reference, data, scheme, following=following)
        if exported.facts["passed"]:
            break
    else:
        raise ModelError("no scheme keeps the model's answers", where="export.schemes", fix="add a scheme with more bits")
    bundle = package(context, f"{row}.{scheme}", exported, data)
    measured = measure_model(
        context,
        f"{row}.{scheme}.{_VALIDATION}",
        bundle,
        data,
        runtime=section.runtime,
        floor=measure_floor(context, section.runtime),
        parameters=int(_parameters(model)),
        split=_VALIDATION,
    )
    return Tried(dict(measured.artifact.manifest.measures), read_json(measured.path / RESULT)["answers"])


def _parameters(model: StageResult) -> float:
    from slmops.models.load import parameter_count

    return float(parameter_count(model.path / MODEL))
