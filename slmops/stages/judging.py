"""The judge of a run: whose win rate decides where the recipe names one, and what it costs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmops.artifact import StageKey, is_complete
from slmops.config import Recipe
from slmops.data.rows import Row
from slmops.data.sources import RawSplits
from slmops.errors import ConfigError, TeacherError
from slmops.evaluation.judging import COUNTS, WIN_RATE, Contest, ask_judge, both_orders, contests, counts, questions_of, verdicts_of
from slmops.evaluation.systems import RESULT
from slmops.files import digest, read_json, read_jsonl, write_jsonl
from slmops.progress import say
from slmops.sections import JudgeSection
from slmops.stages.context import Context, rows_of
from slmops.stages.rows import AS_PACKAGED, QUANTIZED, STUDENTS
from slmops.tasks.base import Task, closed_labels, open_task, problem, task_class
from slmops.tasks.judge import RUBRIC, Verdicts
from slmops.teachers.base import Request, Teacher
from slmops.teachers.engines import settled
from slmops.teachers.facts import merged
from slmops.teachers.opening import identity_of, open_teacher
from slmops.teachers.plan import RequestPlan, total
from slmops.teachers.replies import AskParams
from slmops.teachers.spec import TeacherSpec, spec_of
from slmops.workspace import Made, StageResult, Workspace

JUDGE = "evaluation.judge"
"""Where the recipe names the judge."""

VERDICTS = "verdicts.jsonl"
"""Name of the file with a line a test row: what the judge said, and the score that this is."""

_STAGE = "judge."
_REQUESTS = "judge.sqlite"  # of its own, so that cost and cap are the judge's even where it is the teacher too


@dataclass(frozen=True)
class RunJudge:
    """Who judges the answers of a run.

    Args:
        context: Of the run.
        section: Of the recipe.
    """

    context: Context
    section: JudgeSection
    _opened: list[Teacher] = field(default_factory=list, init=False, repr=False, compare=False)
    _known: dict[str, str | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, context: Context) -> RunJudge | None:
        """The one that the recipe names, if it names one."""
        section = context.recipe.evaluation.judge
        return cls(context, section) if section is not None else None

    @property
    def spec(self) -> TeacherSpec:
        """Who it is, as the recipe says it."""
        return spec_of(self.section, JUDGE)

    @property
    def id(self) -> str:
        """What tells it from others."""
        return digest(identity_of(self.spec))

    @property
    def rubric(self) -> str:
        """What makes an answer the better one."""
        return self.section.rubric or RUBRIC

    @property
    def params(self) -> AskParams:
        """How it answers at first."""
        return AskParams(max_new_tokens=self.section.max_new_tokens)

    def verdicts(self, measured: Mapping[str, StageResult], data: StageResult) -> dict[str, StageResult]:
        """What it says to the answers of measured models, by name; all that is not there yet is asked at once.

        Raises:
            TeacherError: It refuses for good, stops at its cap, or gives too few verdicts.
        """
        keys = {name: self._key(name, result, data) for name, result in measured.items()}
        workspace = self.context.workspace
        missing = [name for name, key in keys.items() if not is_complete(workspace.folder(key))]
        judged: dict[str, StageResult] = {}
        for name in sorted(keys, key=missing.__contains__):  # what is known already is not asked again for the others
            judged[name] = workspace.stage(keys[name], self._maker(name, {one: measured[one] for one in missing}, data))
            if not workspace.planning:
                for line in read_jsonl(judged[name].path / VERDICTS):
                    self._known.update(line.get("verdicts", {}))
        return judged

    def plan(self, task: Task, rows: Sequence[Row], models: Sequence[str]) -> RequestPlan | None:
        """What it will cost if every answer is about as long as the reference and no two are the same; ``None`` for nothing."""
        sound = [row for row in rows if problem(task, row) is None]
        pairs = [(row, f"{row.answer} ({model})", str(row.answer)) for model in models for row in sound]
        asked = [question for pair in pairs for question in both_orders(task, *pair, self.rubric)]
        requests = [Request(question.id, question.messages, self.params, question) for question in asked]
        return total(self._open().plans(requests), rounds=self.section.attempts)

    def _key(self, name: str, measured: StageResult, data: StageResult) -> StageKey:
        config = {
            "judge": identity_of(self.spec),
            "rubric": self.rubric,
            **self.section.model_dump(mode="json", include={"max_new_tokens", "attempts", "min_success", "precision"}),
            "engine": settled(self.section.engine, self.section.max_new_tokens),
        }
        return StageKey(f"{_STAGE}{name}", "measurement", 1, config, {"measured": measured.id, "data": data.id})

    def _maker(self, name: str, missing: Mapping[str, StageResult], data: StageResult) -> Callable[[Path, Path], Made]:
        """How a stage is made; the first one asks for all that are missing, so that a judge on this machine is loaded once."""

        def make(folder: Path, work: Path) -> Made:
            task, rows = self.context.task(data), rows_of(data, "test")
            answers = {one: read_json(result.path / RESULT)["answers"] for one, result in missing.items()}
            found = {one: contests(task, rows, texts, self.rubric) for one, texts in answers.items()}
            facts = self._ask([contest for listed in found.values() for contest in listed], work)
            lines = [contest.result(self._known) for contest in found[name]]
            write_jsonl(folder / VERDICTS, lines)
            rate = sum(line["score"] for line in lines) / len(lines)
            return Made({**counts(lines), **facts}, {WIN_RATE: rate})

        return make

    def _ask(self, found: Sequence[Contest], work: Path) -> dict[str, Any]:
        """Ask what is not known yet; what that cost and met."""
        questions = [question for question in questions_of(found) if question.id not in self._known]
        if not questions:
            return {}
        judge = self._open()
        say(f"  {judge.name} compares answers with their references: {len(questions):,} questions, both orders of each pair")
        answered = ask_judge(judge, questions, self.params, work, self.section.attempts)
        self._rest()
        answered.raise_if_stopped(str(self.context.workspace.root), f"{JUDGE}.requests.max_cost")
        said = verdicts_of(answered)
        unread = [one for one in answered.given if one.answer is None]
        if 1 - len(unread) / len(said) < self.section.min_success:
            raise TeacherError(
                f"the judge gave a verdict on only {len(said) - len(unread):,} of {len(said):,} questions; one of the others: "
                f"{unread[0].reason}",
                where=JUDGE,
                fix=f"name a more able judge, give it room ({JUDGE}.max_new_tokens), or lower {JUDGE}.min_success",
            )
        self._known.update(said)
        return dict(answered.facts)

    def _open(self) -> Teacher:
        """Ready to be asked; the same whenever it is opened, so that it says once what it will cost."""
        if not self._opened:
            judge = open_teacher(
                self.spec,
                Verdicts(),
                cache=self.context.workspace.root / _REQUESTS,
                precision=self.section.precision,
                engine=self.section.engine,
                chunk_rows=self.context.recipe.answers.chunk_rows,
            )
            self._opened.append(judge)
        return self._opened[0]

    def _rest(self) -> None:
        """Give back the memory of weights; conversions and measurements come next."""
        if any(member.kind == "local" for member in self.spec.members):
            self._opened.clear()
            gc.collect()


def check_judged(recipe: Recipe, task: Task) -> None:
    """Refuse a judge where answers are labels.

    Raises:
        ConfigError: Names what decides.
    """
    if recipe.evaluation.judge is not None and closed_labels(task) is not None:
        raise ConfigError(
            f"the answers of this task are labels, right or wrong: {task.primary_measure} decides", where=JUDGE, fix="leave it out"
        )


def plan_judging(recipe: Recipe, rows: RawSplits) -> RequestPlan | None:
    """What the judge will cost where it knows none of the answers yet; ``None`` without one, or where nothing is paid.

    Raises:
        ConfigError: Answers are labels.
    """
    judge = RunJudge.of(Context(recipe, Workspace(recipe.output_path)))
    if judge is None:
        return None
    gold = [row.answer for row in (*rows.labelled, *rows.validation, *rows.test) if row.answer is not None]
    task = open_task(recipe.task_type, task_class(recipe.task_type).complete(recipe.task, gold))
    check_judged(recipe, task)
    teacher = spec_of(recipe.teacher)
    trained = STUDENTS if teacher.gives_signals else [name for name in STUDENTS if name != "answers-only"]
    quantized = [QUANTIZED] if teacher.on_this_machine else []
    quantized += [AS_PACKAGED] if quantized and set(recipe.export.schemes) - set(recipe.export.teacher_schemes) else []
    test = rows.test or rows.labelled[: round(len(rows.labelled) * recipe.data.test_share)]
    return judge.plan(task, test, ["teacher", *quantized, "untuned", *trained, "packaged"])


def judge_part(context: Context) -> dict[str, Any] | None:
    """The report's part about the judge: all verdicts on the answers of this run, and what they cost."""
    judge = RunJudge.of(context)
    if judge is None:
        return None
    facts = [artifact.manifest.facts for stage, artifact in context.workspace.artifacts.items() if stage.startswith(_STAGE)]
    paid = merged(one for one in facts if "teacher" in one)
    summed = {name: sum(one[name] for one in facts) for name in COUNTS}
    tokens = paid.get("prompt_tokens", 0) + paid.get("completion_tokens", 0)
    return {
        "name": ", ".join(member.model for member in judge.spec.members),
        "rubric": judge.rubric,
        **summed,
        "masked": paid.get("masked", {}),
        **({"calls": paid["calls"], "tokens": tokens, "cost": paid["cost"]} if "cost" in paid else {}),
    }
