"""The order of the stages, and how a recipe is planned, run and resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slmops.config import Recipe, save_recipe
from slmops.errors import GateError, InconclusiveError
from slmops.evaluation.data_page import PAGE, REPORT
from slmops.evaluation.gates import Gate, GateResult, judge
from slmops.evaluation.systems import System
from slmops.files import write_text
from slmops.models.resolve import ResolvedModel, find, resolve
from slmops.preflight import check_extras, check_gates, check_machine, check_names
from slmops.stages.context import MODEL, Context, ModelAt
from slmops.stages.exporting import export_model, package, reference_answers
from slmops.stages.measuring import load_system, measure_floor, measure_model
from slmops.stages.preparing import prepare_data
from slmops.stages.reporting import Candidate, Comparison, write_report
from slmops.stages.rows import STUDENTS
from slmops.stages.teaching import answer, cut_student, take_signals, train_model, tune_teacher
from slmops.workspace import StageResult, Step, Undecided, Workspace, link_or_copy, remove_tree

PACKAGE = "package"
QUANTIZED = "teacher-quantized"


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Args:
        root: The run's folder.
        report: The report's artifact.
        packaged: Name of the row that was packaged; ``None`` where no model passes the gates.
        verdict: ``passed``, ``failed`` or ``INCONCLUSIVE``, of the gates.
    """

    root: Path
    report: StageResult
    packaged: str | None
    verdict: str

    def raise_for_gates(self) -> None:
        """Raise where nothing was packaged.

        Raises:
            GateError: No model passes.
            InconclusiveError: Some might, with more test rows.
        """
        if self.packaged is not None:
            return
        place = str(self.root / "report.html")
        if self.verdict == "INCONCLUSIVE":
            raise InconclusiveError(
                "no model certainly passes the gates, so none is packaged", where=place, fix="give more test rows"
            )
        raise GateError(
            "no model passes the gates, so none is packaged", where=place, fix="see there which gate fails, and by how much"
        )


def run(recipe: Recipe) -> Outcome:
    """Run a recipe, or go on with it; what is done already is not done again.

    Raises:
        SlmopsError: Something in the recipe, the data or the machine stops it; the message says what to do.
    """
    workspace = Workspace(recipe.output_path)
    with workspace.lock():
        check_names(recipe)
        check_extras(recipe)
        teacher, student = _models(recipe)
        if not (recipe.output_path / "report.json").is_file():
            check_machine(recipe, teacher, student)
        save_recipe(recipe.output_path / "recipe.yaml", recipe)
        outcome = _stages(Context(recipe, workspace), teacher, student)
        workspace.remember()
    return outcome


def plan(recipe: Recipe) -> list[Step]:
    """What :func:`run` would do, stage by stage, and why; nothing is written and no model is fetched."""
    check_names(recipe)
    workspace = Workspace(recipe.output_path, planning=True)
    found = [find(reference) for reference in _references(recipe)]
    models = [model if isinstance(model, ResolvedModel) else None for model in found]
    try:
        _stages(Context(recipe, workspace), *(models if len(models) == 2 else [models[0], models[0]]))
    except Undecided:
        workspace.steps.append(Step("export, measure, report, package", "run", "they depend on how the models score"))
    return workspace.steps


def _references(recipe: Recipe) -> list[str]:
    student = recipe.student.model
    return [recipe.teacher.model] if student in (None, recipe.teacher.model) else [recipe.teacher.model, str(student)]


def _models(recipe: Recipe) -> tuple[ResolvedModel, ResolvedModel]:
    models = [resolve(reference) for reference in _references(recipe)]
    return models[0], models[-1]


def _stages(context: Context, teacher_base: ResolvedModel | None, student_base: ResolvedModel | None) -> Outcome:
    recipe = context.recipe
    gates = [Gate.parse(text) for text in recipe.gates]
    data = prepare_data(context, _at(student_base))
    check_gates(gates, context, data)
    teacher = tune_teacher(context, _at(teacher_base), data)
    answers = answer(context, teacher, data)
    signals = take_signals(context, teacher, data, answers)
    untuned = cut_student(context, _at(student_base))
    start = ModelAt(untuned.path / MODEL, untuned.id)
    plain = recipe.training.model_copy(update={"objectives": ({"name": "cross_entropy"},)})
    distilled = train_model(context, "distilled", start, {"data": data, "answers": answers, "signals": signals}, recipe.training)
    answers_only = train_model(context, "answers-only", start, {"data": data, "answers": answers}, plain)
    control = train_model(context, "control", start, {"data": data}, plain, updates_of=distilled)

    floors = {name: measure_floor(context, name) for name in ("torch", recipe.export.runtime)}
    models = {"teacher": teacher, "untuned": untuned, "control": control, "answers-only": answers_only, "distilled": distilled}
    measured = {}
    if context.has_labels(data):
        measured["tfidf"] = measure_model(context, "tfidf", data, data, runtime="tfidf", floor=None)
    for name, model in models.items():
        measured[name] = measure_model(context, name, model, data, runtime="torch", floor=floors["torch"])

    systems = {name: load_system(name, result) for name, result in measured.items()}
    candidates = _candidates(context, gates, data, answers, {**models, QUANTIZED: teacher}, systems, floors[recipe.export.runtime])
    chosen = next((candidate for candidate in candidates if candidate.verdict == "passed"), None)
    comparison = Comparison(systems, candidates, chosen, {"teacher": teacher_base, "student": student_base})
    report = write_report(context, comparison, data)
    if not context.workspace.planning:
        _publish(context, report, chosen)
    verdicts = {candidate.verdict for candidate in candidates}
    verdict = "passed" if chosen else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "failed"
    return Outcome(recipe.output_path, report, chosen.name if chosen else None, verdict)


