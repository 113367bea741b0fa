"""Measure rows of the comparison, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slmops.artifact import StageKey
from slmops.config import Recipe
from slmops.data.rows import Message, Row
from slmops.evaluation.judging import WIN_RATE
from slmops.evaluation.systems import System
from slmops.files import read_jsonl, size_bytes, write_jsonl
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.judging import VERDICTS
from slmops.tasks.base import Task, task_key
from slmops.workspace import Made, StageResult

Turns = Callable[[Task, Row], Sequence[Message]]
"""How a model is asked a row."""


def measure_floor(context: Context, runtime: str) -> StageResult:
    """What an engine holds in memory with a tiny random model: its fixed cost."""
    recipe = context.recipe
    key = StageKey(
        f"floor.{runtime}", "measurement", 1, {"max_length": recipe.export.max_length, "threads": recipe.evaluation.threads}
    )

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.measure import MeasureSpec, measure
        from slmops.testing.tiny import save_tiny_model

        model = save_tiny_model(work / "tiny", layers=1)
        if runtime != "torch":
            from slmops.export.onnx import export_onnx

            model = work / "tiny-onnx"
            export_onnx(work / "tiny", model, "int4", max_length=min(recipe.export.max_length, 256))
        rows = [Row.of(text, answer) for text, answer in (("where is it", "delivery"), ("my money back", "refund"))]
        write_jsonl(work / "rows.jsonl", [row.as_dict() for row in rows])
        found = measure(
            MeasureSpec(
                runtime=runtime,
                model=model,
                test=work / "rows.jsonl",
                task_type="classification",
                task={"labels": ["delivery", "refund"]},
                threads=recipe.evaluation.threads,
                latency_requests=5,
                batch_size=2,
                max_new_tokens=8,
            ),
            folder,
        )
        return Made(measures={"process_mb": found["process_mb"]})

    return context.workspace.stage(key, make)


def measure_model(
    context: Context,
    name: str,
    model: StageResult,
    data: StageResult,
    *,
    runtime: str,
    floor: StageResult | None,
    parameters: int | None = None,
    turns: Turns | None = None,
) -> StageResult:
    """Quality, latency, requests/s, memory, size and cost of a model on the test rows.

    Args:
        context: Of the run.
        name: Of the row.
        model: Artifact with the model; the data itself for the TF-IDF baseline.
        data: Test rows and task.
        runtime: Engine, or ``tfidf``.
        floor: The engine's fixed memory, to be subtracted.
        parameters: Weights of the model, where the folder does not say.
        turns: How it is asked in place of the rows as they stand.
    """
    from slmops.evaluation.measure import TFIDF

    recipe = context.recipe
    section = recipe.evaluation
    config = {
        "runtime": runtime,
        "task_type": task_key(recipe.task_type),
        "max_new_tokens": recipe.answers.max_new_tokens,
        **section.model_dump(mode="json", include={"latency_requests", "batch_size", "threads", "price_per_machine_hour"}),
        **({"asked": "as the task says"} if turns else {}),
    }
    parents = {"model": model.id, "data": data.id, **({"floor": floor.id} if floor else {})}
    key = StageKey(f"measure.{name}", "measurement", 2, config, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.measure import MeasureSpec, measure
        from slmops.models.load import parameter_count

        path = model.path / ("train.jsonl" if runtime == TFIDF else MODEL)
        test = data.path / "test.jsonl"
        if turns is not None:
            test = work / "test.jsonl"
            task = context.task(data)
            asked = [replace(row, messages=tuple(turns(task, row))) for row in rows_of(data, "test")]
            write_jsonl(test, [row.as_dict() for row in asked])
        found = measure(
            MeasureSpec(
                runtime=runtime,
                model=path,
                test=test,
                task_type=recipe.task_type,
                task=dict(context.task_options(data)),
                threads=section.threads,
                latency_requests=section.latency_requests,
                batch_size=section.batch_size,
                max_new_tokens=recipe.answers.max_new_tokens,
            ),
            folder,
        )
        count = found["parameters"] or parameters or parameter_count(path)
        size = 8 * count if runtime == TFIDF else size_bytes(path)
        measures = _running_cost(recipe, found, float(size), floor)
        return Made(facts={"parameters": count}, measures={**found["quality"], **measures, "parameters": float(count)})

    return context.workspace.stage(key, make)


def load_system(name: str, measurement: StageResult, verdicts: StageResult | None) -> System:
    """The measurement as a row of the comparison; where a judge was asked, his win rate decides."""
    system = System.load(name, measurement.artifact)
    if verdicts is None:
        return system
    return system.decided_by(WIN_RATE, [line["score"] for line in read_jsonl(verdicts.artifact.path / VERDICTS)])


def _running_cost(recipe: Recipe, found: Mapping[str, Any], size: float, floor: StageResult | None) -> dict[str, float]:
    latencies: list[float] = found["latencies_ms"]
    rate = max(found["requests_per_s_single"], found["requests_per_s_batched"])
    process_mb = float(found["process_mb"])
    measures = {
        "size_mb": size / 1e6,
        "process_mb": process_mb,
        "latency_p50_ms": percentile(latencies, 0.5),
        "latency_p95_ms": percentile(latencies, 0.95),
        "requests_per_s": rate,
        "cost_per_million": recipe.evaluation.price_per_machine_hour * 1e6 / rate / 3600,
    }
    if floor is not None:
        measures["memory_mb"] = max(0.0, process_mb - floor.artifact.manifest.measures["process_mb"])
    return measures


def percentile(values: list[float], share: float) -> float:
    """The value that a share of all stays at or below, between neighbours linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
