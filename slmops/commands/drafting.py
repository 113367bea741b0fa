"""From what the command line says to the recipe of a distillation, and what that will need: for ``distill`` and ``probe``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.commands.common import run_name
from slmops.config import Recipe, build
from slmops.data.sources import Detected, RawSplits, detect
from slmops.errors import UsageError
from slmops.estimate import Estimate, estimate, matmul_rate
from slmops.models.load import read_config
from slmops.models.resolve import Pending, ResolvedModel, find, resolve
from slmops.models.sizes import parameters_after_cut
from slmops.pipeline import references
from slmops.preflight import check_judge, check_teacher
from slmops.sections import TeacherSection
from slmops.stages.answering import plan_answers
from slmops.stages.context import Context
from slmops.stages.preparing import open_source
from slmops.tasks.base import TASKS, longest_answer, task_name
from slmops.teachers.plan import RequestPlan
from slmops.teachers.spec import spec_of
from slmops.values import with_overrides
from slmops.workspace import Workspace

_UPDATES = 200
_LEAST_LAYERS = 2
_SHALLOW_SHARE = 6 / 30
"""Share of the teacher's layers that a student keeps where nobody says; docs/experiments.md has the trial."""

_OBJECTIVES: list[dict[str, Any]] = [{"name": "cross_entropy", "weight": 0.3}, {"name": "forward_kl", "weight": 0.7}]


@dataclass(frozen=True)
class Draft:
    """A distillation as it would be run.

    Args:
        recipe: All of it.
        detected: What the file of training rows was taken for.
        rows: The source's rows.
        parameters: Weights of the teacher, the student and the judge that are on this machine.
        rate: Floating-point operations a second of this machine.
        requests: What asking the teacher will need; ``None`` where nothing is paid.
        teacher: The teacher's model; ``None`` where it is none on this machine.
        student: The model that the student is cut from.
        cut_later: How many layers the student has is known once the teacher is here.
    """

    recipe: Recipe
    detected: Detected
    rows: RawSplits
    parameters: tuple[int, int, int]
    rate: float
    requests: RequestPlan | None
    teacher: ResolvedModel | Pending | None
    student: ResolvedModel | Pending
    cut_later: bool

    @property
    def needs(self) -> Estimate:
        """Time, disk and memory of the run."""
        return self.needs_of(self.recipe, self.rows)

    def needs_of(self, recipe: Recipe, rows: RawSplits) -> Estimate:
        """The same of another recipe with these models, or of other rows."""
        teacher, student, judge = self.parameters
        return estimate(recipe, rows, teacher, student, self.rate, judge)

    def choices(self) -> str:
        """Teacher, student and how they are trained, for people."""
        recipe, teacher = self.recipe, self.teacher
        student = recipe.student
        shape = (
            f"cut to {student.layers} layers" if student.layers else f"cut to {student.target}" if student.target else "as it is"
        )
        if self.cut_later:
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
            f"Teacher: {', '.join(names)}{fetched}{tuned}. Student: {self.student.reference}, {shape}, "
            f"trained for {recipe.training.epochs:g} epochs on the teacher's {learns}."
        )


def draft(
    files: Mapping[str, Path | None],
    columns: Mapping[str, str | None],
    *,
    teachers: Sequence[str],
    output_path: Path,
    student: str | None,
    student_layers: int | None,
    combine: str | None,
    base_url: str | None,
    max_cost: float | None,
    task_type: str | None,
    max_bad_share: float,
    gates: Sequence[str] | None,
    seed: int,
    overrides: Sequence[str] | None,
    plan: bool,
) -> Draft:
    """The recipe with all that the command line leaves open filled in from the data and the models.

    Args:
        files: By role: ``train``, ``pool``, ``validation``, ``test``.
        columns: Options of the source: ``text_template``, ``input_field``, ``answer_field``.
        teachers: One name, or several.
        output_path: Folder of the run; its name is the run's.
        student: The model that learns.
        student_layers: Layers it is cut to.
        combine: How several answers become one.
        base_url: Endpoint of an API teacher.
        max_cost: US dollars.
        task_type: Kind of work; ``None`` guesses.
        max_bad_share: Share of bad rows above which nothing starts.
        gates: What must hold; ``None`` takes the usual one.
        seed: Of the run.
        overrides: ``key=value`` for the rest.
        plan: Fetch no model.

    Raises:
        SlmopsError: Something in the options, the data or the models does not fit.
    """
    given = {name: value for name, value in columns.items() if value is not None}
    train = files["train"]
    assert train is not None
    detected = detect(train, **given)
    source = {"name": "files", **{role: str(path.absolute()) for role, path in files.items() if path}, **given}
    task = _task(task_type, detected)
    api = {"base_url": base_url} if base_url else {}
    asked = {"model": teachers[0], "api": api} if len(teachers) == 1 else {"members": [{"model": m, "api": api} for m in teachers]}
    values: dict[str, Any] = {
        "name": run_name(output_path),
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
    if same and model is not None and values["student"]["layers"] is None and values["student"].get("target") is None:
        values["student"]["layers"] = _shallow(model)
    if spec.gives_signals:
        values["training"].setdefault("objectives", _OBJECTIVES)
    recorded = any(member.kind == "recorded" for member in spec.members)
    values.setdefault("gates", list(gates or []) or ([] if recorded else ["share_of_teacher >= 0.92"]))
    recipe = build(Recipe, values, where="distill")
    check_teacher(recipe)
    judges = [find(reference) for reference in check_judge(recipe)]
    later = same and recipe.student.layers is None and recipe.student.target is None
    base = model if same and model is not None else find(references(recipe)[1])
    rows = open_source(Context(recipe, Workspace(output_path))).read()
    trained = parameters_after_cut(base, _LEAST_LAYERS if later else recipe.student.layers, recipe.student.target)
    taught = parameters_after_cut(model, None) if model is not None else 0
    judging_here = sum(parameters_after_cut(judge, None) for judge in judges)
    requests = None if local is not None else plan_answers(recipe, rows)
    return Draft(recipe, detected, rows, (taught, trained, judging_here), matmul_rate(), requests, model, base, later)


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
