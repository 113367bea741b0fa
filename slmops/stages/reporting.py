"""The report: everything measured in one object, one page and one table."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmops import __version__
from slmops.artifact import StageKey
from slmops.data.prepare import question_key
from slmops.data.rows import Row
from slmops.evaluation.formats import inside
from slmops.evaluation.measures import MEASURES, Measure, against_teacher
from slmops.evaluation.stats import RESAMPLES, mean_interval, paired
from slmops.evaluation.systems import System
from slmops.files import write_json, write_text
from slmops.stages.comparison import Comparison
from slmops.stages.context import Context, rows_of
from slmops.stages.judging import judge_part
from slmops.stages.notes import notes_of
from slmops.stages.referring import REFERENCES
from slmops.stages.rows import ROWS, RowInfo
from slmops.tasks.base import AnswerError, Task, closed_labels
from slmops.teachers.facts import SUMS
from slmops.workspace import Made, StageResult, link_or_copy

_PAIRS = (
    ("distilled", "control"),
    ("distilled", "answers-only"),
    ("distilled", "teacher"),
    ("packaged", "teacher"),
    ("distilled", "tfidf"),
)
_WITHOUT_LABELS = ("distilled", "untuned")
_SHOWN_DISAGREEMENTS = 10


def write_report(context: Context, comparison: Comparison, data: StageResult) -> StageResult:
    """``report.json`` and ``report.html``."""
    recipe, workspace = context.recipe, context.workspace
    config = {
        "name": recipe.name,
        "gates": list(recipe.gates),
        "chosen": comparison.chosen.name if comparison.chosen else None,
        **recipe.evaluation.model_dump(mode="json", include={"confidence", "targets"}),
    }
    parents = {stage: artifact.id for stage, artifact in workspace.artifacts.items()}
    key = StageKey("report", "report", 3, config, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.data_page import PAGE, REPORT
        from slmops.evaluation.report import render_html

        report = build_report(context, comparison, data)
        for name in (PAGE, REPORT):
            link_or_copy(data.path / name, folder / name)
        write_text(folder / "report.html", render_html(report))
        write_json(folder / "report.json", report)
        return Made({"packaged": report["verdict"]["packaged"], "word": report["verdict"]["word"]})

    return workspace.stage(key, make)


def build_report(context: Context, comparison: Comparison, data: StageResult) -> dict[str, Any]:
    """The report as described by ``evaluation.schema``."""
    recipe, artifacts = context.recipe, context.workspace.artifacts
    confidence = recipe.evaluation.confidence
    chosen = comparison.chosen
    systems = dict(comparison.systems)
    if chosen is not None and chosen.system is not None:
        systems["packaged"] = chosen.system
    teacher = systems.get("teacher")
    test = rows_of(data, "test")
    facts = data.facts
    referred = bool(facts.get(REFERENCES, {}).get("test"))
    compared = [pair for pair in _PAIRS if not (referred and "teacher" in pair)]
    pairs = compared if "control" in systems else [_WITHOUT_LABELS, *compared]
    differences = [_difference(systems, a, b, confidence) for a, b in pairs if a in systems and b in systems]
    against = None if referred else teacher
    rows = [_row(info, systems[info.name], against, comparison, confidence) for info in ROWS if info.name in systems]
    used = {name for row in rows for name in row["measures"]}
    table = {name: against_teacher(name) if referred else measure for name, measure in MEASURES.items()}
    task = context.task(data)
    return {
        "schema_version": 1,
        "name": recipe.name,
        "task_type": recipe.task_type,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": __version__,
        "seed": recipe.seed,
        "machine": _machine(recipe.evaluation.threads),
        "primary_measure": systems["distilled"].primary_measure,
        "reference": "teacher" if referred else "gold",
        "test_rows": len(test),
        "confidence": confidence,
        "verdict": _verdict(comparison, systems, differences[0], table, referred),
        "rows": rows,
        "measures": {
            name: {k: v for k, v in asdict(m).items() if k in ("title", "unit", "better", "help")}
            for name, m in table.items()
            if name in {*used, task.primary_measure}
        },
        "differences": differences,
        "headline": _headline(systems.get("packaged"), teacher, recipe.evaluation.targets, table, referred),
        "judge": judge_part(context),
        "export_measure": task.primary_measure,
        "export": [
            {"model": candidate.name, "attempts": candidate.attempts, "chosen": candidate.scheme}
            for candidate in comparison.candidates
        ],
        "data": {
            "counts": facts["rows"],
            "rejected": facts["rejected"],
            "labels": [{"label": label, "train": n["train"], "test": n["test"]} for label, n in (facts["labels"] or {}).items()],
            "overlap": _overlap(data, test),
            "quality": facts["quality"],
        },
        "answers": _answers(
            [artifacts[name].manifest.facts for name in ("answers", REFERENCES, "measure.teacher") if name in artifacts]
        ),
        "training": [
            _training(name, artifacts[name].manifest.facts)
            for name in ("teacher", "control", "answers-only", "distilled")
            if name in artifacts
        ],
        "confusion": _confusion(systems, task, test),
        "disagreements": _disagreements(systems, task, test, referred),
        "stages": [
            {
                "stage": stage,
                "id": a.id[:12],
                "seconds": a.manifest.seconds,
                "parents": {role: i[:12] for role, i in a.manifest.parents.items()},
            }
            for stage, a in artifacts.items()
        ],
        "models": [
            {"role": role, "name": m.reference, "source": m.source, "license": m.license, "fingerprint": m.fingerprint[:16]}
            for role, m in comparison.models
            if m is not None
        ],
        "reproduce": [f"slmops run {recipe.output_path / 'recipe.yaml'}"],
        "notes": notes_of(recipe, comparison, systems, data, task, referred=referred),
    }


def _row(info: RowInfo, system: System, teacher: System | None, comparison: Comparison, confidence: float) -> dict[str, Any]:
    told = {name for known in comparison.systems.values() for name in known.measures}
    measures: dict[str, float | None] = {name: system.measures.get(name) for name in MEASURES if name in told}
    if teacher is not None:
        measures["share_of_teacher"] = _kept(system, teacher)
    by_row = {measure: system.values(measure) for measure in (system.primary_measure, *system.beside)}
    candidates = {candidate.name: candidate for candidate in comparison.candidates}
    judged = comparison.chosen if info.name == "packaged" else candidates.get(info.name)
    note = f"{info.note}: {judged.name}" if info.name == "packaged" and judged else info.note
    return {
        "name": info.name,
        "title": info.title,
        "note": note,
        "runtime": system.runtime,
        "precision": system.precision,
        "measures": measures,
        "intervals": {measure: mean_interval(values, confidence) for measure, values in by_row.items() if values},
        "latencies_ms": list(system.latencies_ms),
        "gates": [asdict(result) for result in judged.results] if judged else [],
        "packaged": info.name == "packaged",
    }


def _difference(systems: Mapping[str, System], a: str, b: str, confidence: float) -> dict[str, Any]:
    measure = systems[a].primary_measure
    difference = paired(systems[a].scores, systems[b].scores, confidence)
    of_rows = "" if systems[a].values(measure) is not None else ", of the measure of each row by itself"
    return {
        "a": a,
        "b": b,
        "measure": measure,
        "difference": difference.value,
        "interval": difference.interval,
        "word": difference.word,
        "method": f"paired bootstrap, {RESAMPLES:,} resamples{of_rows}",
    }


def _verdict(
    comparison: Comparison,
    systems: Mapping[str, System],
    decisive: Mapping[str, Any],
    table: Mapping[str, Measure],
    referred: bool,
) -> dict[str, Any]:
    points, word = 100 * decisive["difference"], decisive["word"]
    low, high = (100 * bound for bound in decisive["interval"])
    other = "plain fine-tuning" if decisive["b"] == "control" else "the untuned student"
    said = {
        "better": f"Distillation beats {other}",
        "worse": f"Distillation is worse than {other}",
        "INCONCLUSIVE": f"Whether distillation beats {other} cannot be told",
    }[word]
    name = inside(table[decisive["measure"]].title)
    sentence = f"{said}: {points:+.1f} points of {name} ({low:+.1f} to {high:+.1f})"
    chosen = comparison.chosen
    if chosen is None or chosen.system is None:
        reasons = "; ".join(
            f"{candidate.name}: " + ", ".join(r.gate for r in candidate.results if r.verdict != "passed")
            for candidate in comparison.candidates
        )
        return {
            "word": word,
            "sentence": sentence + ". Nothing is packaged.",
            "packaged": None,
            "why": f"No model passes the gates ({reasons}).",
        }
    sentence += f". {_against_teacher(chosen.system, systems.get('teacher'), name, referred)}"
    passed = [r.gate for r in chosen.results]
    most = "most accurate model" if name == "accuracy" else f"model with the highest {name}"
    why = f"{chosen.name} ({chosen.scheme}) is the {most} that passes " + (
        f"all gates: {', '.join(passed)}." if passed else "(the recipe has no gates)."
    )
    return {"word": word, "sentence": sentence, "packaged": chosen.name, "why": why}


def _against_teacher(packaged: System, teacher: System | None, measure: str, referred: bool) -> str:
    if teacher is None:
        return "Its teacher could not be measured on the test rows."
    kept, slow = _kept(packaged, teacher), teacher.measures.get("latency_p50_ms")
    share = f"keeps {kept:.0%} of the teacher's {measure}" if kept is not None else "has a teacher that is never right"
    if referred:
        share = f"has a score of {packaged.quality:.3f} for {measure}, there being no gold,"
    faster = f" and answers {slow / packaged.measures['latency_p50_ms']:.1f} times as fast" if slow is not None else ""
    return f"What is packaged {share}{faster}."


def _headline(
    packaged: System | None, teacher: System | None, targets: Mapping[str, float], table: Mapping[str, Measure], referred: bool
) -> list[dict[str, Any]]:
    def ratio(name: str) -> float | None:
        value = packaged.measures.get(name) if packaged else None
        base = teacher.measures.get(name) if teacher else None
        return value / base if value is not None and base else None

    def less(name: str) -> float | None:
        share = ratio(name)
        return None if share is None else 100 * (1 - share)

    kept = None if packaged is None else packaged.quality if referred else _kept(packaged, teacher)
    values: dict[str, tuple[float | None, str]] = {
        "accuracy kept": (kept, "share"),
        "latency": (less("latency_p50_ms"), "percent less"),
        "memory": (less("memory_mb"), "percent less"),
        "cost": (less("cost_per_million"), "percent less"),
        "requests/s": (ratio("requests_per_s"), "times"),
        "file size": (less("size_mb"), "percent less"),
    }
    headline = []
    for what, (value, unit) in values.items():
        if what in targets:
            target = targets[what] * (100 if unit == "percent less" else 1)
            shown = what
            if teacher and what == "accuracy kept":
                shown = inside(table[teacher.primary_measure].title) + ("" if referred else " kept")
            headline.append(
                {"what": shown, "value": value, "target": target, "unit": unit, "reached": value is not None and value >= target}
            )
    return headline


def _answers(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the teacher answered, and what it has cost with the test rows: facts of the later stage count both."""
    answers, last = parts[0], {**parts[0], **{name: parts[-1][name] for name in SUMS if name in parts[-1]}}
    calls, cost, tokens = last.get("calls"), last.get("cost"), last.get("prompt_tokens", 0) + last.get("completion_tokens", 0)
    return {
        "answered": answers["answered"],
        "rejected": answers["rejected"],
        "reasons": answers["reasons"],
        "right_where_known": answers["right"].get("validation"),
        "right_at_first": answers["right_by_try"][0] if "right_by_try" in answers else None,
        "disagreement": answers["disagreements"]["share"] if "disagreements" in answers else None,
        "masked": answers.get("masked", {}),
        **({"calls": calls, "cost": cost, "tokens": tokens} if cost is not None else {}),
    }


