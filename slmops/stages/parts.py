"""Parts that the reports of a run and of an evaluation by itself have in common."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil, isnan
from pathlib import Path
from typing import Any

from slmops.evaluation import classes
from slmops.evaluation.disagreements import Answered, largest_disagreements
from slmops.evaluation.gates import GateResult
from slmops.evaluation.margins import rows_to_settle
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.slices import columns_of, slices
from slmops.evaluation.stats import Difference, estimate
from slmops.evaluation.systems import System
from slmops.tasks.base import closed_labels
from slmops.workspace import Workspace

_LEAST_MORE = 0.25
_DECODING = ("sampling", "template", "prompts")


def machine(threads: int | None) -> dict[str, Any]:
    """The machine that everything is measured on."""
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


def stages_of(workspace: Workspace) -> list[dict[str, Any]]:
    """The completed stages with their parents."""
    return [
        {
            "stage": stage,
            "id": artifact.id[:12],
            "seconds": artifact.manifest.seconds,
            "parents": {role: parent[:12] for role, parent in artifact.manifest.parents.items()},
        }
        for stage, artifact in workspace.artifacts.items()
    ]


def measured_part(system: System, confidence: float) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """A row's measures and the intervals of those that have one; with several training seeds both are over seeds too."""
    measures: dict[str, float | None] = {**system.measures}
    intervals = {}
    for measure, tally in system.tallies.items():
        found = estimate(tally, confidence, seeds=[seed[measure] for seed in system.seeds])
        measures[measure] = None if isnan(found.value) else found.value
        if not any(map(isnan, found.interval)):
            intervals[measure] = found.interval
    return {name: measures[name] for name in sorted(measures, key=place)}, intervals


def row_part(
    system: System,
    named: Mapping[str, str],
    measures: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float]],
    gates: Sequence[GateResult],
    *,
    packaged: bool = False,
) -> dict[str, Any]:
    """One model of a report.

    Args:
        system: As measured.
        named: Name, title and note.
        measures: As :func:`measured_part` gives them.
        intervals: The same.
        gates: What came of the gates on it.
        packaged: Whether it is what was packaged.
    """
    return {
        **named,
        "runtime": system.runtime,
        "precision": system.precision,
        "measures": dict(measures),
        "intervals": dict(intervals),
        "latencies_ms": list(system.latencies_ms),
        "throughput": [dict(level) for level in system.throughput],
        "batch_dependent": system.decoding.get("batch_dependent"),
        "gates": [asdict(result) for result in gates],
        "packaged": packaged,
    }


def place(measure: str) -> int:
    """Where a measure stands in the table; the user's own come last."""
    order = list(MEASURES)
    return order.index(measure) if measure in order else len(order)


def difference_part(a: str, b: str, measure: str, found: Difference) -> dict[str, Any]:
    """A paired comparison of two rows."""
    return {
        "a": a,
        "b": b,
        "measure": measure,
        "difference": found.value,
        "interval": found.interval,
        "word": found.word,
        "method": found.method,
        "p_value": found.p_value,
        "adjusted": found.adjusted,
    }


def needed_part(a: str, b: str, found: Difference) -> list[str]:
    """How many more test rows would tell two rows apart, in a sentence, where they cannot be told."""
    more = rows_to_settle(found, 0.0) if found.word == "INCONCLUSIVE" else None
    if not more:
        return []
    least = ceil(found.rows * _LEAST_MORE)  # fewer change an interval less than chance does
    return [f"About {max(more, least):,} more test rows would tell {a} and {b} apart, if they come out as these did."]


def confusion_part(name: str, outputs: Outputs) -> dict[str, Any] | None:
    """Counts of answers by expected label; ``None`` for free answers."""
    if closed_labels(outputs.task) is None:
        return None
    found = classes.confusion(outputs)
    labels = list(dict.fromkeys([*found.labels, *found.answered]))
    matrix = [[0] * len(labels) for _ in labels]
    for label, counts in zip(found.labels, found.counts, strict=True):
        for answered, count in zip(found.answered, counts, strict=True):
            matrix[labels.index(label)][labels.index(answered)] = count
    return {"row": name, "labels": labels, "matrix": matrix}


def class_parts(name: str, outputs: Outputs) -> list[dict[str, Any]]:
    """How well each label of the test rows is found; none for free answers."""
    if closed_labels(outputs.task) is None:
        return []
    shares = ("precision", "recall", "f1")
    return [
        {"row": name, "label": one.label, "rows": one.rows, **{share: _or_zero(getattr(one, share)) for share in shares}}
        for one in classes.class_scores(outputs)
        if one.rows
    ]


def slice_parts(
    name: str, outputs: Outputs, system: System, confidence: float, columns: Mapping[str, Sequence[str | None]]
) -> list[dict[str, Any]]:
    """Parts of the test rows against all others by the measure that decides, the worst first."""
    measure = system.primary_measure
    parted = columns_of(outputs.rows, outputs.task, columns)
    found = slices(system.tallies[measure], parted, confidence, better=MEASURES[measure].better).found
    kept = ("column", "value", "rows", "score", "interval", "difference", "word")
    return [{"row": name, "measure": measure, **{key: getattr(one, key) for key in kept}} for one in found]


def disagreement_parts(outputs: Outputs, a: System, b: System, *, judged: bool) -> list[dict[str, Any]]:
    """The test rows on which two models differ most; ``judged``: whether answers are right or wrong."""
    return largest_disagreements(outputs.rows, _answered(a, judged), _answered(b, judged))


def decoding_part(systems: Mapping[str, System]) -> dict[str, str]:
    """How each model's answers were made."""
    return {
        f"{name}: {key}": str(system.decoding[key])
        for name, system in systems.items()
        for key in _DECODING
        if system.decoding.get(key) is not None
    }


def _answered(system: System, judged: bool) -> Answered:
    right = [bool(one) for one in system.correct] if judged else None
    return Answered(system.name, system.answers, system.tallies[system.primary_measure].each.tolist(), right)


def _or_zero(value: float) -> float:
    return 0.0 if isnan(value) else value
