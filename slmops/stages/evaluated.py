"""The report of an evaluation by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from math import isnan
from statistics import mean
from typing import Any

from slmops import __version__
from slmops.data.rowfiles import read_rows
from slmops.data.rows import Row
from slmops.evaluation.calibration import reliability
from slmops.evaluation.gates import Gate, GateResult, judge
from slmops.evaluation.leaks import leaked
from slmops.evaluation.measures import MEASURES, Measure
from slmops.evaluation.options import EvaluateOptions
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.own_metric import own_measure
from slmops.evaluation.schema import SCHEMA_VERSION
from slmops.evaluation.stats import Difference, in_family, paired
from slmops.evaluation.subjects import Subject
from slmops.evaluation.systems import System
from slmops.files import read_jsonl
from slmops.stages.context import rows_of
from slmops.stages.evaluation_words import command, needed, notes, verdict
from slmops.stages.parts import (
    class_parts,
    confusion_part,
    decoding_part,
    difference_part,
    disagreement_parts,
    machine,
    measured_part,
    place,
    row_part,
    slice_parts,
    stages_of,
)
from slmops.stages.testing import COLUMNS
from slmops.tasks.base import Task, names_file
from slmops.workspace import StageResult, Workspace

TEACHER = "teacher"
"""Name of the model with whose answers the others' are compared for agreement."""


_SHOWN_LEAKS = 5


@dataclass(frozen=True)
class Evaluation:
    """The measured models of an evaluation and what they were measured on.

    Args:
        options: What was asked for.
        workspace: Where everything lies.
        subjects: The models; the first is the one that gates are about.
        data: Test rows and task.
        task: The kind of work.
        outputs: What each model made of the rows, by key.
        systems: As measured, by key.
    """

    options: EvaluateOptions
    workspace: Workspace
    subjects: Sequence[Subject]
    data: StageResult
    task: Task
    outputs: Mapping[str, Outputs]
    systems: Mapping[str, System]

    @cached_property
    def rows(self) -> list[Row]:
        """The test rows."""
        return rows_of(self.data, "test")

    @property
    def first(self) -> str:
        """Name of the model that gates are about."""
        return self.subjects[0].name

    @cached_property
    def names(self) -> list[str]:
        """The rows of the comparison, each once."""
        return list(dict.fromkeys(subject.name for subject in self.subjects))

    @property
    def confidence(self) -> float:
        """Of all intervals."""
        return self.options.evaluation.confidence

    def seeds(self, name: str) -> list[System]:
        """A model as trained with each seed."""
        return [self.systems[subject.key] for subject in self.subjects if subject.name == name]

    def system(self, name: str) -> System:
        """A model; of several seeds with the mean of their measures, and with what the others answered."""
        first, *others = self.seeds(name)
        if not others:
            return first
        known = {measure for measure in first.measures if all(measure in other.measures for other in others)}
        means = {one: mean(seed.measures[one] for seed in (first, *others)) for one in known}
        return replace(first, measures=means, seeds=tuple(other.tallies for other in others))


def judged_gates(evaluation: Evaluation, gates: Sequence[Gate]) -> list[GateResult]:
    """The verdicts on the first model."""
    systems = {name: evaluation.system(name) for name in evaluation.names}
    return [judge(gate, systems[evaluation.first], systems, evaluation.confidence) for gate in gates]


def build_evaluation(evaluation: Evaluation, results: Sequence[GateResult]) -> dict[str, Any]:
    """The report as described by ``evaluation.schema``."""
    options, primary = evaluation.options, evaluation.systems[evaluation.subjects[0].key].primary_measure
    compared = [_compared(evaluation, other, primary) for other in evaluation.names[1:]]
    differences = in_family([found for _, found in compared])
    named = list(zip([other for other, _ in compared], differences, strict=True))
    rows = [_row(evaluation, name, results) for name in evaluation.names]
    used = {primary, *(measure for row in rows for measure in row["measures"])}
    first = evaluation.outputs[evaluation.subjects[0].key]
    known = _measures(used)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": evaluation.first,
        "task_type": str(evaluation.data.facts["task_type"]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": __version__,
        "seed": 0,
        "machine": machine(options.evaluation.threads),
        "primary_measure": primary,
        "test_rows": len(evaluation.rows),
        "confidence": evaluation.confidence,
        "verdict": verdict(evaluation, results, rows[0], known[primary], named),
        "leakage": _leakage(evaluation),
        "rows": rows,
        "measures": {name: _explained(measure) for name, measure in known.items()},
        "differences": [difference_part(evaluation.first, other, primary, found) for other, found in named],
        "needed": needed(evaluation.first, results, named),
        "confusion": confusion_part(evaluation.first, first),
        "classes": class_parts(evaluation.first, first),
        "slices": _slices(evaluation),
        "reliability": _reliability(evaluation),
        "disagreements": _disagreements(evaluation),
        "stages": stages_of(evaluation.workspace),
        "models": [
            {
                "role": one.key,
                "name": one.reference,
                "source": one.source,
                "license": one.license,
                "fingerprint": one.fingerprint[:16],
            }
            for one in evaluation.subjects
        ],
        "decoding": _decoding(evaluation),
        "reproduce": [command(options)],
        "notes": notes(evaluation),
    }


