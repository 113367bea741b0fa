"""Whether the rows of a run give a loss on pairs of texts anything to work on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slmops.errors import ConfigError
from slmops.sections import PluginSpec
from slmops.stages.context import Context, rows_of
from slmops.tasks.base import closed_labels
from slmops.tasks.labels import form
from slmops.workspace import StageResult

if TYPE_CHECKING:
    from slmops.training.objectives.contrastive import Contrastive

_NAME = "contrastive"


def check_pairs(context: Context, data: StageResult) -> None:
    """Refuse a loss on pairs where no row is made of the two fields, or no answer is of its labels; while planning, nothing.

    Raises:
        ConfigError: Names the fields that rows have, or the task's labels.
    """
    tune = context.recipe.teacher.tune
    sections = {"training": context.recipe.training, **({"teacher.tune": tune} if tune is not None else {})}
    for where, section in sections.items():
        if not context.workspace.planning and any(spec.get("name") == _NAME for spec in section.objectives):
            _check(_loss(section.objectives), context, data, f"{where}.objectives")


def _loss(specs: Sequence[PluginSpec]) -> Contrastive:
    from slmops.training.objectives.contrastive import Contrastive
    from slmops.training.objectives.weighted import WeightedSum

    on_pairs = WeightedSum.of(specs).on_pairs
    assert on_pairs is not None
    assert isinstance(on_pairs[1], Contrastive)
    return on_pairs[1]


def _check(loss: Contrastive, context: Context, data: StageResult, where: str) -> None:
    known = {tuple(row.fields or ()) for name in ("train", "pool") for row in rows_of(data, name)}
    if not any(set(loss.fields) <= set(names) for names in known):
        there = ", ".join(sorted({name for names in known for name in names}))
        raise ConfigError(
            f"{_NAME} needs the fields {loss.fields[0]!r} and {loss.fields[1]!r}, and no row has both",
            where=where,
            fix=f"the rows have the fields {there}" if there else "give rows whose question is made of several columns",
        )
    labels = closed_labels(context.task(data)) or ()
    for wanted in (loss.same, loss.different):
        if labels and not set(map(form, wanted)) & set(map(form, labels)):
            raise ConfigError(
                f"{_NAME} looks for the answers {', '.join(wanted)}, and the task has none of them",
                where=where,
                fix=f"its labels are {', '.join(labels)}",
            )
