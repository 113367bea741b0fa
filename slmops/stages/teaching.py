"""Models that are taken, cut or trained: the teacher where it is tuned, and the students."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.artifact import StageKey
from slmops.config import StudentSection, TrainingSection
from slmops.data.rows import Row
from slmops.progress import say
from slmops.stages.context import MODEL, Context, ModelAt, rows_of
from slmops.tasks.base import Task
from slmops.workspace import Made, StageResult, link_or_copy

if TYPE_CHECKING:
    from slmops.signals.store import SignalStore
    from slmops.training.loop import Watch

TRAINING = "training"
"""Name of the file of an ``answers`` artifact with the rows that students train on."""


def tune_teacher(context: Context, base: ModelAt, data: StageResult) -> StageResult:
    """The teacher, tuned on the labelled rows where the recipe says so, with the recipe's chat template."""
    tune = context.recipe.teacher.tune
    return train_model(context, "teacher", base, {"data": data}, tune) if tune else adopt_model(context, "teacher", base)


def cut_student(context: Context, base: ModelAt) -> StageResult:
    """The student before any training: a model as it is, or a shallower cut of it."""
    return adopt_model(context, "untuned", base, context.recipe.student)


def adopt_model(context: Context, stage: str, base: ModelAt, cut: StudentSection | None = None) -> StageResult:
    """A model as it is, or a shallower cut of it, with the recipe's chat template."""
    layers = cut.layers if cut else None
    shape = {"layers": layers, "keep": cut.keep} if cut and layers else {"layers": None}
    key = StageKey(stage, "model", 1, {**shape, **context.template_key}, {"base": base.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.models.depth import cut_depth, uniform_layers
        from slmops.models.load import parameter_count, read_config

        target = folder / MODEL
        facts: dict[str, object] = {}
        if cut is None or layers is None:
            for pattern in ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"):
                for file in base.path.glob(pattern):
                    link_or_copy(file, target / file.name)
        else:
            total = int(read_config(base.path)["num_hidden_layers"])
            keep = uniform_layers(total, layers) if cut.keep == "uniform" else list(range(layers))
            cut_depth(base.path, target, keep)
            facts["kept_layers"] = keep
        context.template(base.path).save(target)
        return Made({**facts, "parameters": parameter_count(target)})

    return context.workspace.stage(key, make)


def train_model(
    context: Context,
    stage: str,
    base: ModelAt,
    inputs: dict[str, StageResult],
    section: TrainingSection,
    *,
    updates_of: StageResult | None = None,
    watch: Watch | None = None,
) -> StageResult:
    """Train ``base`` on the labelled rows or, with ``answers`` among the inputs, on what these say all rows train on.

    Args:
        context: Of the run.
        stage: Name of the stage.
        base: Model to start from.
        inputs: ``data`` and, as the run needs them, ``answers`` and ``signals``.
        section: Objectives and hyperparameters.
        updates_of: A run whose number of updates this one takes.
        watch: Is told the validation loss on the way.
    """
    recipe = context.recipe
    config = section.model_dump(mode="json", exclude={"checkpoint_seconds"})
    parents = {"base": base.id, **{role: result.id for role, result in inputs.items()}}
    if updates_of is not None:
        parents["updates"] = updates_of.id
    key = StageKey(stage, "model", 2, {**config, "seed": recipe.seed, **context.template_key}, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.training.loop import train

        template = context.template(base.path)
        data, answers = inputs["data"], inputs.get("answers")
        task = context.task(data)
        rows = rows_of(answers, TRAINING) if answers else [more for row in rows_of(data, "train") for more in gold_rows(task, row)]
        known = section if answers is None or "signals" in inputs else _without_signals(section)
        chosen = known if updates_of is None else known.model_copy(update={"max_steps": updates_of.facts["steps"]})
        trained = train(
            base.path,
            folder / MODEL,
            work,
            template=template,
            rows=rows,
            validation=[gold_rows(task, row)[0] for row in rows_of(data, "validation")],
            section=chosen,
            seed=recipe.seed,
            what=stage,
            signals=_open_signals(context, inputs["signals"], template.fingerprint) if "signals" in inputs else None,
            watch=watch,
        )
        return Made({**asdict(trained), "rows": len(rows)}, seed=recipe.seed)

    return context.workspace.stage(key, make)


def _without_signals(section: TrainingSection) -> TrainingSection:
    """A training on answers alone: the objectives that need no signals, else cross-entropy."""
    from slmops.training.objectives import WeightedSum

    kept = tuple(spec for spec in section.objectives if not WeightedSum.of([spec]).needs_signal)
    if len(kept) < len(section.objectives):
        say("  there are no signals of the teacher: the student learns from its answers alone")
    return section.model_copy(update={"objectives": kept or ({"name": "cross_entropy"},)})


def fingerprints(context: Context, teacher: str, template: str) -> dict[str, str]:
    """What signals are bound to."""
    return {"teacher": teacher, "template": template, "form": f"top-{context.recipe.signals.k} float16"}


def gold_rows(task: Task, row: Row) -> list[Row]:
    """The training rows of a labelled row: its answer in the normal form and, where the task trains reasoning, the row's own."""
    return task.training_rows(row, task.parse(str(row.answer)), task.rationale(str(row.answer)))


def _open_signals(context: Context, signals: StageResult, template: str) -> SignalStore:
    from slmops.signals.store import SignalStore

    teacher = signals.artifact.manifest.parents["teacher"]
    return SignalStore.open(signals.path, fingerprints(context, teacher, template))
