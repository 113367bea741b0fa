"""The order of the stages, and how a recipe is planned, run and resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slmops.config import Recipe, save_recipe
from slmops.errors import ConfigError, GateError, InconclusiveError
from slmops.evaluation.data_page import PAGE, REPORT
from slmops.evaluation.gates import UNQUANTIZED, Gate, GateResult, said_before
from slmops.evaluation.gates import judge as judge_gate
from slmops.evaluation.systems import System
from slmops.export.model_card import MODEL_CARD
from slmops.files import write_text
from slmops.models.pairing import pair
from slmops.models.resolve import Pending, ResolvedModel, find, resolve
from slmops.preflight import (
    check_extras,
    check_gates,
    check_judge,
    check_keys,
    check_machine,
    check_names,
    check_teacher,
    check_tuning,
)
from slmops.progress import say
from slmops.stages.answering import RunTeacher, answer, take_signals
from slmops.stages.comparison import Candidate, Comparison
from slmops.stages.context import MODEL, Context, ModelAt, rows_of
from slmops.stages.exporting import export_model, package, reference_answers
from slmops.stages.judging import RunJudge
from slmops.stages.measuring import Turns, load_system, measure_floor, measure_model
from slmops.stages.outside import answerers, measure_answers, reply_signals
from slmops.stages.preparing import gold_of, prepare_data
from slmops.stages.referring import answer_held_out
from slmops.stages.reporting import write_report
from slmops.stages.rows import STUDENTS
from slmops.stages.teaching import cut_student, train_model, tune_teacher
from slmops.teachers.spec import spec_of
from slmops.workspace import StageResult, Step, Undecided, Workspace, link_or_copy, remove_tree

PACKAGE = "package"
QUANTIZED = "teacher-quantized"
AS_PACKAGED = "teacher-as-packaged"


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
        check_teacher(recipe)
        check_extras(recipe)
        teacher, student = _models(recipe)
        judges = [resolve(reference) for reference in check_judge(recipe)]
        if not (recipe.output_path / "report.json").is_file():
            check_keys(recipe)
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
    bases = [_here(find(reference)) if reference else None for reference in (teacher, student)]
    _say_fit(recipe, *bases)
    try:
        _stages(Context(recipe, workspace), bases[0], bases[1])
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


def _models(recipe: Recipe) -> tuple[ResolvedModel | None, ResolvedModel]:
    teacher, student = references(recipe)
    found = resolve(student)
    return (found if teacher == student else resolve(teacher) if teacher else None), found


def _say_fit(recipe: Recipe, teacher: ResolvedModel | None, student: ResolvedModel | None) -> None:
    """What a teacher on this machine and its student have in common."""
    if teacher is None or student is None:
        return
    found = pair(teacher.path, student.path, names=(teacher.reference, student.reference), layers=recipe.student.layers)
    say("\n".join(f"  {line}" for line in found.table().splitlines()))


def _by_position(teacher: ResolvedModel | None, student: ResolvedModel | None) -> bool:
    """Whether signals of the teacher are of use to the student; where the tokenizers differ it learns from answers alone."""
    if teacher is None or student is None or teacher.path == student.path:
        return True
    return pair(teacher.path, student.path).by_position


def _here(model: ResolvedModel | Pending) -> ResolvedModel | None:
    return model if isinstance(model, ResolvedModel) else None


def _stages(context: Context, teacher_base: ResolvedModel | None, student_base: ResolvedModel | None) -> Outcome:
    recipe = context.recipe
    gates = [Gate.parse(text) for text in recipe.gates]
    prepared = prepare_data(context, _at(student_base))
    gold = gold_of(context, prepared)
    check_gates(gates, context, prepared)
    _say_before(gates, context, prepared)
    check_tuning(recipe, gold.training)
    judge = RunJudge.of(context)
    local = spec_of(recipe.teacher).on_this_machine is not None
    teacher = RunTeacher(context, tune_teacher(context, _at(teacher_base), prepared) if local else None)
    answers = answer(context, teacher, prepared)
    data = answer_held_out(context, teacher, prepared, gold)
    comparable = teacher.distribution and _by_position(teacher_base, student_base)
    known = take_signals(context, teacher, data, answers) if comparable else None
    untuned = cut_student(context, _at(student_base), data, answers)
    signals = known or _of_replies(context, teacher, data, answers, untuned)
    students = _students(context, data, answers, signals, untuned, labelled=gold.training)

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
    candidates = _candidates(context, gates, data, answers, teacher, students, systems, floor, judge, referred=not gold.test)
    chosen = next((candidate for candidate in candidates if candidate.verdict == "passed"), None)
    alike = _teacher_as_packaged(context, data, answers, teacher, candidates, chosen, systems, floor, judge)
    systems |= {AS_PACKAGED: alike} if alike else {}
    named = [teacher_base] if teacher.model is not None else answerers(teacher.spec, teacher.id)
    judges = answerers(judge.spec, judge.id) if judge else []
    outside = [*(("teacher", one) for one in named), ("student", student_base), *(("judge", one) for one in judges)]
    comparison = Comparison(systems, candidates, chosen, outside)
    report = write_report(context, comparison, data)
    if not context.workspace.planning:
        _publish(context, report, chosen)
    verdicts = {candidate.verdict for candidate in candidates}
    verdict = "passed" if chosen else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "failed"
    return Outcome(recipe.output_path, report, chosen.name if chosen else None, verdict)


def _say_before(gates: list[Gate], context: Context, data: StageResult) -> None:
    if not context.workspace.planning and any(gate.margin is not None for gate in gates):
        rows, confidence = len(rows_of(data, "test")), context.recipe.evaluation.confidence
        for line in said_before(gates, context.task(data).primary_measure, rows, confidence):
            say(f"  {line}")


def _of_replies(
    context: Context, teacher: RunTeacher, data: StageResult, answers: StageResult, student: StageResult
) -> StageResult | None:
    """Signals from an endpoint's log-probabilities, where a recipe asks for these and they fit the student."""
    if all(member.api.top_logprobs is None for member in teacher.spec.members):
        return None
    signals = reply_signals(context, teacher, data, answers, student)
    return signals if signals.facts["usable"] else None


