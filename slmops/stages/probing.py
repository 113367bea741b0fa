"""A small sample instead of a run: the teacher, the untuned student, and the student fine-tuned on more and more labelled rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slmops.artifact import StageKey
from slmops.config import Recipe
from slmops.data.prepare import question_key
from slmops.data.rows import Row
from slmops.data.sources import RawSplits
from slmops.data.splits import take_share
from slmops.errors import DataError
from slmops.evaluation.probe import Evidence
from slmops.evaluation.systems import System
from slmops.files import write_jsonl
from slmops.sections import EvaluationSection
from slmops.stages.answering import RunTeacher, answer, take_signals
from slmops.stages.context import MODEL, Context, ModelAt, rows_of
from slmops.stages.layering import Learner
from slmops.stages.measuring import Turns, load_system, measure_model
from slmops.stages.outside import measure_answers
from slmops.stages.preparing import prepare_data
from slmops.stages.teaching import cut_student, distill_model, train_model, tune_teacher
from slmops.teachers.spec import spec_of
from slmops.workspace import Made, StageResult, link_or_copy

_CURVE = (0.25, 0.5, 1.0)
"""Shares of the labelled rows that the student is fine-tuned on."""

_LEAST_TRAINED = 8
_UPDATES, _EPOCHS = 120, 3
"""Enough of either for fine-tuning to have done most of what it can; a run makes more where it has many rows."""

_TEST_SHARE = 1 / 3
_TEACHER, _UNTUNED, _TFIDF, _TRIAL = "teacher", "untuned", "tfidf", "distilled"


@dataclass(frozen=True)
class Sizes:
    """How much of the data a probe takes.

    Args:
        rows: Most test rows; without a test file at most a third of the labelled rows.
        train_rows: Most labelled rows to fine-tune on.
        pool_rows: Rows of the pool that a student is distilled on for a trial; 0: none.
    """

    rows: int = 200
    train_rows: int = 1000
    pool_rows: int = 0


@dataclass(frozen=True)
class Probed:
    """What a probe measured.

    Args:
        systems: ``teacher``, ``untuned``, where answers are labels ``tfidf``, after a trial ``distilled``, and the fine-tuned
            students as ``control-<labelled rows>``.
        curve: Labelled rows by name of a fine-tuned student, ascending.
        labelled: Labelled rows there are in all.
        unlabelled: Rows of the pool.
        updates: Optimizer updates by the name of a trained student.
        tuned: Whether the teacher was tuned on the labelled rows of the largest fine-tuned student.
        makes_rows: Whether the teacher could be asked for new rows.
        seconds: What all of it took.
    """

    systems: Mapping[str, System]
    curve: Mapping[str, int]
    labelled: int
    unlabelled: int
    updates: Mapping[str, int]
    tuned: bool
    makes_rows: bool
    seconds: float

    @property
    def evidence(self) -> Evidence:
        """For the rule."""
        scores = {name: system.tallies[system.primary_measure].each.tolist() for name, system in self.systems.items()}
        return Evidence(
            teacher=scores[_TEACHER],
            fine_tuned={rows: scores[name] for name, rows in self.curve.items()},
            rivals={name: scores[name] for name in (_TFIDF, _UNTUNED) if name in scores},
            distilled=scores.get(_TRIAL),
            labelled=self.labelled,
            tuned=self.tuned,
            unlabelled=self.unlabelled,
            makes_rows=self.makes_rows,
        )


def probe_recipe(recipe: Recipe, rows: RawSplits, sizes: Sizes) -> Recipe:
    """A recipe as a probe follows it: the test rows are a sample, nothing is timed for long and no judge is asked.

    Raises:
        DataError: No training row is labelled.
    """
    if not rows.labelled:
        raise DataError(
            "no training row has an answer, so there is nothing to probe with",
            where="--data",
            fix="label some rows, about 100; without any, distilling is the only way there is",
        )
    share = min(_TEST_SHARE, sizes.rows / len(rows.labelled))
    known = recipe.evaluation.model_dump(exclude={"judge", "latency_requests", "concurrency"})
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"test_share": share}),
            "evaluation": EvaluationSection(**known, latency_requests=5, concurrency=(1,)),
            "gates": (),
        }
    )


def asked_rows(recipe: Recipe, rows: RawSplits, sizes: Sizes) -> list[Row]:
    """As many and such rows as the teacher will be asked in a probe, for a plan: which ones is decided later."""
    test = rows.test or rows.labelled[: round(len(rows.labelled) * recipe.data.test_share)]
    asked = test[: sizes.rows]
    if sizes.pool_rows:
        left = rows.labelled if rows.test else rows.labelled[len(asked) :]
        asked = [*asked, *left[: sizes.train_rows], *rows.validation, *rows.pool[: sizes.pool_rows]]
    return asked


def run_probe(context: Context, teacher_base: ModelAt | None, student_base: ModelAt, sizes: Sizes) -> Probed:
    """Answer, train and measure what the rule needs; what is done already is not done again.

    Args:
        context: With a recipe of :func:`probe_recipe`.
        teacher_base: The teacher's model; ``None`` where it is none on this machine.
        student_base: The student's.
        sizes: How much of the data to take.

    Raises:
        DataError: Records of a teacher lack test rows.
        TeacherError: An API refuses, or the cap on the cost is reached; the same command continues.
    """
    prepared = prepare_data(context, student_base)
    data = take_sample(context, "sample", prepared, train=sizes.train_rows, test=sizes.rows)
    measured: dict[str, StageResult] = {}

    def measure(name: str, model: StageResult, runtime: str = "torch", turns: Turns | None = None) -> None:
        measured[name] = measure_model(context, name, model, data, runtime=runtime, floor=None, turns=turns)

    if context.has_labels(data):
        measure(_TFIDF, data, runtime=_TFIDF)
    teacher = RunTeacher(context, tune_teacher(context, teacher_base, data) if teacher_base else None)
    if teacher.model is not None:
        measure(_TEACHER, teacher.model, turns=None if teacher.asks_plainly else teacher.turns)
    else:
        measured[_TEACHER] = measure_answers(context, teacher, data)
        if not measured[_TEACHER].facts["measured"]:
            raise DataError(
                "the records lack answers to test rows, so the teacher cannot be measured",
                where="--teacher",
                fix="record its answers to some labelled rows, and give these with --test_data",
            )
    untuned = cut_student(context, student_base, data)
    measure(_UNTUNED, untuned)

    start = ModelAt(untuned.path / MODEL, untuned.id)
    plain = context.recipe.training.without_teacher
    everything: Mapping[str, int] = prepared.facts["rows"]
    total = int(data.facts["rows"]["train"])
    curve, updates = {}, {}
    for rows in _curve_sizes(total, len(context.task_options(data).get("labels", ()))):
        part = data if rows == total else take_sample(context, f"sample-{rows}", data, train=rows)
        name = f"control-{rows}"
        curve[name], updates[name] = rows, updates_of(context.recipe, rows, everything["train"] + everything["pool"])
        section = plain.model_copy(update={"max_steps": updates[name]})
        measure(name, train_model(context, name, start, {"data": part}, section))

    if sizes.pool_rows and everything["pool"]:
        inputs = {
            "data": take_sample(context, "sample-pool", prepared, train=sizes.train_rows, test=sizes.rows, pool=sizes.pool_rows)
        }
        inputs["answers"] = answer(context, teacher, inputs["data"])
        if teacher.distribution:
            same = teacher_base is not None and teacher_base.path == student_base.path
            inputs["signals"] = take_signals(context, teacher, inputs["data"], inputs["answers"], Learner(untuned, of_teacher=same))
        updates[_TRIAL] = updates[f"control-{total}"]
        section = context.recipe.training.model_copy(update={"max_steps": updates[_TRIAL]})
        measure(_TRIAL, distill_model(context, _TRIAL, start, inputs, section, scoring=teacher.scoring))

    drawn = [split for split in ("validation", "test") if context.recipe.data.source.get(split) is None]
    return Probed(
        systems={name: load_system(context, name, result, data, None) for name, result in measured.items()},
        curve=curve,
        labelled=everything["train"] + sum(everything[split] for split in drawn),
        unlabelled=everything["pool"],
        updates=updates,
        tuned=teacher.model is not None and context.recipe.teacher.tune is not None,
        makes_rows=any(member.kind != "recorded" for member in spec_of(context.recipe.teacher).members),
        seconds=sum(artifact.manifest.seconds for artifact in context.workspace.artifacts.values()),
    )


def updates_of(recipe: Recipe, rows: int, learned: int) -> int:
    """Updates of a student fine-tuned on so many rows: those of the run's control, but not many more than it needs.

    Args:
        recipe: The recipe.
        rows: Labelled rows.
        learned: Rows that the run's student learns from, whose updates its control takes.
    """
    from slmops.training.batches import steps_of

    section = recipe.training
    batch = (section.batch_size, section.gradient_accumulation_steps)
    whole = section.max_steps or steps_of(learned, *batch, section.epochs)
    return min(whole, max(_UPDATES, steps_of(rows, *batch, _EPOCHS)))


def take_sample(
    context: Context, name: str, data: StageResult, *, train: int, test: int | None = None, pool: int = 0
) -> StageResult:
    """A part of the data, stratified by label: at most so many rows of a split; validation as it is.

    Args:
        context: Of the probe.
        name: Of the stage.
        data: What to take from.
        train: Most training rows.
        test: Most test rows; ``None`` for all.
        pool: Most rows of the pool.
    """
    seed = context.recipe.seed
    most = {"train": train, "test": test, "pool": pool}
    key = StageKey(name, "dataset", 1, {**most, "seed": seed}, {"data": data.id})

    def make(folder: Path, work: Path) -> Made:
        labels = context.has_labels(data)
        counts = {}
        for split, count in most.items():
            rows = rows_of(data, split)
            if count is not None and count < len(rows):
                rows, _ = take_share(
                    rows, count=count, key=question_key, group=lambda row: (row.answer or "") if labels else "", seed=seed
                )
            write_jsonl(folder / f"{split}.jsonl", [row.as_dict() for row in rows])
            counts[split] = len(rows)
        for file in ("validation.jsonl", "task.json"):
            link_or_copy(data.path / file, folder / file)
        return Made({"rows": counts}, seed=seed)

    return context.workspace.stage(key, make)


def _curve_sizes(total: int, labels: int) -> list[int]:
    """Labelled rows of each fine-tuned student: some of every label, and all."""
    least = max(_LEAST_TRAINED, labels)
    return sorted({total, *(round(share * total) for share in _CURVE if round(share * total) >= least)})