def _training(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    note = f"{facts.get('too_long', 0)} rows were longer than max_length and set aside" if facts.get("too_long") else ""
    return {
        "name": name,
        "steps": facts.get("steps", 0),
        "seconds": facts.get("seconds", 0.0),
        "curve": facts.get("curve", []),
        "note": note,
    }


def _confusion(systems: Mapping[str, System], task: Task, test: Sequence[Row]) -> dict[str, Any] | None:
    """Counts of answers by expected label; ``None`` for free answers."""
    labels = closed_labels(task)
    if labels is None:
        return None
    name = _best(systems)
    shown = [*labels, "(no label)"]
    matrix = [[0] * len(shown) for _ in shown]
    for row, answer in zip(test, systems[name].answers, strict=True):
        expected, found = _label(task, str(row.answer)), _label(task, answer)
        matrix[shown.index(str(expected))][shown.index(found) if found is not None else len(labels)] += 1
    return {"row": name, "labels": shown, "matrix": matrix}


def _label(task: Task, text: str) -> str | None:
    try:
        return task.parse(text)
    except AnswerError:
        return None


def _best(systems: Mapping[str, System]) -> str:
    """The row that is shown by itself."""
    return "packaged" if "packaged" in systems else "distilled"


def _kept(system: System, teacher: System | None) -> float | None:
    """Share of the teacher's primary measure; unknown where the teacher's is zero, or not measured."""
    return system.quality / teacher.quality if teacher is not None and teacher.quality else None


def _overlap(data: StageResult, test: Sequence[Row]) -> int:
    """Test questions that also stand in another split; the data stage removes them, so anything but 0 is a fault."""
    seen = {question_key(row) for name in ("train", "pool", "validation") for row in rows_of(data, name)}
    return sum(question_key(row) in seen for row in test)


def _disagreements(systems: Mapping[str, System], task: Task, test: Sequence[Row], referred: bool) -> list[dict[str, Any]]:
    teacher, ours = systems.get("teacher"), systems[_best(systems)]
    if teacher is None:
        return []
    judged = MEASURES[task.primary_measure].of_rows == "right" and not referred
    found = [
        {
            "question": row.question,
            "expected": str(row.answer),
            "teacher": teacher.answers[at].strip(),
            "packaged": ours.answers[at].strip(),
            "teacher_right": bool(teacher.correct[at]) if judged else None,
            "packaged_right": bool(ours.correct[at]) if judged else None,
        }
        for at, row in enumerate(test)
        if teacher.answers[at].strip().casefold() != ours.answers[at].strip().casefold()
    ]
    return found[:_SHOWN_DISAGREEMENTS]


def _machine(threads: int | None) -> dict[str, Any]:
    import psutil

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        name = next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")), name
        )
    return {
        "cpu": name,
        "cores": threads or os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "os": platform.platform(),
        "python": platform.python_version(),
    }
