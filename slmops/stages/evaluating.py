"""An evaluation by itself: models measured on test rows, gates judged, a report; no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.artifact import StageKey
from slmops.errors import GateError, InconclusiveError
from slmops.evaluation.gates import Gate, GateResult, Verdict, overall, said_before, what_settles
from slmops.evaluation.measures import measure_name
from slmops.evaluation.options import EvaluateOptions
from slmops.evaluation.subjects import Loaded, subjects_of
from slmops.evaluation.systems import RESULT
from slmops.files import file_digest, read_json, write_json, write_text
from slmops.progress import say
from slmops.stages.evaluated import TEACHER, Evaluation, build_evaluation, judged_gates
from slmops.stages.scoring import Scoring
from slmops.stages.subjects import measure_subject
from slmops.stages.testing import read_test
from slmops.tasks.base import names_file, open_task
from slmops.workspace import Made, Workspace, link_or_copy

REPORT, PAGE, CARD = "report.json", "report.html", "model-card.md"


@dataclass(frozen=True)
class Evaluated:
    """What came of an evaluation.

    Args:
        root: The folder with the report.
        report: The content of ``report.json``.
        results: What came of the gates.
        own: The measures that are the task's own.
    """

    root: Path
    report: Mapping[str, Any]
    results: tuple[GateResult, ...]
    own: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Of all gates together."""
        return overall(list(self.results))

    def named(self, metrics: Sequence[str] | None) -> dict[str, str]:
        """What was asked for and its name in the report; without ``metrics`` the task's own measures."""
        return {name: name if names_file(name) else measure_name(name) for name in metrics or self.own}

    def raise_for_gates(self) -> None:
        """Raise where not all gates passed.

        Raises:
            GateError: One failed.
            InconclusiveError: None failed, and of one it cannot be told.
        """
        place = str(self.root / PAGE)
        said = "; ".join(f"{result.gate}: {result.detail}" for result in self.results if result.verdict == self.verdict)
        if self.verdict == "failed":
            raise GateError(f"failed: {said}", where=place, fix="see there by how much, and on which rows")
        if self.verdict == "INCONCLUSIVE":
            raise InconclusiveError(f"INCONCLUSIVE: {said}", where=place, fix=what_settles(self.results))


def evaluate_models(options: EvaluateOptions, loaded: Loaded | None = None) -> Evaluated:
    """Measure models on test rows, judge the gates and write the report; what is done already is not done again.

    Args:
        options: What is asked for.
        loaded: A model in memory, in place of those that the options name.

    Raises:
        SlmopsError: A model, the data or an option cannot be used; the message says what to do.
    """
    gates = [Gate.parse(text) for text in options.gates]
    workspace = Workspace(options.output_path)
    subjects = subjects_of(options.models) if loaded is None else [loaded.subject]
    with workspace.lock():
        data = read_test(workspace, options, subjects)
        task = open_task(data.facts["task_type"], read_json(data.path / "task.json"))
        for sentence in said_before(gates, task.primary_measure, int(data.facts["rows"]), options.evaluation.confidence):
            say(sentence)
        measured = {one.key: measure_subject(workspace, options, one, data, task, loaded) for one in subjects}
        scoring = Scoring(workspace, options, data, task)
        teacher = read_json(measured[TEACHER].path / RESULT)["answers"] if TEACHER in measured else None
        outputs = {one.key: scoring.outputs(one, measured[one.key], teacher) for one in subjects}
        systems = {one.key: scoring.system(one, measured[one.key], outputs[one.key]) for one in subjects}
        evaluation = Evaluation(options, workspace, subjects, data, task, outputs, systems)
        results = judged_gates(evaluation, gates)
        report = _write(evaluation, results)
        workspace.remember()
    return Evaluated(options.output_path, read_json(report / REPORT), tuple(results), tuple(outputs[subjects[0].key].row_scores[0]))


def _write(evaluation: Evaluation, results: Sequence[GateResult]) -> Path:
    """``report.json``, ``report.html`` and the model card, as an artifact and at the top of the folder."""
    options, workspace = evaluation.options, evaluation.workspace
    config = {
        **options.model_dump(mode="json", include={"gates", "metrics", "slices", "train_data", "embeddings"}),
        "confidence": options.evaluation.confidence,
    }
    parents = {stage: artifact.id for stage, artifact in workspace.artifacts.items()}
    parents |= {f"train_data.{number}": file_digest(path) for number, path in enumerate(options.train_data)}

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.report import render_html
        from slmops.evaluation.schema import parse_report
        from slmops.export.model_card import model_card

        report = build_evaluation(evaluation, results)
        write_text(folder / PAGE, render_html(report))
        write_text(folder / CARD, model_card(parse_report(report), report["rows"][0]["name"]))
        write_json(folder / REPORT, report)
        return Made({"word": report["verdict"]["word"]})

    made = workspace.stage(StageKey("report", "report", 1, config, parents), make)
    for name in (PAGE, REPORT, CARD):
        link_or_copy(made.path / name, options.output_path / name)
    return options.output_path
