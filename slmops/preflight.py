"""What is checked before anything expensive starts: names in the recipe, installed extras, memory and disk."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from slmops.config import Recipe, build, plugin
from slmops.data.privacy import open_finders
from slmops.data.quality.check import for_task
from slmops.errors import ConfigError, MissingExtraError, UsageError, nearest
from slmops.evaluation.gates import UNQUANTIZED, Gate
from slmops.evaluation.judging import WIN_RATE
from slmops.evaluation.measures import COSTS
from slmops.export.onnx import SCHEMES
from slmops.models.bpe import Bpe
from slmops.models.fit import Purpose, check_disk, check_fits
from slmops.models.load import read_config
from slmops.models.pairing import pair
from slmops.models.resolve import ResolvedModel
from slmops.models.shrink import Wish
from slmops.models.sizes import Target, parameters_after_cut
from slmops.runtimes.base import RUNTIMES
from slmops.stages.context import Context, rows_of
from slmops.stages.judging import JUDGE, check_judged
from slmops.stages.rows import AS_PACKAGED, QUANTIZED, ROWS
from slmops.tasks.base import task_class, task_name
from slmops.teachers.catalogue import find_api_model
from slmops.teachers.combiners import COMBINERS
from slmops.teachers.masking import finder_names
from slmops.teachers.requests import check_price
from slmops.teachers.spec import TeacherSpec, spec_of
from slmops.training.registry import OBJECTIVES, own_file
from slmops.workspace import StageResult

_NEEDED = {"torch": "train", "transformers": "train", "accelerate": "train", "onnxruntime_genai": "export", "sklearn": "evaluate"}
_NEEDED_BY_TASK = {"summarization": "rouge_score", "translation": "sacrebleu"}
_MB = 1e6
_UNTOLD = ("parameters", "size_mb", "memory_mb", "process_mb", "requests_per_s")
"""Measures that an endpoint, or a file of answers, does not tell."""


def check_names(recipe: Recipe) -> None:
    """Refuse names that nothing stands behind.

    Raises:
        UsageError: Unknown task type, objective, scheme, engine or measure; the message has the nearest name.
        ConfigError: A gate, or a student's target, that cannot be read.
    """
    task_name(recipe.task_type)
    if recipe.student.target is not None:
        Target.parse(recipe.student.target)
    trainings = [recipe.training, *([recipe.teacher.tune] if recipe.teacher.tune else [])]
    losses = [spec for section in trainings for spec in section.objectives if own_file(spec) is None]
    objectives = [plugin(spec, where="training.objectives")[0] for spec in losses]
    for where, names, known in (
        ("training.objectives", objectives, OBJECTIVES.names()),
        ("export.schemes", [*recipe.export.schemes, *recipe.export.teacher_schemes], list(SCHEMES)),
        ("export.runtime", [recipe.export.runtime], RUNTIMES.names()),
    ):
        for name in names:
            if name not in known:
                raise UsageError(f"unknown name {name!r}", where=where, fix=nearest(name, known))
    rows = [row.name for row in ROWS if row.name not in ("packaged", AS_PACKAGED)]  # known after the gates
    rows.append(UNQUANTIZED)
    for text in recipe.gates:
        row = Gate.parse(text).relative_to
        if row is not None and row not in rows:
            raise UsageError(f"no row {row!r} in the comparison", where=f"gate {text!r}", fix=nearest(row, rows))


def check_objectives(recipe: Recipe) -> None:
    """Refuse losses that cannot be made, and those of the user's own that break the contract, before anything is paid.

    Raises:
        ConfigError: A wrong option or weight, an own loss that does not work, one that drawn signals are not enough for, or one on
            layers of a teacher that has none here; no loss that compares a student's own samples with the teacher.
    """
    from slmops.training.objectives.base import not_for_samples
    from slmops.training.objectives.weighted import WeightedSum
    from slmops.training.on_policy import signal_terms

    if recipe.teacher.tune is not None:
        WeightedSum.of(recipe.teacher.tune.objectives)
    loss = WeightedSum.of(recipe.training.objectives)
    if recipe.training.on_policy is not None:
        signal_terms(loss)
    if loss.on_layers and spec_of(recipe.teacher).on_this_machine is None:
        raise ConfigError(
            f"{loss.on_layers[0].name} needs the layers of a teacher, which must be one model on this machine",
            where="training.objectives",
            fix="take losses on tokens alone, or another teacher.model",
        )
    for term in loss.terms:
        if recipe.signals.form == "sampled" and not term.may("takes_samples"):
            raise not_for_samples(term.name)


def check_teacher(recipe: Recipe) -> None:
    """Refuse what a teacher that is no model of this run cannot do, before anything is paid.

    Raises:
        UsageError: Nothing is known by the name of the teacher, of ``combine`` or of a finder.
        ConfigError: It should be tuned, its signals drawn, a student's own samples scored, or a gate goes by what it does
            not tell.
        MissingExtraError: The provider's package is not installed.
    """
    spec = spec_of(recipe.teacher)
    _check_asked(spec, "teacher")
    if recipe.teacher.tune is not None and recipe.teacher.tune.on_policy is not None:
        raise ConfigError("nobody teaches the teacher", where="teacher.tune.on_policy", fix="leave it out")
    if spec.on_this_machine is not None:
        return
    if recipe.training.on_policy is not None and (spec.combine or {}).get("name") != "mixture":
        raise ConfigError(
            "this teacher does not tell its distribution at tokens that another one wrote",
            where="training.on_policy",
            fix="take a teacher on this machine, or leave it out",
        )
    if recipe.teacher.tune is not None:
        raise ConfigError("only one model on this machine can be tuned", where="teacher.tune", fix="leave it out")
    if recipe.signals.form != "topk" and any(member.api.top_logprobs is not None for member in spec.members):
        raise ConfigError("an API says its likeliest tokens, it draws none", where="signals.form", fix="use topk with this teacher")
    for text in recipe.gates:
        gate = Gate.parse(text)
        if gate.relative_to == QUANTIZED or (gate.relative_to == "teacher" and gate.measure in _UNTOLD):
            raise ConfigError(
                f"{gate.measure} of this teacher is not known", where=f"gate {text!r}", fix="give a number in place of its share"
            )


def check_judge(recipe: Recipe) -> list[str]:
    """Refuse a judge that cannot be asked, before anything is trained; names of models that it has on this machine.

    Raises:
        UsageError: Nothing is known by its name, that of ``combine`` or of a finder.
        ConfigError: A cap on the cost, and nobody has said what it costs.
        MissingExtraError: The provider's package is not installed.
    """
    if recipe.evaluation.judge is None:
        return []
    spec = spec_of(recipe.evaluation.judge, JUDGE)
    _check_asked(spec, JUDGE)
    for member in spec.members:
        if member.kind == "api":
            check_price(find_api_model(member.model, member.api), spec.requests)
    return [member.model for member in spec.members if member.kind == "local"]


def check_keys(recipe: Recipe) -> None:
    """Refuse to train for a judge whose API key is missing.

    Raises:
        ConfigError: Names the environment variable.
    """
    spec = spec_of(recipe.evaluation.judge, JUDGE) if recipe.evaluation.judge else None
    for member in spec.members if spec else ():
        if member.kind == "api":
            find_api_model(member.model, member.api).key()


def _check_asked(spec: TeacherSpec, where: str) -> None:
    if spec.combine is not None:
        name, options = plugin(spec.combine, where=f"{where}.combine")
        build(COMBINERS.get(name), options, where=f"combine {name!r}")
    if spec.mask_personal_data and any(member.kind == "api" for member in spec.members):
        open_finders(finder_names(spec.finders))
    for member in spec.members:
        package = find_api_model(member.model, member.api).protocol if member.kind == "api" else None
        if package is not None and find_spec(package) is None:
            raise MissingExtraError(package, "api")


def check_gates(gates: Sequence[Gate], context: Context, data: StageResult) -> None:
    """Refuse a judge of labels, and gates by a measure that the task does not have; while planning, nothing.

    Raises:
        ConfigError: Names the task's measures.
    """
    if context.workspace.planning:
        return
    task, judge = context.task(data), context.recipe.evaluation.judge
    check_judged(context.recipe, task)
    some = [row.answer for row in (rows_of(data, "train") or rows_of(data, "test"))[:1] if row.answer is not None]
    known = [*task.score(some, some), *([WIN_RATE] if judge else [])]
    for gate in gates:
        if gate.measure == WIN_RATE and judge is None:
            raise ConfigError("nobody is asked who wins", where=f"gate {gate.text!r}", fix=f"name a judge under {JUDGE}")
        if gate.measure and gate.measure not in (*known, *COSTS, "share_of_teacher"):
            raise ConfigError(
                f"{gate.measure} is no measure of this task",
                where=f"gate {gate.text!r}",
                fix=f"write for example 'share_of_teacher >= 0.9'; the task's measures are {', '.join(known)}",
            )


def check_tuning(recipe: Recipe, labelled: bool) -> None:
    """Refuse to tune a teacher on labelled rows where there are none.

    Raises:
        ConfigError: Says how to go on without.
    """
    if recipe.teacher.tune is not None and not labelled:
        raise ConfigError(
            "no training row is labelled, so there is nothing to tune the teacher on",
            where="teacher.tune",
            fix="leave it out (teacher.tune=null), or give rows with answers",
        )


def check_extras(recipe: Recipe) -> None:
    """Refuse to start without a package that a later stage needs.

    Raises:
        MissingExtraError: Names the package and the extra.
        ConfigError: Nothing is known by a name that is to be reported to.
    """
    tune = recipe.teacher.tune
    measured_with = _NEEDED_BY_TASK.get(task_name(recipe.task_type))
    needed = {
        **_NEEDED,
        **({measured_with: "evaluate"} if measured_with else {}),
        **({"peft": "train"} if recipe.training.lora or (tune and tune.lora) else {}),
    }
    for package, extra in needed.items():
        if find_spec(package) is None:
            raise MissingExtraError(package, extra)
    if reports := {*recipe.training.report_to, *(tune.report_to if tune else ())}:
        from slmops.training.reports import check_names

        check_names(sorted(reports))
    quality = for_task(recipe.data.quality, task_class(recipe.task_type))
    for package, wanted, without in (
        ("datasketch", quality.near_duplicates is not None, "data.quality.near_duplicates=null finds equal words alone"),
        ("py3langid", quality.language != "any", "data.quality.language=any tells no language"),
    ):
        if wanted and find_spec(package) is None:
            raise MissingExtraError(package, "quality", without=without)


def check_machine(
    recipe: Recipe, teacher: ResolvedModel | None, student: ResolvedModel, judges: Sequence[ResolvedModel] = ()
) -> None:
    """Refuse what does not fit: more layers than there are, too little memory or disk.

    Raises:
        ConfigError: The student has fewer layers than it should be cut to, or its samples are not of the teacher's tokens.
        ModelError: Its vocabulary should be trimmed, and its tokenizer is of a kind that cannot be.
        ResourceError: Says how much is needed and how much there is.
    """
    tune, layers = recipe.teacher.tune, recipe.student.layers
    total = int(read_config(student.path)["num_hidden_layers"])
    if layers is not None and layers > total:
        raise ConfigError(f"{student.reference} has {total} layers, not {layers}", where="student.layers", fix=f"give 2 to {total}")
    if Wish.of(recipe.student).trims:
        Bpe.read(student.path)
    scorer = teacher if recipe.training.on_policy is not None else None
    if scorer is not None and scorer.path != student.path and not pair(scorer.path, student.path).by_position:
        from slmops.teachers.live import other_tokens

        raise other_tokens()
    cut = parameters_after_cut(student, layers, recipe.student.target)
    purpose: Purpose = "inference" if tune is None else "training-lora" if tune.lora else "training-full"
    if teacher is not None:
        check_fits(teacher.parameters, purpose, what=f"the teacher {teacher.reference}")
    for judge in judges:
        check_fits(judge.parameters, "inference", what=f"the judge {judge.reference}")
    purpose = "training-lora" if recipe.training.lora else "training-full"
    beside = scorer.parameters if scorer is not None else 0
    check_fits(cut, purpose, what=f"the student {student.reference}", beside=beside)
    check_disk(recipe.output_path, disk_mb(teacher.parameters if teacher else 0, cut))


def disk_mb(teacher: int, student: int) -> float:
    """About what a run writes, in units of 10⁶ bytes: a tuned teacher, four students, their conversions, two checkpoints."""
    return (4 * (teacher + 4 * student) * 1.3 + 4 * 6 * student) / _MB
