"""What an evaluation finds of answers beside the answers themselves: likelihoods, similarities, a judge's verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.artifact import StageKey
from slmops.errors import ConfigError, TeacherError
from slmops.evaluation.judging import WIN_RATE, ask_judge, contests, questions_of, verdicts_of
from slmops.evaluation.measures import measure_name
from slmops.evaluation.options import EvaluateOptions
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.quality import LIKELIHOOD, QUALITY, tallies
from slmops.evaluation.rubric import RUBRIC_SCORE, ask_grades, grade_questions, rubric_scores
from slmops.evaluation.subjects import Subject
from slmops.evaluation.systems import RESULT, System
from slmops.files import read_json, write_json
from slmops.stages.context import rows_of
from slmops.tasks.base import Task, closed_labels, names_file, read_answer
from slmops.tasks.judge import RUBRIC, Grades, Verdicts
from slmops.teachers.opening import identity_of, open_teacher
from slmops.teachers.replies import AskParams
from slmops.teachers.spec import spec_of
from slmops.workspace import Made, StageResult, Workspace

SCORES = "scores.json"
_SIMILARITY, _CALIBRATION = "similarity", "ece"
_JUDGE = "evaluation.judge"
_REQUESTS = "judge.sqlite"
_WINDOW = 1024  # tokens at once for perplexity


@dataclass(frozen=True)
class Scoring:
    """How the answers of an evaluation are scored.

    Args:
        workspace: Of the evaluation.
        options: What is asked for.
        data: Test rows and task.
        task: The kind of work.
    """

    workspace: Workspace
    options: EvaluateOptions
    data: StageResult
    task: Task

    @property
    def wanted(self) -> set[str]:
        """Measures that were asked for, by their names in the table."""
        return {measure_name(name) for name in self.options.metrics if not names_file(name)}

    def outputs(self, subject: Subject, measured: StageResult, teacher: Sequence[str] | None) -> Outputs:
        """What a model made of the test rows, with all that the measures asked for need.

        Args:
            subject: The model.
            measured: Its measurement.
            teacher: The answers of the model named ``teacher``, if there is one.

        Raises:
            ConfigError: A measure needs what there is not.
        """
        rows, answers = rows_of(self.data, "test"), read_json(measured.path / RESULT)["answers"]
        outputs = Outputs(self.task, rows, answers, teacher=teacher)
        found = self._likelihoods(subject, measured, answers)
        scores = {**self._similarities(subject, measured, outputs), **self._judged(subject, measured, outputs)}
        return Outputs(
            self.task,
            rows,
            answers,
            teacher=teacher,
            confidences=found.get("confidences"),
            losses=[(float(a), int(b), int(c)) for a, b, c in found["losses"]] if "losses" in found else None,
            scores=scores,
        )

    def system(self, subject: Subject, measured: StageResult, outputs: Outputs) -> System:
        """The measurement as a row of the comparison; where a judge was asked, his win rate decides."""
        primary = self.task.primary_measure
        names = [name if names_file(name) else measure_name(name) for name in self.options.metrics]
        of_answers = [name for name in names if names_file(name) or name in QUALITY]
        chosen = list(dict.fromkeys([primary, *of_answers])) if names else None
        system = System.load(subject.key, measured.artifact, tallies(outputs, chosen))
        if WIN_RATE in outputs.scores:
            return system.decided_by(WIN_RATE, list(outputs.scores[WIN_RATE]))
        return system

    def _likelihoods(self, subject: Subject, measured: StageResult, answers: Sequence[str]) -> Mapping[str, Any]:
        """Probabilities that the model gives: of its own answers among the labels, and of the references."""
        wanted = {"confidences"} if _CALIBRATION in self.wanted else set()
        wanted |= {"losses"} if self.wanted & set(LIKELIHOOD) else set()
        if not wanted:
            return {}
        path = subject.path
        if path is None or subject.runtime != "torch":
            raise ConfigError(
                f"{subject.name} gives no probabilities",
                where="--metric",
                fix="perplexity and ece need a model folder in Hugging Face layout",
            )
        if "confidences" in wanted and closed_labels(self.task) is None:
            raise ConfigError("ece needs a task whose answers are labels", where="--metric", fix="leave it out")

        def make(folder: Path, work: Path) -> Made:
            from slmops.data.templates import choose_template
            from slmops.evaluation.calibration import label_confidences
            from slmops.evaluation.perplexity import reference_losses
            from slmops.models.load import context_length, load_model, load_tokenizer

            model = load_model(path, dtype="float32").eval()
            template = choose_template(load_tokenizer(path), self.options.chat_template or "own", self.options.text_template)
            rows = rows_of(self.data, "test")
            found: dict[str, Any] = {}
            if "losses" in wanted:
                found["losses"] = reference_losses(model, template, rows, context=min(context_length(path), _WINDOW))
            if "confidences" in wanted:
                labels, read = closed_labels(self.task) or (), [read_answer(self.task.parse, answer) for answer in answers]
                found["confidences"] = label_confidences(model, template, rows, labels, read)
            write_json(folder / SCORES, found)
            return Made()

        config = {"of": sorted(wanted), "chat_template": self.options.chat_template, "text_template": self.options.text_template}
        return self._stage("likelihood", subject, measured, config, make)

    def _similarities(self, subject: Subject, measured: StageResult, outputs: Outputs) -> dict[str, list[float]]:
        if _SIMILARITY not in self.wanted:
            return {}

        def make(folder: Path, work: Path) -> Made:
            from slmops.evaluation.embeddings import similarities

            write_json(folder / SCORES, {_SIMILARITY: similarities(self.options.embeddings, outputs.texts, outputs.expected)})
            return Made()

        return dict(self._stage(_SIMILARITY, subject, measured, {"model": self.options.embeddings}, make))

    def _judged(self, subject: Subject, measured: StageResult, outputs: Outputs) -> dict[str, list[float]]:
        """Win rate and, where it is asked for, grades; both by the judge that the options name."""
        section = self.options.evaluation.judge
        if section is None:
            if missing := sorted(self.wanted & {WIN_RATE, RUBRIC_SCORE}):
                raise ConfigError(f"{missing[0]} needs a judge", where="--metric", fix=f"name one: --set {_JUDGE}.model=gpt-4o")
            return {}
        spec, params = spec_of(section, _JUDGE), AskParams(max_new_tokens=section.max_new_tokens)
        graded = RUBRIC_SCORE in self.wanted

        def make(folder: Path, work: Path) -> Made:
            cache = self.workspace.root / _REQUESTS
            judge = open_teacher(spec, Verdicts(), cache=cache, precision=section.precision, engine=section.engine)
            found = contests(self.task, outputs.rows, outputs.answers, section.rubric or RUBRIC)
            answered = ask_judge(judge, questions_of(found), params, work / "verdicts", section.attempts)
            answered.raise_if_stopped(str(self.workspace.root), f"{_JUDGE}.requests.max_cost")
            said = verdicts_of(answered)
            unread = sum(verdict is None for verdict in said.values())
            if said and 1 - unread / len(said) < section.min_success:
                raise TeacherError(
                    f"the judge gave a verdict on only {len(said) - unread:,} of {len(said):,} questions", where=_JUDGE
                )
            scores = {WIN_RATE: [float(contest.result(said)["score"]) for contest in found]}
            if graded:
                grader = open_teacher(spec, Grades(), cache=cache, precision=section.precision, engine=section.engine)
                questions = grade_questions(outputs)
                scores[RUBRIC_SCORE] = rubric_scores(
                    questions, ask_grades(grader, questions, params, work / "grades", section.attempts)
                )
            write_json(folder / SCORES, scores)
            return Made(dict(answered.facts))

        config = {"judge": identity_of(spec), "rubric": section.rubric, "graded": graded, "attempts": section.attempts}
        return dict(self._stage("judge", subject, measured, config, make))

    def _stage(
        self, stage: str, subject: Subject, measured: StageResult, config: Mapping[str, Any], make: Any
    ) -> Mapping[str, Any]:
        parents = {"measured": measured.id, "model": subject.fingerprint, "data": self.data.id}
        made = self.workspace.stage(StageKey(f"{stage}.{subject.key}", "measurement", 1, config, parents), make)
        found: Mapping[str, Any] = read_json(made.path / SCORES)
        return found
