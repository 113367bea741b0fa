"""The order of the stages, and how a recipe is planned, run and resumed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from slmops.config import Recipe, save_recipe
from slmops.errors import ConfigError, GateError, InconclusiveError
from slmops.evaluation.data_page import PAGE, REPORT
from slmops.evaluation.gates import Gate, GateResult, said_before, what_settles
from slmops.export.model_card import MODEL_CARD
from slmops.files import write_text
from slmops.launched import Launch
from slmops.models.pairing import pair
from slmops.models.resolve import ResolvedModel, find, resolve
from slmops.preflight import (
    check_extras,
    check_gates,
    check_judge,
    check_keys,
    check_machine,
    check_names,
    check_objectives,
    check_teacher,
    check_tuning,
)
from slmops.progress import say
from slmops.stages.comparison import Candidate, Comparison
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.judging import RunJudge
from slmops.stages.learning import Lesson, located
from slmops.stages.measuring import load_system, measure_floor, measure_model
from slmops.stages.outside import answerers, measure_answers
from slmops.stages.packing import Packing
from slmops.stages.pairs import check_pairs
from slmops.stages.preparing import gold_of, prepare_data
from slmops.stages.reporting import write_report
from slmops.stages.rows import AS_PACKAGED
from slmops.teachers.spec import spec_of
from slmops.workspace import StageResult, Step, Undecided, Workspace, remove_tree, replace_folder

PACKAGE = "package"


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Args:
        root: The run's folder.
        report: The report's artifact.
        packaged: Name of the row that was packaged; ``None`` where no model passes the gates.
        verdict: ``passed``, ``failed`` or ``INCONCLUSIVE``, of the gates.
        opened: Gates of the best model that might pass, where none is packaged.
    """

    root: Path
    report: StageResult
    packaged: str | None
    verdict: str
    opened: tuple[GateResult, ...] = ()

    def raise_for_gates(self) -> None:
        """Raise where nothing was packaged.

        Raises:
            GateError: No model passes.
            InconclusiveError: Some might, with more test rows or timed requests.
        """
        if self.packaged is not None:
            return
        place = str(self.root / "report.html")
        if self.verdict == "INCONCLUSIVE":
            said = "; ".join(f"{one.gate}: {one.detail}" for one in self.opened if one.verdict == "INCONCLUSIVE")
            raise InconclusiveError(
                f"no model certainly passes the gates, so none is packaged ({said})", where=place, fix=what_settles(self.opened)
            )
        raise GateError(
            "no model passes the gates, so none is packaged", where=place, fix="see there which gate fails, and by how much"
        )


def run(recipe: Recipe) -> Outcome:
    """Run a recipe, or go on with it; what is done already is not done again.

    Raises:
        SlmopsError: Something in the recipe, the data or the machine stops it; the message says what to do.
    """
    Launch.of(os.environ).refuse("a recipe with a teacher")
    workspace = Workspace(recipe.output_path)
    with workspace.lock():
        check_names(recipe)
        check_teacher(recipe)
        check_extras(recipe)
        teacher, student = models_of(recipe)
        judges = [resolve(reference) for reference in check_judge(recipe)]
        if not (recipe.output_path / "report.json").is_file():
            check_keys(recipe)
            check_objectives(recipe)
            check_machine(recipe, teacher, student, judges)
            _say_fit(recipe, teacher, student)
        save_recipe(recipe.output_path / "recipe.yaml", recipe)
        outcome = _stages(Context(recipe, workspace), teacher, student)
        workspace.remember()
    return outcome


def plan(recipe: Recipe) -> list[Step]:
    """What :func:`run` would do, stage by stage, and why; nothing is written and no model is fetched."""
    check_names(recipe)
    check_teacher(recipe)
    check_judge(recipe)
    workspace = Workspace(recipe.output_path, planning=True)
    teacher, student = references(recipe)
    bases = [here(reference) for reference in (teacher, student)]
    _say_fit(recipe, *bases)
    try:
        _stages(Context(recipe, workspace), *bases)
    except Undecided:
        workspace.steps.append(Step("export, measure, report, package", "run", "they depend on how the models score"))
    return workspace.steps


def references(recipe: Recipe) -> tuple[str | None, str]:
    """The models that a recipe starts from: the teacher, if it is one on this machine, and the student.

    Raises:
        ConfigError: The teacher is none that a student could be cut from, and no student is named.
    """
    local = spec_of(recipe.teacher).on_this_machine
    teacher = local.model if local else None
    student = recipe.student.model or teacher
    if student is None:
        raise ConfigError(
            "this teacher is no model that a student could be cut from",
            where="student.model",
            fix="name a small model, such as smollm2-135m-instruct",
        )
    return teacher, student


