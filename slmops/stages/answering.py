"""Stage 1: the teacher's answers, what rows train on, and the teacher's distribution at these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from slmops.artifact import StageKey
from slmops.config import Recipe
from slmops.data.rows import Message, Row
from slmops.data.sources import RawSplits
from slmops.files import digest, write_json, write_jsonl
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.layering import LayerPlan, Learner, layer_losses, layers_key
from slmops.stages.teaching import TOKENIZER, TRAINING, fingerprints, gold_rows
from slmops.tasks.base import Task, open_task, task_class
from slmops.teachers.answered import Answered, Given, answer_line, check_success, count_reasons, label, rejected_line
from slmops.teachers.asking import ask_rows, requests_of
from slmops.teachers.base import Request, Teacher
from slmops.teachers.engines import settled
from slmops.teachers.opening import REQUESTS, identity_of, open_teacher
from slmops.teachers.plan import RequestPlan, total
from slmops.teachers.replies import AskParams, estimate_text_tokens, estimate_tokens
from slmops.teachers.spec import TeacherSpec, spec_of
from slmops.teachers.weights import WeightsTeacher
from slmops.workspace import Made, StageResult, Workspace

if TYPE_CHECKING:
    from slmops.data.templates import Template
    from slmops.teachers.live import LiveTeacher
    from slmops.teachers.local import LocalTeacher

LABELLED = "labelled"
"""Name of the file of an ``answers`` artifact with what the teacher said to the labelled training rows."""


@dataclass(frozen=True)
class RunTeacher:
    """The teacher of a run.

    Args:
        context: Of the run.
        model: Its weights, tuned or taken as they are; ``None`` where it is an API, a file, or several.
    """

    context: Context
    model: StageResult | None
    _opened: list[Teacher] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def spec(self) -> TeacherSpec:
        """As the recipe says it."""
        return spec_of(self.context.recipe.teacher)

    @property
    def id(self) -> str:
        """What stands for it in the ids of stages."""
        return self.model.id if self.model is not None else digest(identity_of(self.spec))

    @property
    def distribution(self) -> bool:
        """Whether its distribution can be taken at any token: it is one model on this machine, or a mixture of such."""
        return self.model is not None or (self.spec.combine or {}).get("name") == "mixture"

    @property
    def asks_plainly(self) -> bool:
        """Whether it is asked the rows as they stand: it was tuned on these, or its template has room for nothing else."""
        return self.context.recipe.teacher.tune is not None or self.context.text_template is not None

    @property
    def params(self) -> AskParams:
        """How it answers at first."""
        recipe = self.context.recipe
        return AskParams(max_new_tokens=recipe.teacher.max_new_tokens or recipe.answers.max_new_tokens)

    @property
    def answer_key(self) -> dict[str, Any]:
        """What of the recipe decides how it answers, for stage keys."""
        recipe = self.context.recipe
        return {
            "max_new_tokens": self.params.max_new_tokens,
            "precision": recipe.teacher.precision,
            "engine": settled(recipe.teacher.engine, self.params.max_new_tokens),
            **self.context.template_key,
        }

    def turns(self, task: Task, row: Row) -> Sequence[Message]:
        """What it is asked for a row."""
        return row.messages if self.asks_plainly else task.ask(row)

    def asks_otherwise(self, data: StageResult) -> bool:
        """Whether what it is asked for a test row is more than the row."""
        task = self.context.task(data)
        return not self.asks_plainly and any(tuple(task.ask(row)) != row.messages for row in rows_of(data, "test"))

    def asking(self, task: Task, data: StageResult) -> Callable[[Row], Row]:
        """A row as it is asked it; a row that was made from another, such as one about reasons, stays as it is."""
        asked = {row.id for name in ("train", "pool", "validation") for row in rows_of(data, name)}
        return lambda row: Row(row.id, tuple(self.turns(task, row)), row.answer) if row.id in asked else row

    def open(self, task: Task) -> Teacher:
        """Ready to be asked; the same whenever it is opened, so that it says once what it will cost."""
        if not self._opened:
            self._opened.append(self._open(task))
        return self._opened[0]

    def _open(self, task: Task) -> Teacher:
        recipe, model = self.context.recipe, self.model
        if model is not None:
            folder, identity = model.path / MODEL, {"model": model.id, "precision": recipe.teacher.precision}

            def fitting(rows: Sequence[Row], params: AskParams, work: Path) -> LocalTeacher:
                from slmops.teachers.local import LocalTeacher

                return LocalTeacher.fitting(
                    folder,
                    self.context.template(folder),
                    recipe.teacher.precision,
                    engine=recipe.teacher.engine,
                    rows=rows,
                    max_new_tokens=params.max_new_tokens,
                    work=work,
                )

            return WeightsTeacher(str(recipe.teacher.model), lambda: identity, fitting, recipe.answers.chunk_rows)
        return open_teacher(
            self.spec,
            task,
            cache=self.context.workspace.root / REQUESTS,
            template=self.context.template,
            precision=recipe.teacher.precision,
            engine=recipe.teacher.engine,
            chunk_rows=recipe.answers.chunk_rows,
        )

    def ask(self, task: Task, rows: Sequence[Row], work: Path) -> Answered:
        """Its answers to rows, asked again as the recipe says.

        Raises:
            DataError: Too few answers are usable.
            TeacherError: It refuses, or the cap on the cost is reached; the same command continues.
        """
        section = self.context.recipe.answers
        answered = ask_rows(
            self.open(task),
            rows,
            task,
            self.params,
            work,
            retries=section.retries,
            retry_temperature=section.retry_temperature,
            turns=lambda row: self.turns(task, row),
        )
        answered.raise_if_stopped(str(self.context.workspace.root), "teacher.requests.max_cost")
        check_success(answered.given, section.min_success)
        return answered

    def load(self) -> LocalTeacher:
        """Its weights, where it has a distribution."""
        from slmops.teachers.local import LocalTeacher

        precision = self.context.recipe.teacher.precision
        if self.model is not None:
            folder = self.model.path / MODEL
            return LocalTeacher.load(folder, self.context.template(folder), precision)
        from slmops.models.resolve import resolve
        from slmops.teachers.mixture import mix

        members = self.spec.members
        folders = [resolve(member.model).path for member in members]
        loaded = [LocalTeacher.load(folder, self.context.template(folder), precision) for folder in folders]
        return mix(loaded, [member.weight for member in members], [member.model for member in members])

    def scoring(self, data: StageResult, student: Template) -> LiveTeacher:
        """Its weights, to score what a student with that template samples.

        Raises:
            ConfigError: The student's tokens are others.
        """
        from slmops.teachers.live import LiveTeacher

        recipe = self.context.recipe
        k = recipe.training.on_policy.k if recipe.training.on_policy else None
        turns = self.asking(self.context.task(data), data)
        return LiveTeacher.of(self.load(), k or recipe.signals.k, student, turns)


def plan_answers(recipe: Recipe, rows: RawSplits, asked: Sequence[Row] | None = None) -> RequestPlan | None:
    """What asking a teacher that is no model of this run will cost, the test rows included; ``None`` where nothing is paid.

    Args:
        recipe: The recipe.
        rows: All rows, from which the task takes its labels.
        asked: What the teacher is asked; ``None`` for all rows.
    """
    teacher, task, requests = _questions(recipe, rows, asked)
    return total(teacher.open(task).plans(requests), rounds=1 + recipe.answers.retries)


def count_tokens(recipe: Recipe, rows: RawSplits) -> tuple[int, int]:
    """About how many tokens a teacher reads and writes to answer all rows once, whoever it is."""
    _, _, requests = _questions(recipe, rows, None)
    gold = [row.answer for row in (*rows.labelled, *rows.validation, *rows.test) if row.answer is not None]
    usual = mean(1 + estimate_text_tokens(answer) for answer in gold) if gold else recipe.answers.max_new_tokens / 2
    return sum(estimate_tokens(request.messages) for request in requests), round(usual * len(requests))


def _questions(recipe: Recipe, rows: RawSplits, asked: Sequence[Row] | None) -> tuple[RunTeacher, Task, list[Request]]:
    """The teacher of a recipe that is not run yet, its task, and what it will be asked."""
    everything = [*rows.labelled, *rows.pool, *rows.validation, *rows.test]
    gold = [row.answer for row in everything if row.answer is not None]
    task = open_task(recipe.task_type, task_class(recipe.task_type).complete(recipe.task, gold))
    teacher = RunTeacher(Context(recipe, Workspace(recipe.output_path)), None)
    requests, _ = requests_of(everything if asked is None else asked, task, teacher.params, lambda row: teacher.turns(task, row))
    return teacher, task, requests


def answer(context: Context, teacher: RunTeacher, data: StageResult) -> StageResult:
    """The teacher's answers to train, pool and labelled validation rows, and the rows that students train on.

    ``answers.jsonl`` has the pool's rows with the teacher's answer, ``labelled.jsonl`` what it said to the labelled training
    rows, ``training.jsonl`` all rows to train on, ``rejected.jsonl`` what is set aside with its reason.
    """
    recipe = context.recipe
    section = recipe.answers
    config = {**section.model_dump(mode="json"), **teacher.answer_key}
    key = StageKey("answers", "answers", 3, config, {"teacher": teacher.id, "data": data.id})

    def make(folder: Path, work: Path) -> Made:
        task = context.task(data)
        splits = {name: rows_of(data, name) for name in ("train", "pool", "validation")}
        splits["validation"] = [row for row in splits["validation"] if row.answer is not None]
        answered = teacher.ask(task, [row for rows in splits.values() for row in rows], work)
        given = {one.row.id: one for one in answered.given}
        labelled = [(given[row.id], *label(given[row.id], task, section.label_source)) for row in splits["train"]]
        pool = [given[row.id] for row in splits["pool"]]
        good = [one for one in pool if one.answer is not None]
        write_jsonl(folder / "answers.jsonl", [answer_line(one, str(one.answer), task) for one in good])
        write_jsonl(folder / f"{LABELLED}.jsonl", [answer_line(one, answer, task) for one, answer, _ in labelled if answer])
        rows = [more for one, answer, _ in labelled if answer for more in _training_rows(task, one, answer)]
        rows += [more for one in good for more in _training_rows(task, one, str(one.answer))]
        write_jsonl(folder / f"{TRAINING}.jsonl", [row.as_dict() for row in rows])
        aside = [(one, reason) for one, _, reason in labelled if reason]
        invalid = [(one, str(one.reason)) for one in answered.given if one.answer is None]
        rejected = {one.row.id: (one, reason) for one, reason in [*aside, *invalid]}
        write_jsonl(folder / "rejected.jsonl", [rejected_line(one, reason) for one, reason in rejected.values()])
        write_json(folder / "raw.json", answered.raw)
        return Made(_facts(answered, task, splits, rejected.values(), len(good)))

    return context.workspace.stage(key, make)


def take_signals(
    context: Context, teacher: RunTeacher, data: StageResult, answers: StageResult, learner: Learner | None = None
) -> StageResult:
    """The teacher's distribution at the answer tokens of what students train on, and of the validation rows.

    Args:
        context: Of the run.
        teacher: Who is asked.
        data: The prepared rows.
        answers: What students train on.
        learner: The student, where losses on layers are to compare it with the teacher: what is kept of the teacher's layers
            comes out of the same pass.
    """
    recipe = context.recipe
    losses = layer_losses(recipe) if learner else []
    config = {
        **recipe.signals.model_dump(mode="json"),
        "chunk_rows": recipe.answers.chunk_rows,
        "precision": recipe.teacher.precision,
        **layers_key(losses),
        **context.template_key,
    }
    parents = {"teacher": teacher.id, "data": data.id, "answers": answers.id}
    key = StageKey("signals", "signals", 4, config, {**parents, **({"student": learner.untuned.id} if learner and losses else {})})

    def make(folder: Path, work: Path) -> Made:
        from slmops.signals.forms import form_of
        from slmops.signals.store import write_signals
        from slmops.teachers.signals import internal_rows, signal_rows

        task = context.task(data)
        local = teacher.load()
        validation = [gold_rows(task, row)[0] for row in rows_of(data, "validation")]
        rows = rows_of(answers, TRAINING) + validation
        prompts = [*map(teacher.asking(task, data), rows)]
        plan = None
        if learner and losses and teacher.model:
            both = list(zip(rows, prompts, strict=True))
            plan = LayerPlan.of(context, losses, local, teacher.model.path / MODEL, learner, both)
        form, size = form_of(recipe.signals), recipe.answers.chunk_rows
        made_from = fingerprints(context, teacher.id, local.template, data, answers)
        layers = plan.layers if plan else None
        signals = signal_rows(local, prompts, local.template, form, chunk_rows=size, work=work, layers=layers)
        store = write_signals(folder, signals, made_from)
        kept = internal_rows(prompts, local.template, chunk_rows=size, work=work)
        of_layers = plan.keep(folder, kept, made_from) if plan else {}
        local.template.save(folder / TOKENIZER)
        facts = {"rows": len(store), "positions": len(store.arrays), "bytes_per_token": round(store.bytes_per_token, 1)}
        return Made({**facts, **of_layers})

    return context.workspace.stage(key, make)


def _training_rows(task: Task, one: Given, answer: str) -> list[Row]:
    """The rows that an answer becomes, with the teacher's reasoning unless it led elsewhere; then with the gold answer's own."""
    own = one.answer is not None and (one.answer == answer or one.right is True)
    text = one.raw if own else str(one.row.answer or "")
    return task.training_rows(one.row, answer, task.rationale(text))


def _facts(answered: Answered, task: Task, splits: Any, rejected: Any, pool: int) -> dict[str, Any]:
    raw = answered.raw
    right = {
        name: sum(row.id in raw and task.correct(raw[row.id], str(row.answer)) for row in splits[name]) / len(splits[name])
        for name in ("train", "validation")
        if splits[name]
    }
    counts = {"answered": len(answered.rows), "rejected": len(rejected), "reasons": count_reasons(why for _, why in rejected)}
    return {**answered.facts, **counts, "pool": pool, "right": right}
