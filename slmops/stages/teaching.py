"""Teacher, answers, signals: stage 1 of a distillation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.artifact import StageKey
from slmops.config import StudentSection, TrainingSection
from slmops.files import write_json, write_jsonl
from slmops.stages.context import MODEL, Context, ModelAt, rows_of
from slmops.workspace import Made, StageResult, link_or_copy

if TYPE_CHECKING:
    from slmops.signals.store import SignalStore


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
) -> StageResult:
    """Train ``base`` on the labelled rows and, with ``answers`` among the inputs, on the teacher's answers.

    Args:
        context: Of the run.
        stage: Name of the stage.
        base: Model to start from.
        inputs: ``data`` and, as the run needs them, ``answers`` and ``signals``.
        section: Objectives and hyperparameters.
        updates_of: A run whose number of updates this one takes.
    """
    recipe = context.recipe
    config = section.model_dump(mode="json", exclude={"checkpoint_seconds"})
    parents = {"base": base.id, **{role: result.id for role, result in inputs.items()}}
    if updates_of is not None:
        parents["updates"] = updates_of.id
    key = StageKey(stage, "model", 1, {**config, "seed": recipe.seed, **context.template_key}, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.training.loop import train

        template = context.template(base.path)
        data, answers = inputs["data"], inputs.get("answers")
        rows = rows_of(data, "train") + (rows_of(answers, "answers") if answers else [])
        chosen = section if updates_of is None else section.model_copy(update={"max_steps": updates_of.facts["steps"]})
        trained = train(
            base.path,
            folder / MODEL,
            work,
            template=template,
            rows=rows,
            validation=rows_of(data, "validation"),
            section=chosen,
            seed=recipe.seed,
            what=stage,
            signals=_open_signals(context, inputs["signals"], template.fingerprint) if "signals" in inputs else None,
        )
        return Made({**asdict(trained), "rows": len(rows)}, seed=recipe.seed)

    return context.workspace.stage(key, make)


def answer(context: Context, teacher: StageResult, data: StageResult) -> StageResult:
    """The teacher's answers to train, pool and validation; those to the pool become training rows."""
    recipe = context.recipe
    section = recipe.answers
    config = {**section.model_dump(mode="json"), "precision": recipe.teacher.precision, **context.template_key}
    key = StageKey("answers", "answers", 1, config, {"teacher": teacher.id, "data": data.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.teachers.answered import check_success
        from slmops.teachers.asking import ask_rows
        from slmops.teachers.local import LocalTeacher
        from slmops.teachers.replies import AskParams
        from slmops.teachers.weights import WeightsTeacher

        task = context.task(data)
        labelled = {name: rows_of(data, name) for name in ("train", "validation")}
        pool = rows_of(data, "pool")
        model = teacher.path / MODEL
        local = WeightsTeacher(
            recipe.teacher.model,
            {"model": teacher.id},
            lambda: LocalTeacher.load(model, context.template(model), recipe.teacher.precision),
            section.chunk_rows,
        )
        everything = [*labelled["train"], *pool, *labelled["validation"]]
        params = AskParams(max_new_tokens=section.max_new_tokens)
        answered = ask_rows(local, everything, task, params, work, turns=lambda row: row.messages)
        check_success(answered.given, section.min_success)
        pool_ids = {row.id for row in pool}
        good = [row for row in answered.rows if row.id in pool_ids]
        write_jsonl(folder / "answers.jsonl", [row.as_dict() for row in good])
        write_jsonl(
            folder / "rejected.jsonl",
            [{**row.as_dict(), "teacher_answer": raw, "reason": reason} for row, raw, reason in answered.rejected],
        )
        write_json(folder / "raw.json", answered.raw)
        right = {
            name: sum(task.correct(answered.raw[row.id], str(row.answer)) for row in rows) / len(rows)
            for name, rows in labelled.items()
            if rows
        }
        counts = {"answered": len(answered.rows), "rejected": len(answered.rejected), "reasons": answered.reasons}
        return Made({**counts, "pool": len(good), "right": right})

    return context.workspace.stage(key, make)


def take_signals(context: Context, teacher: StageResult, data: StageResult, answers: StageResult) -> StageResult:
    """The teacher's distribution at the answer tokens of the labelled rows and of its own answers."""
    recipe = context.recipe
    config = {
        **recipe.signals.model_dump(mode="json"),
        "chunk_rows": recipe.answers.chunk_rows,
        "precision": recipe.teacher.precision,
        **context.template_key,
    }
    key = StageKey("signals", "signals", 1, config, {"teacher": teacher.id, "data": data.id, "answers": answers.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.signals.store import write_signals
        from slmops.teachers.local import LocalTeacher
        from slmops.teachers.signals import signal_rows

        model = teacher.path / MODEL
        template = context.template(model)
        local = LocalTeacher.load(model, template, recipe.teacher.precision)
        rows = rows_of(data, "train") + rows_of(data, "validation") + rows_of(answers, "answers")
        signals = signal_rows(local, rows, template, k=recipe.signals.k, chunk_rows=recipe.answers.chunk_rows, work=work)
        write_signals(folder, rows, signals, _fingerprints(context, teacher.id, template.fingerprint))
        return Made({"rows": len(rows), "positions": sum(len(signal) for signal in signals)})

    return context.workspace.stage(key, make)


def _fingerprints(context: Context, teacher: str, template: str) -> dict[str, str]:
    return {"teacher": teacher, "template": template, "form": f"top-{context.recipe.signals.k} float16"}


def _open_signals(context: Context, signals: StageResult, template: str) -> SignalStore:
    from slmops.signals.store import SignalStore

    teacher = signals.artifact.manifest.parents["teacher"]
    return SignalStore.open(signals.path, _fingerprints(context, teacher, template))