def models_of(recipe: Recipe) -> tuple[ResolvedModel | None, ResolvedModel]:
    """The same models, fetched where they are not on this machine yet."""
    teacher, student = references(recipe)
    found = resolve(student)
    return (found if teacher == student else resolve(teacher) if teacher else None), found


def _say_fit(recipe: Recipe, teacher: ResolvedModel | None, student: ResolvedModel | None) -> None:
    """What a teacher on this machine and its student have in common."""
    if teacher is None or student is None:
        return
    found = pair(teacher.path, student.path, names=(teacher.reference, student.reference), layers=recipe.student.layers)
    say("\n".join(f"  {line}" for line in found.table().splitlines()))


def here(reference: str | None) -> ResolvedModel | None:
    """A model that is on this machine already; nothing is fetched."""
    found = find(reference) if reference else None
    return found if isinstance(found, ResolvedModel) else None


def _stages(context: Context, teacher_base: ResolvedModel | None, student_base: ResolvedModel | None) -> Outcome:
    recipe = context.recipe
    gates = [Gate.parse(text) for text in recipe.gates]
    prepared = prepare_data(context, located(student_base))
    gold = gold_of(context, prepared)
    check_gates(gates, context, prepared)
    _say_before(gates, context, prepared)
    check_tuning(recipe, gold.training)
    check_pairs(context, prepared)
    judge = RunJudge.of(context)
    lesson = Lesson.of(context, prepared, gold, located(teacher_base), located(student_base))
    lesson.rehearse()
    teacher, answers, data, students = lesson.teacher, lesson.answers, lesson.data, lesson.students()

    floors = {name: measure_floor(context, name) for name in ("torch", recipe.export.runtime)}
    models = {**({"teacher": teacher.model} if teacher.model else {}), **students}
    measured = {}
    if judge is None and gold.training and context.has_labels(data):
        measured["tfidf"] = measure_model(context, "tfidf", data, data, runtime="tfidf", floor=None)
    if teacher.model is None:
        answered = measure_answers(context, teacher, data)
        measured |= {"teacher": answered} if answered.facts["measured"] else {}
    for name, model in models.items():
        turns = teacher.turns if name == "teacher" and not teacher.asks_plainly else None
        measured[name] = measure_model(context, name, model, data, runtime="torch", floor=floors["torch"], turns=turns)

    judged = judge.verdicts(measured, data) if judge else {}
    systems = {name: load_system(context, name, result, data, judged.get(name)) for name, result in measured.items()}
    floor = floors[recipe.export.runtime]
    packing = Packing(context, gates, data, answers, teacher, systems, floor, judge, referred=not gold.test)
    candidates = packing.candidates(students)
    chosen = next((candidate for candidate in candidates if candidate.verdict == "passed"), None)
    alike = packing.teacher_as_packaged(candidates, chosen)
    systems |= {AS_PACKAGED: alike} if alike else {}
    named = [teacher_base] if teacher.model is not None else answerers(teacher.spec, teacher.id)
    judges = answerers(judge.spec, judge.id) if judge else []
    outside = [*(("teacher", one) for one in named), ("student", student_base), *(("judge", one) for one in judges)]
    comparison = Comparison(systems, candidates, chosen, outside)
    report = write_report(context, comparison, data)
    if not context.workspace.planning:
        _publish(context, report, chosen)
    opened = next((candidate.results for candidate in candidates if candidate.verdict == "INCONCLUSIVE"), ())
    verdict = "passed" if chosen else "INCONCLUSIVE" if opened else "failed"
    return Outcome(recipe.output_path, report, chosen.name if chosen else None, verdict, opened)


def _say_before(gates: list[Gate], context: Context, data: StageResult) -> None:
    if not context.workspace.planning and any(gate.margin is not None for gate in gates):
        rows, confidence = len(rows_of(data, "test")), context.recipe.evaluation.confidence
        for line in said_before(gates, context.task(data).primary_measure, rows, confidence):
            say(f"  {line}")


def _publish(context: Context, report: StageResult, chosen: Candidate | None) -> None:
    """Put what people look for at the top of the run's folder: the report and the package."""
    root = context.recipe.output_path
    for name in ("report.html", "report.json", PAGE, REPORT):
        write_text(root / name, (report.path / name).read_text(encoding="utf-8"))
    target, marker = root / PACKAGE, root / ".package"
    if chosen is None or chosen.bundle is None:
        remove_tree(target)
        return
    if not (target.is_dir() and marker.is_file() and marker.read_text(encoding="utf-8") == chosen.bundle.id):
        replace_folder(target, chosen.bundle.path / MODEL)
        write_text(marker, chosen.bundle.id)
    write_text(target / MODEL_CARD, (report.path / MODEL_CARD).read_text(encoding="utf-8"))
