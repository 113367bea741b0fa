"""A model card in Hugging Face's format from a report: ``README.md`` with YAML front matter and a model-index.

The format: https://huggingface.co/docs/hub/model-cards and its specification, hub-docs/modelcard.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from slmops.errors import UsageError, nearest
from slmops.evaluation.formats import figure, inside, score
from slmops.evaluation.measures import COSTS
from slmops.evaluation.parts import Row
from slmops.evaluation.schema import Report
from slmops.evaluation.tables import class_table, leakage_sentence, main_columns, worst_slices
from slmops.models.catalogue import lookup

MODEL_CARD = "README.md"
"""Name of a model card beside its model."""

_TASKS = {
    "classification": "text-classification",
    "nli": "text-classification",
    "extraction": "token-classification",
    "qa": "question-answering",
    "summarization": "summarization",
    "translation": "translation",
}
_METRICS = {"macro_f1": "f1", "token_f1": "f1", "entity_f1": "f1", "rouge_1": "rouge", "rouge_2": "rouge", "rouge_l": "rouge"}
_LICENSES = {
    "Llama 3.1 Community License": "llama3.1",
    "Llama 3.2 Community License": "llama3.2",
    "Gemma Terms of Use": "gemma",
}
_SPDX = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail", "gpl-3.0")
_GENERATION = "text-generation"
_WEAKEST = 5


def model_card(report: Report, row: str | None = None, *, languages: Sequence[str] = (), datasets: Sequence[str] = ()) -> str:
    """The card of one row of a report.

    Args:
        report: What was measured.
        row: Name of the row; None is what was packaged, or the only row.
        languages: Of the model, ISO 639-1 codes.
        datasets: Hub ids of what it was trained on.

    Raises:
        UsageError: The report has no such row, or several and none was named.
    """
    shown = report.row(row) if row is not None else report.shown
    if shown is None:
        names = [item.name for item in report.rows]
        what = f"the report has no row {row!r}" if row is not None else "the report compares several models and packages none"
        raise UsageError(what, fix=nearest(row, names) if row is not None else f"name one: {', '.join(names)}")
    front = yaml.safe_dump(_front(report, shown, languages, datasets), sort_keys=False, allow_unicode=True)
    return "\n".join(["---", front.rstrip(), "---", "", *_body(report, shown)]) + "\n"


def _front(report: Report, row: Row, languages: Sequence[str], datasets: Sequence[str]) -> dict[str, Any]:
    base = next((model for model in report.models if model.role == "student"), None)
    hub_id = _hub_id(base.name) if base else None
    engines = [tag for tag in ("onnx", "openvino") if tag in row.runtime or (tag, row.runtime) == ("onnx", "ort-genai")]
    front = {
        **(_license(base.license) if base else {}),
        "language": list(languages),
        "base_model": hub_id,
        "datasets": list(datasets),
        # What is evaluated answers by generating text, whatever the task is.
        "pipeline_tag": _GENERATION,
        "tags": ["slmops", *(["distillation"] if report.distilled else []), *engines],
        "metrics": list(dict.fromkeys(_METRICS.get(key, key) for key in _answer_measures(report, row))),
        "model-index": [{"name": report.name, "results": [_result(report, row)]}],
    }
    return {key: value for key, value in front.items() if value}


def _license(name: str) -> dict[str, str]:
    known = _LICENSES.get(name, name.lower())
    if known in _SPDX or known in _LICENSES.values():
        return {"license": known}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "unknown"}


def _hub_id(name: str) -> str | None:
    entry = lookup(name)
    return entry.hub_id if entry else name if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) else None


def _answer_measures(report: Report, row: Row) -> list[str]:
    """What was measured of the answers, the measure that decides first."""
    known = [key for key, value in row.measures.items() if value is not None and key not in (*COSTS, "share_of_teacher")]
    return sorted(known, key=lambda key: key != report.primary_measure)


def _result(report: Report, row: Row) -> dict[str, Any]:
    metrics = []
    for key, value in row.measures.items():
        if value is None:
            continue
        name = report.measures[key].title + _unit(report, key)
        metric: dict[str, Any] = {"type": _METRICS.get(key, key), "value": value, "name": name}
        if key in row.intervals:
            low, high = row.intervals[key]
            metric["args"] = {"confidence": report.confidence, "low": low, "high": high}
        metrics.append(metric)
    slug = re.sub(r"[^a-z0-9]+", "-", report.name.lower()).strip("-") or "own"
    return {
        "task": {"type": _TASKS.get(report.task_type, _GENERATION), "name": report.task_type},
        "dataset": {"name": f"{report.name}: {report.test_rows:,} own test rows", "type": slug, "split": "test"},
        "metrics": metrics,
    }


def _body(report: Report, row: Row) -> Iterator[str]:
    yield f"# {_text(report.name)}"
    yield from ("", _text(f"{report.verdict.word}: {report.verdict.sentence}"), "", _text(report.verdict.why))
    if leakage := leakage_sentence(report):
        yield from ("", f"**Leakage.** {_text(leakage)}")
    yield from ("", f"{_text(row.title)}: {_text(row.note)}. Task: {_text(report.task_type)}.")
    yield f"Runs on {_text(row.runtime)}, weights in {_text(row.precision)}."
    yield from ("", "## Evaluation", "")
    yield f"{report.test_rows:,} test rows; in brackets {100 * report.confidence:g} % intervals. {_text(_machine(report))}"
    yield from ("", *_comparison(report, row))
    yield from ("", "## Weak spots", "", *_weak(report, row))
    if report.data is not None:
        counts = ", ".join(f"{rows:,} {split}" for split, rows in report.data.counts.items())
        yield from ("", "## Training data", "", f"Rows: {_text(counts)}. Seed {report.seed}.")
    if report.models:
        yield from ("", "## Made with", "", *_table(["Role", "Model", "Source", "Licence"], _models(report)))
    if report.decoding:
        yield from ("", "## How answers are made", "", *(f"- {_text(what)}: {_text(how)}" for what, how in report.decoding.items()))
    yield from ("", "## Limits", "", *(f"- {_text(note)}" for note in report.notes or ["None are known beside those above."]))
    yield from (
        "",
        f"## Reproduce (slmops {report.code_version})",
        "",
        *(f"    {' '.join(line.split())}" for line in report.reproduce),
    )


def _machine(report: Report) -> str:
    machine = report.machine
    return f"Times, memory and requests/s: {machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB, {machine.os}."


def _comparison(report: Report, row: Row) -> list[str]:
    keys = main_columns(report)
    heads = [report.measures[key].title + _unit(report, key) for key in keys]
    lines = []
    for other in report.rows:
        cells = [f"{other.title} (this model)" if other is row else other.title]
        for key in keys:
            cell = figure(key, other.measures.get(key), report.measures[key])
            if key in other.intervals:
                low, high = (figure(key, end, report.measures[key]) for end in other.intervals[key])
                cell += f" [{low}, {high}]"
            cells.append(cell)
        lines.append(cells)
    return _table(["Model", *heads], lines)


def _weak(report: Report, row: Row) -> list[str]:
    found = []
    for part in worst_slices(report):
        if part.row == row.name and part.word == "worse":
            measure = report.measures[part.measure]
            value = figure(part.measure, part.score, measure)
            found.append(f"- {part.column} = {part.value}: {inside(measure.title)} {value} on {part.rows:,} rows")
    table = class_table(report)
    if table is not None and table.row == row.name:
        worst = (f"{line.score.label} {score(line.score.f1)}" for line in table.lines[:_WEAKEST])
        found.append(f"- Labels with the lowest F1: {', '.join(worst)}")
    return [f"- {_text(line[2:])}" for line in found] or ["None were found, or nobody looked."]


def _unit(report: Report, key: str) -> str:
    unit = report.measures[key].unit
    return f" ({unit})" if unit and unit != "1/s" else ""


def _models(report: Report) -> list[list[str]]:
    return [[model.role, model.name, model.source, model.license] for model in report.models]


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [list(heads), *lines]
    written = [f"| {' | '.join(_text(cell) for cell in cells)} |" for cells in rows]
    return [written[0], "|" + "---|" * len(heads), *written[1:]]


def _text(text: str) -> str:
    """A text on one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
