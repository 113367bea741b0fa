"""The report: everything measured in one object, one page and one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmops import __version__
from slmops.artifact import Artifact, StageKey
from slmops.data.prepare import question_key
from slmops.data.rows import Row
from slmops.evaluation.formats import inside
from slmops.evaluation.measures import MEASURES, Measure, against_teacher
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.schema import SCHEMA_VERSION
from slmops.evaluation.stats import Difference, in_family, paired
from slmops.evaluation.systems import System
from slmops.evaluation.weak_references import weak_references
from slmops.files import read_json, write_json, write_text
from slmops.stages.comparison import Comparison
from slmops.stages.context import Context, rows_of
from slmops.stages.judging import judge_part
from slmops.stages.notes import notes_before_training, notes_of
from slmops.stages.parts import (
    class_parts,
    confusion_part,
    difference_part,
    disagreement_parts,
    machine,
    measured_part,
    needed_part,
    row_part,
    slice_parts,
    stages_of,
)
from slmops.stages.referring import REFERENCES
from slmops.stages.rehearsal import STAGE
from slmops.stages.rows import ROWS, RowInfo
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
_SHOWN_LEAKS = 3
_LEAST_LANGUAGE = 0.05


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
    key = StageKey("report", "report", 5, config, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.data_page import PAGE, REPORT
        from slmops.evaluation.report import render_html
        from slmops.evaluation.schema import parse_report
        from slmops.export.model_card import MODEL_CARD, model_card

        report = build_report(context, comparison, data)
        for name in (PAGE, REPORT):
            link_or_copy(data.path / name, folder / name)
        if report["verdict"]["packaged"] is not None:
            card = model_card(parse_report(report), languages=_languages(read_json(data.path / REPORT)))
            write_text(folder / MODEL_CARD, card)
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
    differences = _compared(systems, pairs, confidence)
    against = None if referred else teacher
    rows = [_row(info, systems[info.name], against, comparison, confidence) for info in ROWS if info.name in systems]
    used = {name for row in rows for name in row["measures"]}
    table = {name: against_teacher(name) if referred else measure for name, measure in MEASURES.items()}
    task = context.task(data)
    overlap = _overlap(data, test)
    best = _best(systems)
    outputs = Outputs(task, test, systems[best].answers)
    judged = MEASURES[task.primary_measure].of_rows == "right" and not referred
    verdict = _verdict(comparison, systems, differences[0], table, referred)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": recipe.name,
        "task_type": recipe.task_type,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": __version__,
        "seed": recipe.seed,
        "machine": machine(recipe.evaluation.threads),
        "primary_measure": systems["distilled"].primary_measure,
        "reference": "teacher" if referred else "gold",
        "test_rows": len(test),
        "confidence": confidence,
        "verdict": {**verdict, "why": " ".join([verdict["why"], *weak_references(recipe.gates, systems, outputs, confidence)])},
        "leakage": _leakage(overlap, test),
        "rows": rows,
        "measures": {
            name: {k: v for k, v in asdict(m).items() if k in ("title", "unit", "better", "help")}
            for name, m in table.items()
            if name in {*used, task.primary_measure}
        },
        "differences": [difference_part(a, b, systems[a].primary_measure, found) for a, b, found in differences],
        "needed": [sentence for a, b, found in differences for sentence in needed_part(a, b, found)],
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
            "overlap": len(overlap),
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
        "confusion": confusion_part(best, outputs),
        "classes": class_parts(best, outputs),
        "slices": slice_parts(best, outputs, systems[best], confidence, {}),
        "disagreements": disagreement_parts(outputs, teacher, systems[best], judged=judged) if teacher is not None else [],
        "stages": stages_of(context.workspace),
        "models": [
            {"role": role, "name": m.reference, "source": m.source, "license": m.license, "fingerprint": m.fingerprint[:16]}
            for role, m in comparison.models
            if m is not None
        ],
        "decoding": _decoding(context),
        "reproduce": [f"slmops run {recipe.output_path / 'recipe.yaml'}"],
        "notes": [*notes_of(recipe, comparison, systems, data, task, referred=referred), *_rehearsed(artifacts)],
    }


def _rehearsed(artifacts: Mapping[str, Artifact]) -> list[str]:
    return notes_before_training(artifacts[STAGE].manifest.facts) if STAGE in artifacts else []


def _languages(looked: Mapping[str, Any]) -> list[str]:
    """The languages of the questions that are long enough to tell; one in a few of them may be mistaken."""
    told = {code: rows for code, rows in looked["languages"].items() if code != "?"}
    return [code for code, rows in told.items() if rows >= _LEAST_LANGUAGE * sum(told.values())]


def _row(info: RowInfo, system: System, teacher: System | None, comparison: Comparison, confidence: float) -> dict[str, Any]:
    told = {name for known in comparison.systems.values() for name in known.measures}
    known, intervals = measured_part(system, confidence)
    measures = {name: known.get(name) for name in MEASURES if name in told}
    if teacher is not None:
        measures["share_of_teacher"] = _kept(system, teacher)
    candidates = {candidate.name: candidate for candidate in comparison.candidates}
    judged = comparison.chosen if info.name == "packaged" else candidates.get(info.name)
    note = f"{info.note}: {judged.name}" if info.name == "packaged" and judged else info.note
    named = {"name": info.name, "title": info.title, "note": note}
    return row_part(system, named, measures, intervals, judged.results if judged else (), packaged=info.name == "packaged")


def _compared(
    systems: Mapping[str, System], pairs: Sequence[tuple[str, str]], confidence: float
) -> list[tuple[str, str, Difference]]:
    """Paired comparisons of the rows that were measured, as one family."""
    known = [(a, b) for a, b in pairs if a in systems and b in systems]
    measure = systems["distilled"].primary_measure
    found = in_family([paired(systems[a].tallies[measure], systems[b].tallies[measure], confidence) for a, b in known])
    return [(a, b, difference) for (a, b), difference in zip(known, found, strict=True)]


def _verdict(
    comparison: Comparison,
    systems: Mapping[str, System],
    decisive: tuple[str, str, Difference],
    table: Mapping[str, Measure],
    referred: bool,
) -> dict[str, Any]:
    _, against, found = decisive
    points, word = 100 * found.value, found.word
    low, high = (100 * bound for bound in found.interval)
    other = "plain fine-tuning" if against == "control" else "the untuned student"
    said = {
        "better": f"Distillation beats {other}",
        "worse": f"Distillation is worse than {other}",
        "INCONCLUSIVE": f"Whether distillation beats {other} cannot be told",
    }[word]
    name = inside(table[systems["distilled"].primary_measure].title)
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


def _best(systems: Mapping[str, System]) -> str:
    """The row that is shown by itself."""
    return "packaged" if "packaged" in systems else "distilled"


def _kept(system: System, teacher: System | None) -> float | None:
    """Share of the teacher's primary measure; unknown where the teacher's is zero, or not measured."""
    return system.quality / teacher.quality if teacher is not None and teacher.quality else None


def _overlap(data: StageResult, test: Sequence[Row]) -> list[Row]:
    """Test rows that also stand in another split; the data stage removes them, so anything but none is a fault."""
    seen = {question_key(row) for name in ("train", "pool", "validation") for row in rows_of(data, name)}
    return [row for row in test if question_key(row) in seen]


def _leakage(overlap: Sequence[Row], test: Sequence[Row]) -> dict[str, Any]:
    return {
        "rows": len(overlap),
        "share": len(overlap) / max(len(test), 1),
        "against": "train, pool or validation",
        "examples": [row.question for row in overlap[:_SHOWN_LEAKS]],
    }


def _decoding(context: Context) -> dict[str, str]:
    """How the students were asked; the teacher may be asked in its own way (see the answers stage)."""
    template = context.template_key
    texts = {"text template": template["text_template"]} if template["text_template"] is not None else {}
    sampling = f"greedy, at most {context.recipe.answers.max_new_tokens} new tokens"
    return {"sampling": sampling, "chat template": str(template["chat_template"]), **texts}
