"""Models that are taken, cut or trained: the teacher where it is tuned, and the students."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.artifact import StageKey
from slmops.data.rows import Row
from slmops.files import digest
from slmops.models.bottleneck_folder import BOTTLENECK_CONFIG
from slmops.models.cutplan import CutPlan
from slmops.models.shrink import Wish
from slmops.progress import say
from slmops.sections import TrainingSection
from slmops.stages.context import MODEL, Context, DataContext, ModelAt, rows_of
from slmops.stages.foreseeing import Around, Start
from slmops.stages.layering import open_layers
from slmops.tasks.base import Task, closed_labels
from slmops.training.registry import objective_key
from slmops.workspace import Made, StageResult, link_or_copy

if TYPE_CHECKING:
    from slmops.data.templates import Template
    from slmops.signals.store import SignalStore
    from slmops.teachers.mapping import MappedSignals
    from slmops.teachers.matching import MatchedLayers
    from slmops.training.on_policy import Scorer
    from slmops.training.watching import Watch

TRAINING = "training"
"""Name of the file of an ``answers`` artifact with the rows that students train on."""

ADAPTER = "adapter"
"""Folder of an artifact with an adapter and the tokenizer that belongs to it."""

TOKENIZER = "tokenizer"
"""Folder of a ``signals`` artifact with the tokenizer that its token ids are of."""

LOGS = "logs"
"""Folder of a run with the files of its reports, where the recipe names none."""

_BESIDE = {"checkpoint_seconds", "save_steps", "save_total_limit", "logging_steps", "report_to", "logging_dir"}
"""Values of a training that change nothing in what it computes."""

_LATER = {"on_policy", "bottleneck", "lr_scheduler_type", "warmup_steps", "gradient_checkpointing", "eval_steps", "eval_batch_size"}
"""Values that trainings of earlier versions did not have."""

Taught = Callable[["Template", Sequence[Row]], "tuple[SignalStore | MappedSignals, MatchedLayers | None]"]
"""Opens a teacher's signals for a student with some template, and what is kept of layers, at the rows that it trains on."""


def tune_teacher(context: Context, base: ModelAt, data: StageResult) -> StageResult:
    """The teacher, tuned on the labelled rows where the recipe says so, with the recipe's chat template."""
    tune = context.recipe.teacher.tune
    return train_model(context, "teacher", base, {"data": data}, tune) if tune else adopt_model(context, "teacher", base)


def cut_student(context: Context, base: ModelAt, data: StageResult, answers: StageResult | None = None) -> StageResult:
    """The student before any training: a model as it is, or a cut of it.

    Which tokens and layers a cut keeps is decided by training rows, pool and the teacher's answers to these, never by
    validation or test rows.

    Args:
        context: Of the run.
        base: Model to cut.
        data: The prepared rows.
        answers: The teacher's answers, where there are any yet.
    """
    wish = Wish.of(context.recipe.student)
    if not wish.trims and wish.keep != "importance":
        return adopt_model(context, "untuned", base, wish)
    parents = {"data": data.id, **({"answers": answers.id} if answers else {})}

    def texts() -> list[Row]:
        task = context.task(data)
        labelled = [more for row in rows_of(data, "train") for more in gold_rows(task, row)]
        return [*labelled, *rows_of(data, "pool"), *(rows_of(answers, TRAINING) if answers else ())]

    return adopt_model(context, "untuned", base, wish, texts, lambda: rows_of(data, "validation"), parents)


def adopt_model(
    context: Context,
    stage: str,
    base: ModelAt,
    wish: Wish | None = None,
    texts: Callable[[], list[Row]] = list,
    unseen: Callable[[], list[Row]] = list,
    parents: Mapping[str, str] | None = None,
) -> StageResult:
    """A model as it is, or a cut of it, with the recipe's chat template.

    Args:
        context: Of the run.
        stage: Name of the stage.
        base: Model to take.
        wish: How it is cut.
        texts: Rows that decide which tokens and layers are kept.
        unseen: Rows that do not; said is how many of them a smaller vocabulary splits as before.
        parents: Ids of what the texts come from.
    """
    shape = _shape_key(wish) if wish else {"layers": None}
    key = StageKey(stage, "model", 1, {**shape, **context.template_key}, {"base": base.id, **(parents or {})})

    def make(folder: Path, work: Path) -> Made:
        from slmops.models.load import parameter_count

        target, template = folder / MODEL, context.template(base.path)
        if wish is None or not wish.cuts:
            for pattern in (
                "*.safetensors",
                "*.safetensors.index.json",
                "config.json",
                "generation_config.json",
                BOTTLENECK_CONFIG,
            ):
                for file in base.path.glob(pattern):
                    link_or_copy(file, target / file.name)
            template.save(target)
            return Made({"parameters": parameter_count(target)})
        plan = _cut(base.path, target, work, wish, template, texts())
        facts = plan.as_dict()
        if plan.tokens is not None:
            parent, template = template, context.template(target)
            facts["alike"] = _alike(parent, template, unseen())
            say(f"  {facts['alike']:.1%} of the validation rows have the same tokens as before")
        template.save(target)
        return Made({**facts, "parameters": parameter_count(target)})

    return context.workspace.stage(key, make)