def _row(evaluation: Evaluation, name: str, results: Sequence[GateResult]) -> dict[str, Any]:
    system = evaluation.system(name)
    measures, intervals = measured_part(system, evaluation.confidence)
    subject = next(subject for subject in evaluation.subjects if subject.name == name)
    seeds = f", mean of {len(system.seeds) + 1} training seeds" if system.seeds else ""
    gates = results if name == evaluation.first else ()
    return row_part(system, {"name": name, "title": name, "note": f"{subject.reference}{seeds}"}, measures, intervals, gates)


def _measures(used: set[str]) -> dict[str, Measure]:
    """The table's entries for the measures of the report, the user's own among them."""
    return {name: own_measure(name) if names_file(name) else MEASURES[name] for name in sorted(used, key=place)}


def _explained(measure: Measure) -> dict[str, Any]:
    return {"title": measure.title, "unit": measure.unit, "better": measure.better, "help": measure.help}


def _compared(evaluation: Evaluation, other: str, primary: str) -> tuple[str, Difference]:
    a, *seeds_a = evaluation.seeds(evaluation.first)
    b, *seeds_b = evaluation.seeds(other)
    found = paired(
        a.tallies[primary],
        b.tallies[primary],
        evaluation.confidence,
        seeds_a=[seed.tallies[primary] for seed in seeds_a],
        seeds_b=[seed.tallies[primary] for seed in seeds_b],
    )
    return other, found


def _leakage(evaluation: Evaluation) -> dict[str, Any] | None:
    files, columns = evaluation.options.train_data, evaluation.options.source.columns()
    if not files:
        return None
    train = [row for file in files for found in [read_rows(file, "pool", columns)] for row in found.unlabelled]
    leaks = leaked(evaluation.rows, train)
    return {
        "rows": len(leaks.found),
        "share": leaks.share,
        "against": ", ".join(map(str, files)),
        "examples": [str(leak) for leak in leaks.found[:_SHOWN_LEAKS]],
    }


def _slices(evaluation: Evaluation) -> list[dict[str, Any]]:
    lines = read_jsonl(evaluation.data.path / COLUMNS)
    columns = {name: [line.get(name) for line in lines] for name in evaluation.options.slices}
    key = evaluation.subjects[0].key
    return slice_parts(evaluation.first, evaluation.outputs[key], evaluation.systems[key], evaluation.confidence, columns)


def _reliability(evaluation: Evaluation) -> list[dict[str, Any]]:
    found = []
    for name in evaluation.names:
        key = evaluation.seeds(name)[0].name
        outputs = evaluation.outputs[key]
        if outputs.confidences is None or isnan(ece := evaluation.systems[key].tallies["ece"].value):
            continue
        bins = [asdict(one) for one in reliability(outputs) if one.rows]
        kept = [{"confidence": one["confidence"], "accuracy": one["accuracy"], "rows": one["rows"]} for one in bins]
        found.append({"row": name, "ece": ece, "bins": kept})
    return found


def _disagreements(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Between the first model and the one named teacher, else the second."""
    others = evaluation.names[1:]
    if not others:
        return []
    other = TEACHER if TEACHER in others else others[0]
    key = evaluation.subjects[0].key
    a, b = (evaluation.system(name) for name in (other, evaluation.first))
    judged = MEASURES[evaluation.task.primary_measure].of_rows == "right"
    return disagreement_parts(evaluation.outputs[key], a, b, judged=judged)


def _decoding(evaluation: Evaluation) -> dict[str, str]:
    """How answers were made, and whose depend on what else is in a batch."""
    said = decoding_part({name: evaluation.seeds(name)[0] for name in evaluation.names})
    asked = {
        subject.name: evaluation.options.ask or ("task" if subject.kind == "teacher" else "row") for subject in evaluation.subjects
    }
    return {
        **said,
        **{
            f"{name}: asked": "the task's instruction and the row" if how == "task" else "the row as it stands"
            for name, how in asked.items()
        },
    }