def _candidates(
    context: Context,
    gates: list[Gate],
    data: StageResult,
    answers: StageResult,
    models: dict[str, StageResult],
    systems: dict[str, System],
    floor: StageResult,
) -> list[Candidate]:
    """Convert, package, measure and judge the quantized teacher, then the students, the best first, until one passes."""

    def candidate(name: str) -> Candidate:
        return _candidate(context, name, models[name], gates, data, answers, systems, floor)

    quantized = candidate(QUANTIZED)
    candidates = [quantized]
    if quantized.system is not None:
        systems[QUANTIZED] = replace(quantized.system, name=QUANTIZED)
    for name in sorted(STUDENTS, key=lambda name: (-systems[name].quality, systems[name].measures["latency_p50_ms"])):
        passed = [known.quality for known in candidates if known.verdict == "passed"]
        if passed and max(passed) > systems[name].quality:
            break
        candidates.append(candidate(name))
    return sorted(candidates, key=_rank)


def _rank(candidate: Candidate) -> tuple[float, float]:
    """The best first, of equals the fastest."""
    return (-candidate.quality, candidate.system.measures["latency_p50_ms"] if candidate.system else 0.0)


def _candidate(
    context: Context,
    name: str,
    model: StageResult,
    gates: list[Gate],
    data: StageResult,
    answers: StageResult,
    systems: dict[str, System],
    floor: StageResult,
) -> Candidate:
    """The smallest scheme that keeps the model's answers and passes the gates, else the smallest that keeps the answers.

    The quantized teacher is a row of the table in any case: where no scheme keeps its answers, by the last one.
    """
    recipe = context.recipe
    reference = reference_answers(context, name, model, data, answers)
    attempts: list[dict[str, Any]] = []
    found: list[Candidate] = []
    schemes = recipe.export.teacher_schemes if name == QUANTIZED else recipe.export.schemes
    for scheme in schemes:
        exported = export_model(context, name, model, reference, data, scheme)
        attempts.append(dict(exported.facts))
        agrees = exported.facts["passed"]
        if not agrees and not (name == QUANTIZED and scheme == schemes[-1]):
            continue
        row = f"{name}.{scheme}"
        bundle = package(context, row, exported, data)
        parameters = int(systems["teacher" if name == QUANTIZED else name].measures["parameters"])
        runtime = recipe.export.runtime
        system = load_system(
            "packaged", measure_model(context, row, bundle, data, runtime=runtime, floor=floor, parameters=parameters)
        )
        results = tuple(judge(gate, system, systems, recipe.evaluation.confidence) for gate in gates)
        if not agrees:
            results = (GateResult("export", "failed", exported.facts["why"]), *results)
        found.append(Candidate(name, scheme, bundle, system, results, attempts))
        if found[-1].verdict == "passed" or name == QUANTIZED:
            break
        attempts[-1] |= {"passed": False, "why": "; ".join(f"{r.gate}: {r.detail}" for r in results if r.verdict != "passed")}
    chosen = next((candidate for candidate in found if candidate.verdict == "passed"), found[0] if found else None)
    if chosen is not None:
        return chosen
    none = GateResult("export", "failed", "no scheme keeps the model's answers")
    return Candidate(name, None, None, None, (none,), attempts)


def _publish(context: Context, report: StageResult, chosen: Candidate | None) -> None:
    """Put what people look for at the top of the run's folder: the report and the package."""
    root = context.recipe.output_path
    for name in ("report.html", "report.json", PAGE, REPORT):
        write_text(root / name, (report.path / name).read_text(encoding="utf-8"))
    target, marker = root / PACKAGE, root / ".package"
    if chosen is None or chosen.bundle is None:
        remove_tree(target)
        return
    if target.is_dir() and marker.is_file() and marker.read_text(encoding="utf-8") == chosen.bundle.id:
        return
    fresh = root / f".{PACKAGE}.new"
    remove_tree(fresh)
    for file in (chosen.bundle.path / MODEL).iterdir():
        link_or_copy(file, fresh / file.name)
    remove_tree(target)
    fresh.rename(target)
    write_text(marker, chosen.bundle.id)


def _at(model: ResolvedModel | None) -> ModelAt:
    """A resolved model; while planning it may not be on this machine yet."""
    return ModelAt(model.path, model.fingerprint) if model else ModelAt(Path("absent"), "not fetched yet")
