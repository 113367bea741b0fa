"""The Python interface: what ``slmops evaluate`` does, as functions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.config import build
from slmops.errors import UsageError
from slmops.evaluation.measures import unit_of
from slmops.evaluation.options import EvaluateOptions
from slmops.evaluation.subjects import Loaded
from slmops.files import write_jsonl


@dataclass(frozen=True)
class Scores(Mapping[str, float]):
    """Measures by the names they were asked for; ``float(scores)`` is the only one, where there is one.

    Args:
        values: The measures.
        intervals: Low and high end of those that have an interval, at the confidence that was asked for.
        report: The whole report, as ``report.json`` has it.
    """

    values_by_name: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    report: Mapping[str, Any]

    def __getitem__(self, name: str) -> float:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def __float__(self) -> float:
        if len(self) != 1:
            raise UsageError(f"there are {len(self)} measures", fix=f"take one by its name: {', '.join(self)}")
        return next(iter(self.values_by_name.values()))


def evaluate(
    model: Any,
    test_data: str | Path | Sequence[Mapping[str, Any]],
    metrics: Sequence[str] | None = None,
    task_type: str | None = None,
    *,
    output_path: str | Path | None = None,
    **options: Any,
) -> Scores:
    """Evaluate a model on test rows.

    Args:
        model: The folder of a run, package or model, a catalogue name, a hub id, the URL of an OpenAI-compatible server
            (``http://host:8000/v1``), an API teacher, recorded answers, or a loaded ``(model, tokenizer)`` of transformers.
        test_data: A file of rows with answers, or the rows themselves.
        metrics: Names in the table of measures or aliases of these, or ``file.py:function``; absent: the task's own.
            ``inference_time`` is in seconds, names that end in ``_ms`` are in milliseconds.
        task_type: Kind of work; absent: what the model's manifest or the data say.
        output_path: Folder that keeps the report and makes the evaluation resumable; absent: nothing is kept.
        options: Further fields of :class:`~slmops.evaluation.options.EvaluateOptions`, such as ``text_template``.

    Returns:
        A mapping with the names of ``metrics`` as keys.

    Raises:
        UsageError: Nobody says what kind of work it is; the message lists the choices.
        SlmopsError: The model, the data or an option cannot be used; the message says what to do.
    """
    from slmops.stages.evaluating import evaluate_models

    with ExitStack() as stack:
        root = Path(output_path) if output_path is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root.mkdir(parents=True, exist_ok=True)
        if not isinstance(test_data, str | Path):
            write_jsonl(root / "rows.jsonl", [dict(row) for row in test_data])
            test_data = root / "rows.jsonl"
        loaded = None if isinstance(model, str | Path) else Loaded.of(model)
        values = {
            **options,
            "models": ["model" if loaded is not None else str(model)],
            "test_data": test_data,
            "metrics": list(metrics or ()),
            "task_type": task_type,
            "output_path": root,
        }
        outcome = evaluate_models(build(EvaluateOptions, values, where="evaluate"), loaded)
    row = outcome.report["rows"][0]
    names = outcome.named(metrics)
    missing = [name for name, known in names.items() if row["measures"].get(known) is None]
    if missing:
        raise UsageError(f"not measured for this model: {', '.join(missing)}", fix="leave it out")
    units = {name: unit_of(name) for name in names}
    intervals = {name: row["intervals"][known] for name, known in names.items() if known in row["intervals"]}
    return Scores(
        {name: row["measures"][known] / units[name] for name, known in names.items()},
        {name: (low / units[name], high / units[name]) for name, (low, high) in intervals.items()},
        outcome.report,
    )


def evaluate_model(
    model_path: Any,
    test_dataset: str | Path | Sequence[Mapping[str, Any]],
    metric_type: str = "accuracy",
    **options: Any,
) -> Scores:
    """The same as :func:`evaluate` in one measure; ``float()`` of it is the number."""
    return evaluate(model_path, test_dataset, [metric_type], **options)