def _shape_key(wish: Wish) -> dict[str, object]:
    """What of the recipe decides the cut; nothing of it where nothing is cut."""
    if not wish.cuts:
        return {"layers": None}
    more = {"vocabulary": wish.vocabulary, "target": wish.target, "precision": wish.precision if wish.target else None}
    return {"layers": wish.depth, "keep": wish.keep, **{name: value for name, value in more.items() if value is not None}}


def _cut(source: Path, target: Path, work: Path, wish: Wish, template: Template, rows: list[Row]) -> CutPlan:
    """Plan a cut, say it and make it."""
    from slmops.models.shrink import cut_model, plan_cut
    from slmops.models.timing import Request

    plan = plan_cut(source, wish, rows=template.token_ids(rows), request=Request.of(template, rows))
    if rows or plan.copying:
        say("\n".join(f"  {line}" for line in plan.table().splitlines()))
    cut_model(source, target, plan, work)
    return plan


def _alike(parent: Template, student: Template, rows: list[Row]) -> float:
    from slmops.models.tokenmap import TokenMap

    tokens = TokenMap.between(parent.tokenizer, student.tokenizer)
    return tokens.share_alike([parent.prompt(row) for row in rows])


def train_model(
    context: DataContext,
    stage: str,
    base: ModelAt,
    inputs: dict[str, StageResult],
    section: TrainingSection,
    *,
    updates_of: StageResult | None = None,
    taught: Taught | None = None,
    scoring: Callable[[StageResult, Template], Scorer] | None = None,
    watch: Watch | None = None,
    adapter_alone: bool = False,
    adapter: ModelAt | None = None,
    head: bool = False,
    around: Around | None = None,
) -> StageResult:
    """Train ``base`` on the labelled rows or, with ``answers`` among the inputs, on what these say all rows train on.

    Args:
        context: Of the run.
        stage: Name of the stage.
        base: Model to start from.
        inputs: ``data`` and, as the run needs them, ``answers`` and ``signals``.
        section: Objectives and hyperparameters.
        updates_of: A run whose number of updates this one takes.
        taught: Opens the signals, where there are some among the inputs.
        scoring: Loads the teacher that scores the student's own samples to rows of the data, where the section has such.
        watch: Is told the validation loss on the way.
        adapter_alone: Keep the adapter, in the folder ``adapter``, and not the model that it makes of the base.
        adapter: An adapter that is trained further, with its tokenizer where it has one.
        head: Train a new classification head in place of the output layer.
        around: Lies around the training, and gives further facts.
    """
    recipe = context.recipe
    config = _what_it_computes(section)
    config["objectives"] = [objective_key(spec) for spec in config["objectives"]]
    parents = {"base": base.id, **{role: result.id for role, result in inputs.items()}}
    if adapter_alone:
        config["saved"] = ADAPTER
    if recipe.trained_on != "answer":
        config["trained_on"] = recipe.trained_on
    if adapter is not None:
        parents["adapter"] = adapter.id
    if head:
        config["head"] = True
    if updates_of is not None:
        parents["updates"] = updates_of.id
    key = StageKey(stage, "model", 3, {**config, "seed": recipe.seed, **context.template_key}, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.data.label_template import LabelTemplate
        from slmops.models.adapter import tokenizer_folder
        from slmops.models.load import context_length
        from slmops.training.loop import train

        template = context.template(tokenizer_folder(adapter.path, base.path) if adapter is not None else base.path)
        data, answers = inputs["data"], inputs.get("answers")
        if head:
            template = LabelTemplate(template.tokenizer, template.chat, labels=closed_labels(context.task(data)) or ())
        rows = rows_of(answers, TRAINING) if answers else [row for rows in _learned(context, data, "train") for row in rows]
        known = section if answers is None or taught is not None else without_signals(section)
        chosen = known if updates_of is None else known.model_copy(update={"max_steps": updates_of.facts["steps"]})
        if recipe.trained_on == "text":  # a block is as long as it may be
            chosen = chosen.model_copy(update={"max_length": min(chosen.max_length, context_length(base.path))})
        signals, layers = taught(template, rows) if taught is not None else (None, None)
        validation = [rows[0] for rows in _learned(context, data, "validation")]
        continued = adapter.path if adapter is not None else None
        start = Start(base.path, chosen, template, rows, validation, recipe.seed, work, continued)
        with around(start) if around is not None else nullcontext({}) as more:
            trained = train(
                base.path,
                folder / (ADAPTER if adapter_alone else MODEL),
                work,
                template=template,
                rows=rows,
                validation=validation,
                section=chosen,
                seed=recipe.seed,
                what=stage,
                signals=signals,
                layers=layers,
                scorer=scoring(data, template) if scoring is not None and chosen.on_policy is not None else None,
                watch=watch,
                adapter_alone=adapter_alone,
                logs=(section.logging_dir / recipe.name if section.logging_dir else recipe.output_path / LOGS) / stage,
                adapter=continued,
            )
        optional = ("on_policy", "kept", "texts")
        facts = {name: value for name, value in asdict(trained).items() if name not in optional or value is not None}
        return Made({**facts, "rows": len(rows), **more}, seed=recipe.seed)

    return context.workspace.stage(key, make)


def _what_it_computes(section: TrainingSection) -> dict[str, Any]:
    """What of a section decides the weights. What came later counts where it is not as it was before."""
    config = section.model_dump(mode="json", exclude=_BESIDE)
    plain = TrainingSection().model_dump(mode="json", include=_LATER)
    return {name: value for name, value in config.items() if name not in plain or value != plain[name]}


def _learned(context: DataContext, data: StageResult, split: str) -> list[list[Row]]:
    """What each row of a split becomes for the training; a text without an answer stays as it is."""
    rows = rows_of(data, split)
    if context.recipe.trained_on == "text":
        return [[row] for row in rows]
    task = context.task(data)
    return [gold_rows(task, row) for row in rows]


def distill_model(
    context: Context,
    stage: str,
    base: ModelAt,
    inputs: dict[str, StageResult],
    section: TrainingSection,
    *,
    scoring: Callable[[StageResult, Template], Scorer] | None = None,
    watch: Watch | None = None,
) -> StageResult:
    """:func:`train_model` from the teacher's signals too, where there are some among the inputs."""
    taught = partial(open_signals, context, inputs) if "signals" in inputs else None
    return train_model(context, stage, base, inputs, section, taught=taught, scoring=scoring, watch=watch)


def without_signals(section: TrainingSection) -> TrainingSection:
    """A training on answers alone: the objectives that need no signals, else cross-entropy."""
    from slmops.training.objectives import WeightedSum
    from slmops.training.objectives.weighted import PAIRS

    terms = WeightedSum.of(section.objectives).terms
    kept = [(spec, term) for spec, term in zip(section.objectives, terms, strict=True) if not term.objective.needs_signal]
    if len(kept) < len(terms):
        say("  there are no signals of the teacher: the student learns from its answers alone")
        # A weight that changes does so against the others, which are gone.
        kept = [({**spec, "weight": term.weight.highest} if "weight" in spec else spec, term) for spec, term in kept]
    left = [spec for spec, _ in kept]
    if all(isinstance(term.objective, PAIRS) for _, term in kept):
        left.insert(0, {"name": "cross_entropy"})
    return section.model_copy(update={"objectives": tuple(left)})


def fingerprints(context: Context, teacher: str, template: Template, data: StageResult, answers: StageResult) -> dict[str, str]:
    """What signals are bound to: ``teacher``, ``tokenizer``, ``template``, ``mask``, ``data`` and ``form``."""
    from slmops.signals.forms import form_of

    form = form_of(context.recipe.signals).fingerprint
    return {"teacher": teacher, **template.fingerprints, "data": digest([data.id, answers.id]), "form": form}


def gold_rows(task: Task, row: Row) -> list[Row]:
    """The training rows of a labelled row: its answer in the normal form and, where the task trains reasoning, the row's own."""
    return task.training_rows(row, task.parse(str(row.answer)), task.rationale(str(row.answer)))


def open_signals(
    context: Context, inputs: Mapping[str, StageResult], template: Template, rows: Sequence[Row] = ()
) -> tuple[SignalStore | MappedSignals, MatchedLayers | None]:
    """The signals for a student and what is kept of layers; one with a part of the teacher's vocabulary gets its own ids.

    Args:
        context: Of the run.
        inputs: ``data``, ``answers`` and ``signals``.
        template: The student's.
        rows: What it trains on; said is how many of these fit.

    Raises:
        FingerprintError: The signals were made from something else.
    """
    from slmops.models.tokenmap import TokenMap
    from slmops.signals.store import SignalStore
    from slmops.teachers.mapping import MappedSignals

    signals = inputs["signals"]
    teacher = signals.artifact.manifest.parents["teacher"]
    theirs = context.template(signals.path / TOKENIZER) if (signals.path / TOKENIZER).is_dir() else template
    tokens = TokenMap.between(theirs.tokenizer, template.tokenizer)
    if tokens.same:
        theirs = template
    made_from = fingerprints(context, teacher, theirs, inputs["data"], inputs["answers"])
    store = SignalStore.open(signals.path, made_from)
    layers = open_layers(signals, made_from, template, None if tokens.same else tokens.new_ids, rows)
    if tokens.same or not tokens.part:
        return store, layers
    mapped = MappedSignals(store, theirs, template, tokens)
    if rows:
        say(mapped.describe(rows))
    return mapped, layers