def _students(
    context: Context,
    data: StageResult,
    answers: StageResult,
    signals: StageResult | None,
    untuned: StageResult,
    *,
    labelled: bool,
) -> dict[str, StageResult]:
    """The student before training, fine-tuned, on answers, distilled; without signals the last two are one.

    Where no training row is labelled there is nothing to fine-tune on, and no control.
    """
    recipe = context.recipe
    start = ModelAt(untuned.path / MODEL, untuned.id)
    plain = recipe.training.model_copy(update={"objectives": ({"name": "cross_entropy"},)})
    inputs = {"data": data, "answers": answers}
    distilled = train_model(context, "distilled", start, {**inputs, **({"signals": signals} if signals else {})}, recipe.training)
    answers_only = {"answers-only": train_model(context, "answers-only", start, inputs, plain)} if signals else {}
    control = {"control": train_model(context, "control", start, {"data": data}, plain, updates_of=distilled)} if labelled else {}
    return {"untuned": untuned, **control, **answers_only, "distilled": distilled}


def _candidates(
    context: Context,
    gates: list[Gate],
    data: StageResult,
    answers: StageResult,
    teacher: RunTeacher,
    students: dict[str, StageResult],
    systems: dict[str, System],
    floor: StageResult,
    judge: RunJudge | None,
    *,
    referred: bool,
) -> list[Candidate]:
    """Convert, package, measure and judge the quantized teacher, then the students, the best first, until one passes.

    With ``referred``, where the teacher's answers are the references, the quantized teacher is a row alone: that it agrees
    with itself says nothing for it.
    """

    def candidate(name: str, model: StageResult, turns: Turns | None = None) -> Candidate:
        return _candidate(context, name, model, gates, data, answers, systems, floor, judge, turns)

    candidates = []
    if teacher.model is not None:
        quantized = candidate(QUANTIZED, teacher.model, None if teacher.asks_plainly else teacher.turns)
        if teacher.asks_otherwise(data):
            refused = GateResult("prompt", "failed", "it was asked with the task's prompt, which a package has not")
            quantized = replace(quantized, results=(refused, *quantized.results))
        if referred:
            refused = GateResult("reference", "failed", "it is compared with the teacher's answers, which are its own")
            quantized = replace(quantized, results=(refused, *quantized.results))
        candidates.append(quantized)
        if quantized.system is not None:
            systems[QUANTIZED] = replace(quantized.system, name=QUANTIZED)
    trained = [name for name in STUDENTS if name in students]
    for name in sorted(trained, key=lambda name: (-systems[name].quality, systems[name].measures["latency_p50_ms"])):
        passed = [known.quality for known in candidates if known.verdict == "passed"]
        if passed and max(passed) > systems[name].quality:
            break
        candidates.append(candidate(name, students[name]))
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
    judge: RunJudge | None,
    turns: Turns | None,
) -> Candidate:
    """The smallest scheme that keeps the model's answers and passes the gates, else the smallest that keeps the answers.

    The quantized teacher is a row of the table in any case: where no scheme keeps its answers, by the last one.
    """
    recipe = context.recipe
    reference = reference_answers(context, name, model, data, answers)
    attempts: list[dict[str, Any]] = []
    found: list[Candidate] = []
    schemes = recipe.export.teacher_schemes if name == QUANTIZED else recipe.export.schemes
    for scheme, following in zip_longest(schemes, schemes[1:]):
        exported = export_model(context, name, model, reference, data, scheme, following=following)
        attempts.append(dict(exported.facts))
        agrees = exported.facts["passed"]
        if not agrees and not (name == QUANTIZED and scheme == schemes[-1]):
            continue
        source = systems["teacher" if name == QUANTIZED else name]
        bundle, system = _packed(context, name, exported, data, systems, floor, judge, turns)
        others = {**systems, UNQUANTIZED: source}
        results = tuple(_judged(gate, system, others, recipe.evaluation.confidence) for gate in gates)
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


