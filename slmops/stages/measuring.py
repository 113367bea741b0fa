"""Measure rows of the comparison, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from slmops.artifact import StageKey
from slmops.data.rows import Message, Row
from slmops.evaluation.judging import WIN_RATE
from slmops.evaluation.quality import Outputs, tallies
from slmops.evaluation.running import READ, running_measures
from slmops.evaluation.systems import RESULT, System
from slmops.files import read_json, read_jsonl, write_jsonl
from slmops.models.resolve import model_bytes
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.judging import VERDICTS
from slmops.tasks.base import Task, task_key
from slmops.workspace import Made, StageResult, Workspace

Turns = Callable[[Task, Row], Sequence[Message]]
"""How a model is asked a row."""


def measure_floor(context: Context, runtime: str) -> StageResult:
    """What an engine holds in memory with a tiny random model: its fixed cost."""
    recipe = context.recipe
    return engine_floor(context.workspace, runtime, threads=recipe.evaluation.threads, max_length=recipe.export.max_length)


def engine_floor(workspace: Workspace, runtime: str, *, threads: int | None, max_length: int) -> StageResult:
    """The same without a recipe.

    Args:
        workspace: Of the run or the evaluation.
        runtime: The engine.
        threads: CPU threads; ``None``: its own choice.
        max_length: Prompt and answer together, in tokens, that the measured models accept.
    """
    config = {"max_length": max_length, "threads": threads}
    key = StageKey(f"floor.{runtime}", "measurement", 2, config)

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.floor import floor_spec
        from slmops.evaluation.measure import measure

        found = measure(floor_spec(runtime, work, threads=threads, max_length=max_length), folder)
        return Made(measures={name: found[name] for name in ("process_mb", "peak_process_mb")})

    return workspace.stage(key, make)


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
    split: str = "test",
) -> StageResult:
    """Quality, times, requests/s, memory, CPU, energy, size and cost of a model on the test rows.

    Args:
        context: Of the run.
        name: Of the row.
        model: Artifact with the model; the data itself for the TF-IDF baseline.
        data: Test rows and task.
        runtime: Engine, or ``tfidf``.
        floor: The engine's fixed memory, to be subtracted.
        parameters: Weights of the model, where the folder does not say.
        turns: How it is asked in place of the rows as they stand.
        split: Rows to measure on in place of the test rows.
    """
    from slmops.evaluation.measure import TFIDF

    recipe = context.recipe
    section = recipe.evaluation
    config = {
        "runtime": runtime,
        "task_type": task_key(recipe.task_type),
        "max_new_tokens": recipe.answers.max_new_tokens,
        **section.model_dump(mode="json", include=READ),
        **({"asked": "as the task says"} if turns else {}),
        **({"rows": split} if split != "test" else {}),
    }
    parents = {"model": model.id, "data": data.id, **({"floor": floor.id} if floor else {})}
    key = StageKey(f"measure.{name}", "measurement", 3, config, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.evaluation.measure import MeasureSpec, measure
        from slmops.models.load import parameter_count

        path = model.path / ("train.jsonl" if runtime == TFIDF else MODEL)
        test = data.path / f"{split}.jsonl"
        if turns is not None:
            test = work / "test.jsonl"
            task = context.task(data)
            asked = [replace(row, messages=tuple(turns(task, row))) for row in rows_of(data, split)]
            write_jsonl(test, [row.as_dict() for row in asked])
        found = measure(
            MeasureSpec.of(
                section,
                runtime=runtime,
                model=path,
                test=test,
                task_type=recipe.task_type,
                task=dict(context.task_options(data)),
                max_new_tokens=recipe.answers.max_new_tokens,
            ),
            folder,
        )
        count = found["parameters"] or parameters or parameter_count(path)
        size = 8 * count if runtime == TFIDF else model_bytes(path)
        measures = running_measures(
            found,
            price_per_machine_hour=section.price_per_machine_hour,
            size_bytes=size,
            floor=floor.artifact.manifest.measures if floor else None,
        )
        return Made(facts={"parameters": count}, measures={**found["quality"], **measures, "parameters": float(count)})

    return context.workspace.stage(key, make)


def load_system(context: Context, name: str, measurement: StageResult, data: StageResult, verdicts: StageResult | None) -> System:
    """The measurement as a row of the comparison; where a judge was asked, his win rate decides."""
    answers = read_json(measurement.artifact.path / RESULT)["answers"]
    system = System.load(name, measurement.artifact, tallies(Outputs(context.task(data), rows_of(data, "test"), answers)))
    if verdicts is None:
        return system
    return system.decided_by(WIN_RATE, [line["score"] for line in read_jsonl(verdicts.artifact.path / VERDICTS)])
