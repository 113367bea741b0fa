"""``slmops benchmark``: tasks of EleutherAI's lm-evaluation-harness on local data."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app
from slmops.config import build

app = new_app()

_BAR_EVERY_S = "10"


@app.command()
def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folder of a model, package or run, catalogue name, .gguf file, URL of a server (http://host:8000/v1#model); "
            "each may be NAME=MODEL; the others are compared with the first",
        ),
    ],
    tasks: Annotated[str, typer.Option(help="Names in the harness or YAML files of tasks, separated by commas")],
    data_path: Annotated[
        Path | None,
        typer.Option("--data_path", help="Folder with TASK/SPLIT.jsonl, .json, .csv or .parquet; absent: beside the YAML files"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most questions of a task, the first ones")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option("--num_fewshot", help="Examples before each question; absent: as the task says")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Requests at once")] = 1,
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where benchmark.json and the answers go")] = Path(
        "runs/benchmark"
    ),
    seed: Annotated[int, typer.Option(help="Chooses the examples")] = 1234,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply_chat_template", help="Ask in the model's chat template; servers: chats, not completions")
    ] = False,
    as_json: given.AsJson = False,
) -> None:
    """Run benchmarks offline, by the harness itself. Stopped, the same command continues; what is done is not run again."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", _BAR_EVERY_S)  # read when the harness's bars are imported
    from slmops.evaluation.benchmarks.job import REPORT, Benchmark, BenchmarkOptions
    from slmops.evaluation.benchmarks.scores import table

    values = {
        "models": models,
        "tasks": [name.strip() for name in tasks.split(",") if name.strip()],
        "data_path": data_path,
        "output_path": output_path,
        "limit": limit,
        "num_fewshot": num_fewshot,
        "batch_size": batch_size,
        "seed": seed,
        "apply_chat_template": apply_chat_template,
    }
    report = Benchmark(build(BenchmarkOptions, values, where="benchmark")).run()
    print(json.dumps(report, ensure_ascii=False) if as_json else f"{table(report)}\n\nresults  {output_path / REPORT}")