def _packed(
    context: Context,
    name: str,
    exported: StageResult,
    data: StageResult,
    systems: dict[str, System],
    floor: StageResult,
    judge: RunJudge | None,
    turns: Turns | None,
) -> tuple[StageResult, System]:
    """A converted model as a package, and what was measured of that."""
    row = f"{name}.{exported.facts['scheme']}"
    bundle = package(context, row, exported, data)
    parameters = int(systems["teacher" if name == QUANTIZED else name].measures["parameters"])
    runtime = context.recipe.export.runtime
    measured = measure_model(context, row, bundle, data, runtime=runtime, floor=floor, parameters=parameters, turns=turns)
    judged = judge.verdicts({row: measured}, data) if judge else {}
    return bundle, load_system(context, "packaged", measured, data, judged.get(row))


def _teacher_as_packaged(
    context: Context,
    data: StageResult,
    answers: StageResult,
    teacher: RunTeacher,
    candidates: list[Candidate],
    chosen: Candidate | None,
    systems: dict[str, System],
    floor: StageResult,
    judge: RunJudge | None,
) -> System | None:
    """The teacher converted as what is packaged is, whatever it loses by that, where its own conversion is another.

    Without it, model and precision would differ at once between the package and the teacher on its engine.
    """
    known = {candidate.scheme for candidate in candidates if candidate.name == QUANTIZED}
    if teacher.model is None or chosen is None or chosen.scheme is None or chosen.scheme in known:
        return None
    reference = reference_answers(context, QUANTIZED, teacher.model, data, answers)
    exported = export_model(context, QUANTIZED, teacher.model, reference, data, chosen.scheme)
    turns = None if teacher.asks_plainly else teacher.turns
    _, system = _packed(context, QUANTIZED, exported, data, systems, floor, judge, turns)
    return replace(system, name=AS_PACKAGED)


def _judged(gate: Gate, system: System, systems: dict[str, System], confidence: float) -> GateResult:
    """The verdict of a gate; open where the row that it goes by could not be measured in this run."""
    if gate.relative_to is not None and gate.relative_to not in systems:
        return GateResult(gate.text, "INCONCLUSIVE", f"{gate.relative_to} is not measured")
    return judge_gate(gate, system, systems, confidence)


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
        fresh = root / f".{PACKAGE}.new"
        remove_tree(fresh)
        for file in (chosen.bundle.path / MODEL).iterdir():
            link_or_copy(file, fresh / file.name)
        remove_tree(target)
        fresh.rename(target)
        write_text(marker, chosen.bundle.id)
    write_text(target / MODEL_CARD, (report.path / MODEL_CARD).read_text(encoding="utf-8"))


def _at(model: ResolvedModel | None) -> ModelAt:
    """A resolved model; while planning it may not be on this machine yet."""
    return ModelAt(model.path, model.fingerprint) if model else ModelAt(Path("absent"), "not fetched yet")
