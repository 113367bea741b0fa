"""One trial of a fine-tuning: the model trained with some values, and its goals measured on the validation rows.

The loss is that of the whole model on all validation rows, whatever the number of rows that trials of other batch sizes look at on
their way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.artifact import StageKey
from slmops.config import FinetuneRecipe
from slmops.errors import DataError
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.quality import tally
from slmops.evaluation.stats import interval
from slmops.evaluation.systems import RESULT
from slmops.files import read_json, write_json
from slmops.finetuning import Start, begin, check, tune
from slmops.models.adapter import Adapter, merge_adapter
from slmops.models.load import remote_code
from slmops.search.settings import LOSSES, TUNED, Search
from slmops.search.trials import Found
from slmops.stages.context import MODEL, rows_of
from slmops.stages.exporting import answers_of
from slmops.stages.teaching import ADAPTER, gold_rows
from slmops.workspace import Made, StageResult

if TYPE_CHECKING:
    from slmops.training.watching import Watch

_BATCH_TOKENS = 2048


def goals_of(search: Search, *, begun: bool) -> tuple[tuple[str, ...], int]:
    """The goals, each of which can be measured of the task, and the number of validation rows; the rows are prepared for all.

    Args:
        search: What it does.
        begun: Whether the study is there, so that the machine was found to be large enough.

    Raises:
        DataError: There are no validation rows.
        SlmopsError: The recipe cannot be trained, or a goal is no measure of its task.
    """
    recipe = _recipe(search, {})
    if not begun:
        check(recipe)
    with remote_code(recipe.trust_remote_code):
        start = begin(recipe)
    rows = rows_of(start.prepared, "validation")
    if not rows:
        raise DataError("there are no validation rows to compare trials on", where="data", fix="give some: data.validation_share")
    goals = search.goals or ("validation_loss",)
    for goal in goals:
        if goal not in LOSSES:
            tally(goal, Outputs(start.context.task(start.prepared), rows, [str(row.answer) for row in rows]))
    return goals, len(rows)


def try_tuning(search: Search, goals: tuple[str, ...], values: Mapping[str, Any], watch: Watch) -> Found:
    """Train the model of a trial and measure its goals; what is on disk already is not done again.

    Raises:
        Abandoned: The trial was pruned.
        ConfigError: The recipe or an objective refuses a value.
        TrainingError: The loss is not finite, or nothing is left to train on.
    """
    recipe = _recipe(search, values)
    with remote_code(recipe.trust_remote_code):
        start = begin(recipe)
        model = tune(start, watch)
        seen = read_json(_looked_at(start, model, answered=any(goal not in LOSSES for goal in goals)).path / RESULT)
    found, intervals = {}, {}
    for goal in goals:
        if goal in LOSSES:
            found[goal] = seen["loss"] if goal == "validation_loss" else math.exp(min(seen["loss"], 700.0))
        else:
            outputs = Outputs(start.context.task(start.prepared), rows_of(start.prepared, "validation"), seen["answers"])
            rows = tally(goal, outputs)
            found[goal], intervals[goal] = rows.value, interval(rows, search.confidence)
    steps = {step.stage: step.state for step in start.context.workspace.steps}
    return Found(found, intervals, seen["loss"], [model.path.name] if steps[TUNED] != "done" else [])


def _recipe(search: Search, values: Mapping[str, Any]) -> FinetuneRecipe:
    recipe = search.recipe_with(values)
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def _looked_at(start: Start, model: StageResult, *, answered: bool) -> StageResult:
    """The loss of the trained model on all validation rows, in nats a token of their answers, and what it answers to them."""
    parents = {"model": model.id, "data": start.prepared.id, "base": start.base.fingerprint}
    key = StageKey("validation.tuned", "answers", 1, {"answered": answered}, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.likelihood import losses_of
        from slmops.models.load import load_model

        whole = model.path / MODEL
        if not whole.is_dir():
            whole = work / MODEL
            merge_adapter(Adapter.read(model.path / ADAPTER), start.base.path, whole)
        rows = rows_of(start.prepared, "validation")
        template, task = start.context.template(whole), start.context.task(start.prepared)
        encoded = [template.encode(gold_rows(task, row)[0]) for row in rows]
        loss = sum(losses_of(load_model(whole), encoded, _BATCH_TOKENS)) / sum(len(row.answer_ids) for row in encoded)
        longest = max(len(row.answer_ids) for row in encoded)
        write_json(folder / RESULT, {"loss": loss, "answers": answers_of(whole, rows, longest) if answered else []})
        return Made({"rows": len(rows)})

    return start.context.workspace.stage(key, make)
